"""`build_model`: one entry for every network, spiking or not, with its encoder apart from its body."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from snnlib.encoding import build_encoder
from snnlib.errors import InputError
from snnlib.models.blocks import CONNECTIONS
from snnlib.models.layers import NeuronFactory
from snnlib.models.resnet import ResNetBody
from snnlib.neurons import LIF, Surrogate, surrogates

MODEL_NAMES = tuple(f"{family}_resnet{depth}" for family in ("sew", "spiking") for depth in (18, 34, 50))


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


def _neuron_factory(
    spiking: bool, leak: float, threshold: float, surrogate: Surrogate, reset: str, detach_reset: bool
) -> NeuronFactory:
    if not spiking:
        return nn.ReLU
    return lambda: LIF(leak=leak, threshold=threshold, surrogate=surrogate, reset=reset, detach_reset=detach_reset)


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


def build_model(
    name: str,
    num_classes: int,
    time_steps: int,
    encoder: str = "phase",
    pool: str = "max",
    width: int = 64,
    *,
    stem: str = "7x7",
    connection: str = "ADD",
    in_channels: int = 3,
    spiking: bool = True,
    leak: float = 1.0,
    threshold: float = 1.0,
    surrogate: str = "atan(alpha=2)",
    reset: str = "hard",
    detach_reset: bool | None = None,
    encoder_gradient: str | None = None,
    seed: int | None = None,
) -> Model:
    """Build a network by name: sew_resnet18/34/50, spiking_resnet18/34/50.

    The defaults are Luu et al. 2025's: IF neurons (leak 1, threshold 1, hard reset), atan(α=2), phase coding, 7x7 stem.
    `detach_reset=None` takes the authors' choice: detached in SEW-ResNet, attached in Spiking-ResNet.
    `spiking=False` puts ReLU in the place of every neuron: the same definition as an ANN, weights carry over by name.
    `seed` fixes the initial weights without touching the global generator. Raises `InputError` for unknown names.

    **Source:** Fang et al. 2021; Luu et al. 2025 (their code's model.py, sew_resnet.py).
    """
    config = dict(locals())
    if name not in MODEL_NAMES:
        raise InputError(f"model is {name!r}; expected one of {', '.join(MODEL_NAMES)}; choose one of these")
    for argument, value in (("num_classes", num_classes), ("time_steps", time_steps), ("width", width)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{argument} is {value!r}; expected a whole number of at least 1; e.g. {argument}=10")
    if connection not in CONNECTIONS:
        raise InputError(f"connection is {connection!r}; expected one of {', '.join(CONNECTIONS)}; use 'ADD'")
    pseudo_derivative = parse_surrogate(surrogate)
    family, depth = name.split("_resnet")
    if detach_reset is None:
        detach_reset = family == "sew"
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        body = ResNetBody(
            int(depth),
            num_classes,
            _neuron_factory(spiking, leak, threshold, pseudo_derivative, reset, detach_reset),
            block=family,
            connection=connection,
            pool=pool,
            stem=stem,
            width=width,
            in_channels=in_channels,
        )
    # Convolutions are faster on pixels whose channels lie together; neurons take either layout.
    body = body.to(memory_format=torch.channels_last)
    return Model(build_encoder(encoder, time_steps, gradient=encoder_gradient), body, config)


def parameter_count(model: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in model.parameters())
