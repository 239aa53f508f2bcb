"""`build_model`: one entry for every network, spiking or not, with its encoder apart from its body."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from snnlib import checks
from snnlib.encoding import EVENT_ENCODERS, POLARITIES, build_encoder
from snnlib.errors import InputError
from snnlib.models.blocks import check_connection
from snnlib.models.cifar_resnet import CifarResNetBody
from snnlib.models.layers import NeuronFactory
from snnlib.models.memory import check_memory
from snnlib.models.resnet import ResNetBody
from snnlib.models.vgg import VGGBody
from snnlib.models.wide_resnet import WideResNetBody
from snnlib.neurons import LIF, Surrogate, surrogates


@dataclass(frozen=True)
class Network:
    """`body(num_classes, neuron, **options)` builds it; `defaults` are its own options where the caller gives None."""

    body: Callable[..., nn.Module]
    defaults: dict


def _luu(family: str, depth: int) -> Network:
    """SEW-ResNet and Spiking-ResNet as in Luu et al. 2025; the reset is detached in the first alone."""
    return Network(
        partial(ResNetBody, depth, block=family),
        {
            "encoder": "phase",
            "pool": "max",
            "width": 64,
            "stem": "7x7",
            "connection": "ADD",
            "surrogate": "atan(alpha=2)",
            "detach_reset": family == "sew",
        },
    )


def _convertible(body: Callable[..., nn.Module], *, width: int, image_size: int = 32, **more) -> Network:
    """Networks of Özdenizci & Legenstein 2024, as in their code."""
    return Network(
        body,
        {
            "encoder": "direct",
            "width": width,
            "surrogate": "piecewise_linear(width=1)",
            "detach_reset": False,
            "bias": False,
            "normalisation": None,
            "image_size": image_size,
            **more,
        },
    )


NETWORKS: dict[str, Network] = {
    **{f"{family}_resnet{depth}": _luu(family, depth) for family in ("sew", "spiking") for depth in (18, 34, 50)},
    "vgg11": _convertible(partial(VGGBody, "vgg11"), width=64, pool="avg", dropout=0.2),
    "vgg16": _convertible(partial(VGGBody, "vgg16"), width=64, pool="avg", dropout=0.2),
    "vgg11_tinyimagenet": _convertible(
        partial(VGGBody, "vgg11_tinyimagenet"), width=64, pool="avg", dropout=0.0, image_size=64
    ),
    "wrn16_4": _convertible(partial(WideResNetBody, 16, 4), width=16),
    "wrn28_4": _convertible(partial(WideResNetBody, 28, 4), width=16),
    "resnet20": _convertible(partial(CifarResNetBody, 20), width=16),
    "resnet32": _convertible(partial(CifarResNetBody, 32), width=16),
}
MODEL_NAMES = tuple(NETWORKS)
OWN_OPTIONS = tuple(dict.fromkeys(option for network in NETWORKS.values() for option in network.defaults))
NEURON_OPTIONS = ("leak", "threshold", "surrogate", "reset", "detach_reset", "trainable_threshold", "threshold_floor")

COUNTS = ("num_classes", "time_steps", "width", "in_channels", "image_size")
FLAGS = ("spiking", "trainable_threshold", "detach_reset", "bias")
TEXTS = ("name", "encoder", "encoder_gradient", "pool", "stem", "connection", "surrogate", "reset", "normalisation")
RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "leak": ("in [0, 1]", lambda value: 0 <= value <= 1),
    "threshold": ("above 0", lambda value: value > 0),
    "threshold_floor": ("of at least 0", lambda value: value >= 0),
    "dropout": ("in [0, 1)", lambda value: 0 <= value < 1),
}


class Model(nn.Module):
    """`model(images) -> logits`, as `body(encoder(images))`, so that an attack can act on either side of the encoder.

    `images` `[N, C, H, W]` in [0, 1]; `encoder(images)` `[T, N, C, H, W]`; logits `[N, classes]`.
    `config` holds the plain arguments of `build_model` that made it.
    """

    def __init__(self, encoder: nn.Module, body: nn.Module, config: dict) -> None:
        super().__init__()
        self.encoder = encoder
        self.body = body
        self.config = config

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.encoder(images))


def parse_surrogate(text: str) -> Surrogate:
    """Read a surrogate as its `repr` spells it: a family's name, optionally with numbers in parentheses."""
    name, _, inside = text.strip().removesuffix(")").partition("(")
    try:
        pairs = (pair.split("=") for pair in inside.split(",") if pair.strip())
        parameters = {key.strip(): float(value) for key, value in pairs}
        if name in surrogates.FAMILIES:
            inspect.signature(surrogates.FAMILIES[name]).bind(**parameters)
    except (ValueError, TypeError) as error:
        raise InputError(f"surrogate is {text!r}; expected e.g. 'atan(alpha=2.0)'; {error}") from None
    return surrogates.from_name(name, **parameters)


