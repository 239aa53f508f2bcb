"""What an attack asks of the model before its first step; each refusal is one line.

A spike hides much: NaN in a weight is a neuron that never fires, and a membrane that nobody resets is another network
at every call. Both give finite logits and an attack that reports robustness.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from snnlib.errors import InputError

PROBED = 4
"""Images that a model passes twice to show that it remembers nothing."""
SAME_LOGITS = 1e-4
"""Two passes are the same up to this share of the largest logit: rounding on a GPU is far below it."""
RESET = (
    "reset it at the start of forward: snntorch.utils.reset(self), or "
    "spikingjelly.activation_based.functional.reset_net(self)"
)
NOT_REPEATABLE = (
    "the model answers the same images differently the second time{changed}: a state is left from one call to the "
    f"next; {RESET}; a model that is random on purpose keeps its generator as an attribute, or is attacked with eot=8"
)
_CHECKED: WeakSet[nn.Module] = WeakSet()
"""Models that somebody has checked who attacks them many times."""


def check_model(model: nn.Module) -> None:
    """Errors: InputError for a parameter or buffer with NaN or infinity, or that the first call has yet to make, a
    negative running variance (all named), and for BatchNorm without running statistics, whose answer to one image
    depends on the others in the batch.

    A buffer of 0 and −inf alone is a mask, and allowed.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.running_mean is None or module.running_var is None):
            raise InputError(
                f"{name or 'the model'} is a {type(module).__name__} without running statistics: an image's logits "
                "depend on the others in its batch; build it with track_running_stats=True"
            )
    parameters = dict(model.named_parameters())
    for name, value in (*parameters.items(), *model.named_buffers()):
        if is_lazy(value):
            raise InputError(f"{name} is made by the model's first call; pass a batch through the model before")
    tensors = {name: value for name, value in (*parameters.items(), *model.named_buffers()) if _has_numbers(value)}
    sound = [_is_sound(name, value).to(next(iter(tensors.values())).device) for name, value in tensors.items()]
    if not sound or torch.stack(sound).all():
        return
    for name, value in tensors.items():
        if _is_sound(name, value) or (name not in parameters and _is_mask(value)):
            continue
        broken = int((~value.isfinite()).sum())
        if broken:
            raise InputError(
                f"{name} holds NaN or infinity in {broken} of {value.numel()} entries, which spikes can hide from the "
                "logits; expected finite numbers; load or train the model again"
            )
        raise InputError(f"{name} holds {value.min():.4g}; a variance is 0 or more; load the model's weights again")


def _has_numbers(value: Tensor) -> bool:
    return value.layout == torch.strided and (value.is_floating_point() or value.is_complex())


def _is_sound(name: str, value: Tensor) -> Tensor:
    finite = value.isfinite().all()
    return finite & (value >= 0).all() if name.endswith("running_var") else finite


def _is_mask(value: Tensor) -> bool:
    return bool(((value == 0) | value.isneginf()).all())


def is_stateless(model: nn.Module) -> bool:
    """Whether every module is PyTorch's or ours, none of which remembers a call, or `checked_once` has looked."""
    return model in _CHECKED or all(
        type(module).__module__.startswith(("torch.nn.", "snnlib.")) for module in model.modules()
    )


@contextmanager
def checked_once(model: nn.Module, x: Tensor) -> Iterator[None]:
    """`check_repeatable` for a model that may be random by a source that cannot be seen, as long as nothing that its
    modules keep changes; attacks inside do not look again. x: images."""
    changed = None if is_stateless(model) else _changed_between_calls(model, model, x)
    if changed:
        raise InputError(NOT_REPEATABLE.format(changed=changed))
    known = model in _CHECKED
    _CHECKED.add(model)
    try:
        yield
    finally:
        if not known:
            _CHECKED.discard(model)


def is_repeatable(model: nn.Module, x: Tensor) -> bool:
    """Whether equal random numbers give equal logits of the first images of `x`: all randomness has a known source."""
    return _changed_between_calls(model, model, x) is None


def check_repeatable(model: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor, randomised: bool) -> None:
    """Pass the first images of the batch `x` twice, with equal random numbers: the logits must be the same.

    forward: from points as `x` to logits. randomised: the caller averages over draws (`eot`), so other logits are fine.
    Errors: InputError with the remedy for snnTorch and SpikingJelly.
    """
    changed = _changed_between_calls(model, forward, x)
    if changed is not None and not randomised:
        raise InputError(NOT_REPEATABLE.format(changed=changed))