def _own_options(name: str, given: dict) -> dict:
    """The network's own options, with its defaults where None was given; refuses those that it does not have."""
    if name not in NETWORKS:
        raise InputError(f"model is {name!r}; expected one of {', '.join(MODEL_NAMES)}; choose one of these")
    defaults = NETWORKS[name].defaults
    for option, value in given.items():
        if value is not None and option not in defaults:
            raise InputError(f"{option} is {value!r}, but {name} has no such option; leave it out")
    return {option: default if given[option] is None else given[option] for option, default in defaults.items()}


def _check_texts(given: dict) -> None:
    for option in TEXTS:
        if not isinstance(given[option], str | None):
            raise InputError(f"{option} is {checks.shown(given[option])}; expected a text; see build_model")


def _checked(config: dict) -> dict:
    """`config` in plain Python types. Errors: InputError for the first value that does not fit."""
    plain = dict(config)
    plain |= {option: checks.whole(option, config[option]) for option in COUNTS if option in config}
    plain |= {option: checks.flag(option, config[option]) for option in FLAGS if option in config}
    for option, (wanted, fits) in RANGES.items():
        if option in config:
            plain[option] = checks.number(option, config[option])
            if not fits(plain[option]):
                raise InputError(f"{option} is {plain[option]}; expected a finite number {wanted}; e.g. {option}=0.5")
    if config["seed"] is not None:
        plain["seed"] = checks.seed("seed", config["seed"])
    if config["reset"] not in ("hard", "soft"):
        raise InputError(f"reset is {config['reset']!r}; expected 'hard' or 'soft'; hard sets the membrane to 0")
    if "connection" in config:
        check_connection(config["connection"])
    if config["encoder"] in EVENT_ENCODERS and plain["in_channels"] != POLARITIES:
        raise InputError(
            f"in_channels is {plain['in_channels']} with encoder {config['encoder']!r}; events have two polarities: "
            f"set in_channels={POLARITIES}"
        )
    return plain


def _neuron_factory(spiking: bool, surrogate: Surrogate, options: dict) -> NeuronFactory:
    return partial(LIF, **{**options, "surrogate": surrogate}) if spiking else nn.ReLU


@contextmanager
def _drawn_by(seed: int | None) -> Iterator[None]:
    """Inside, weights are drawn on the CPU from a generator that starts at `seed`; no generator is moved by it.

    `torch.manual_seed` would start the generators of all CUDA devices anew. None: as it comes.
    """
    if seed is None or torch.get_default_device().type == "meta":
        yield
        return
    state = torch.default_generator.get_state()
    try:
        torch.default_generator.manual_seed(seed)
        with torch.device("cpu"):
            yield
    finally:
        torch.default_generator.set_state(state)