def _changed_between_calls(model: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> str | None:
    """What two passes with equal random numbers say: None for equal logits, else what has changed meanwhile, if any."""
    few = x[:PROBED]
    with torch.no_grad(), equal_draws(few.device, model) as rewind, explained(model, few):
        first = forward(few)
        kept = {name: value.clone() for name, value in _kept_tensors(model)}
        rewind()
        second = forward(few)
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)) or same_logits(first, second):
        return None
    changed = [name for name, value in _kept_tensors(model) if name in kept and not same_values(value, kept[name])]
    return f", and {changed[0]} has changed" if changed else ""


@contextmanager
def explained(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Inside, a first pass of the batch `x`: where the model breaks by a known cause, say it in one line.

    Errors: InputError for images of a dtype that the model does not hold, and for a state of another batch; any other
    error as it is.
    """
    try:
        yield
    except RuntimeError as error:
        own = {value.dtype for value in model.parameters() if value.is_floating_point()}
        if own and x.dtype not in own:
            names = ", ".join(sorted(str(dtype) for dtype in own))
            raise InputError(
                f"images are {x.dtype} and the model, of {names}, cannot take them; convert the images, or the model "
                f"by model.to({x.dtype})"
            ) from error
        left = [name for name, value in _kept_tensors(model) if value.dim() > 1 and len(value) != len(x)]
        if left and any(name.rpartition(".")[2] in ("v", "mem", "syn") for name in left):
            raise InputError(f"{left[0]} is left from another batch, and the model stopped at it; {RESET}") from error
        raise


def same_values(one: Tensor, two: Tensor) -> bool:
    """Equal in shape and entries, NaN being equal to NaN."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    return torch.equal(one, two) or bool(((one == two) | (one.isnan() & two.isnan())).all())


def same_logits(one: Tensor, two: Tensor) -> bool:
    """Equal up to `SAME_LOGITS` of the largest."""
    if one.shape != two.shape:
        return False
    gap, scale = (one - two).abs(), one.abs().amax() if one.numel() else 0
    return bool((gap <= SAME_LOGITS * scale).all()) or same_values(one, two)


def _kept_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that modules keep beside their parameters: buffers, and plain attributes down to one container."""
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            if key not in ("_parameters", "_modules"):
                yield from _named_tensors(f"{path}.{key}" if path else key, value)


def _named_tensors(name: str, value: object) -> Iterable[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value.detach()
    elif isinstance(value, dict):
        own = name.rpartition(".")[0] if name.endswith(("_buffers", "_memories")) else name
        inside = ((f"{own}.{key}".lstrip("."), each) for key, each in value.items())
        yield from ((key, each.detach()) for key, each in inside if isinstance(each, Tensor))
    elif isinstance(value, list | tuple):
        yield from ((f"{name}[{place}]", each.detach()) for place, each in enumerate(value) if isinstance(each, Tensor))


def _ways_back(generator: object) -> list[Callable[[], None]]:
    """How to take a generator back to where it is now; none for anything else."""
    if isinstance(generator, torch.Generator):
        return [partial(generator.set_state, generator.get_state())]
    if isinstance(generator, np.random.Generator):
        return [partial(setattr, generator.bit_generator, "state", generator.bit_generator.state)]
    if isinstance(generator, np.random.RandomState):
        return [partial(generator.set_state, generator.get_state())]
    if isinstance(generator, random.Random):
        return [partial(generator.setstate, generator.getstate())]
    return []


@contextmanager
def equal_draws(device: torch.device, model: nn.Module) -> Iterator[Callable[[], None]]:
    """Yields a function that takes PyTorch's, NumPy's and Python's generators, and those that the model's modules keep,
    back to where they are now; on leaving they are there too."""
    ways = [
        partial(torch.set_rng_state, torch.get_rng_state()),
        partial(np.random.set_state, np.random.get_state()),
        partial(random.setstate, random.getstate()),
        *(way for module in model.modules() for value in vars(module).values() for way in _ways_back(value)),
    ]
    if device.type == "cuda":
        ways.append(partial(torch.cuda.set_rng_state, torch.cuda.get_rng_state(device), device))

    def rewind() -> None:
        for way in ways:
            way()

    try:
        yield rewind
    finally:
        rewind()