def build_model(
    name: str,
    num_classes: int,
    time_steps: int,
    encoder: str | None = None,
    pool: str | None = None,
    width: int | None = None,
    *,
    stem: str | None = None,
    connection: str | None = None,
    in_channels: int = 3,
    spiking: bool = True,
    leak: float = 1.0,
    threshold: float = 1.0,
    surrogate: str | None = None,
    reset: str = "hard",
    detach_reset: bool | None = None,
    trainable_threshold: bool = False,
    threshold_floor: float = 0.0,
    bias: bool | None = None,
    dropout: float | None = None,
    normalisation: str | None = None,
    image_size: int | None = None,
    encoder_gradient: str | None = None,
    seed: int | None = None,
) -> Model:
    """Build a network by its name, one of `MODEL_NAMES`.

    None takes the paper's choice for the network. Both: IF neurons (leak 1, threshold 1, hard reset).

    * sew_resnet18/34/50, spiking_resnet18/34/50 (Luu et al. 2025): phase coding, stem 7x7 and max pool, width 64,
      connection ADD, atan(α=2), the reset detached in SEW-ResNet and attached in Spiking-ResNet.
    * vgg11, vgg16, vgg11_tinyimagenet, wrn16_4, wrn28_4, resnet20, resnet32 (Özdenizci & Legenstein 2024): direct
      coding, average pool, piecewise_linear(width=1), attached reset, no `bias` (in a VGG that of every convolution and
      linear layer, in the others that of the read-out). VGG: width 64, `dropout` 0.2 (vgg11_tinyimagenet 0);
      the others: width 16. `normalisation`: "cifar10", "cifar100", "svhn" or "tinyimagenet"; None: pixels as they are.
      `image_size` 32 (vgg11_tinyimagenet 64) matters to vgg11 and vgg16, whose linear layers fit one size.

    Events: `encoder` "events" takes binned recordings [N, T, 2, H, W], "i2e" makes events of images; both with
    `in_channels=2`.
    `trainable_threshold`: one parameter per spiking layer, never below `threshold_floor` (0.03 in the paper).
    `spiking=False` puts ReLU in the place of every neuron: the same definition as an ANN, weights carry over by name.
    The conversion paper's networks then run a static input once, whatever `time_steps`.
    `seed` fixes the initial weights, the same on every device, without touching any global generator.
    `model.config` has the values in use: `build_model(**model.config)` builds the same network again.
    Raises `InputError` for unknown names, values that do not fit, options that the network does not have, and, before
    anything is made, for a network whose weights or encoded images exceed the machine's memory.

    **Source:** Fang et al. 2021; Luu et al. 2025 (their code's model.py, sew_resnet.py); Özdenizci & Legenstein 2024
    (their code's models/).

    >>> import torch
    >>> snn = build_model("vgg11", num_classes=10, time_steps=4, width=4, seed=0)
    >>> ann = build_model("vgg11", num_classes=10, time_steps=1, width=4, seed=0, spiking=False)
    >>> snn(torch.rand(5, 3, 32, 32)).shape, ann(torch.rand(5, 3, 32, 32)).shape
    (torch.Size([5, 10]), torch.Size([5, 10]))
    """
    given = dict(locals())
    _check_texts(given)
    config = {**given, **_own_options(name, {option: given[option] for option in OWN_OPTIONS})}
    for option in set(OWN_OPTIONS) - set(NETWORKS[name].defaults):
        del config[option]
    config = _checked(config)
    pseudo_derivative = parse_surrogate(config["surrogate"])
    encoding = build_encoder(config["encoder"], config["time_steps"], gradient=encoder_gradient)
    config |= {"surrogate": repr(pseudo_derivative), "encoder_gradient": encoding.gradient}

    neuron = _neuron_factory(spiking, pseudo_derivative, {option: config[option] for option in NEURON_OPTIONS})
    of_the_body = (NETWORKS[name].defaults.keys() | {"num_classes", "in_channels"}) - {"encoder", *NEURON_OPTIONS}
    options = {option: config[option] for option in of_the_body}
    build = partial(NETWORKS[name].body, neuron=neuron, **options)
    check_memory({option: config[option] for option in COUNTS if option in config}, build)
    # Weights made under inference mode could never be trained, nor attacked.
    with torch.inference_mode(False):
        with _drawn_by(config["seed"]):
            body = build()
        # Convolutions are faster on pixels whose channels lie together; neurons take either layout.
        body = body.to(device=torch.get_default_device(), memory_format=torch.channels_last)
    return Model(encoding, body, config)


def parameter_count(model: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in model.parameters())
