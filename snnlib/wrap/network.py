"""What all wrappers share: the time loop around a network of others, the reset before each call, and the read-out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from snnlib import checks
from snnlib.encoding import Encoder
from snnlib.errors import InputError

Output = Tensor | tuple[Tensor, ...] | list
ReadOut = Callable[[Tensor, Tensor], Tensor]
READOUTS: dict[str, ReadOut] = {
    "count": lambda spikes, membrane: spikes.sum(0),
    "mean": lambda spikes, membrane: spikes.mean(0),
    "last_membrane": lambda spikes, membrane: membrane[-1],
    "max": lambda spikes, membrane: membrane.amax(0),
}


class Wrapped(nn.Module):
    """`wrapped(images) -> logits`: images `[N, C, H, W]` in [0, 1], or frames of events `[N, T, C, H, W]`; logits
    `[N, classes]`.

    net: the network of others, a submodule: its weights and neurons are found there. run: `run(net, frames)` with
    frames `[T, N, ...]`, or `run(net, images)` where time_steps is None and the network has its own time loop; gives
    `[T, N, classes]`, or a tuple whose first entry are the spikes and whose last one is the membrane.
    reset: called with the network before and after each call, so that no state outlives it.
    readout: a key of `READOUTS`, a function of spikes and membrane, both `[T, N, classes]`, or None: logits as they
    come, counts where they come over time.
    preprocessing: of the images, a module or function, through which gradients flow; with an encoder of snnlib in it,
    which gives a frame per step, otherwise every step gets the same.
    Errors: InputError for options that do not fit, here, and for outputs that do not, in the call.
    """

    def __init__(
        self,
        net: Callable[..., Output],
        *,
        run: Callable[[Callable, Tensor], Output],
        reset: Callable[[Callable], object] | None,
        time_steps: int | None,
        readout: str | ReadOut | None,
        preprocessing: Callable[[Tensor], Tensor] | None,
    ) -> None:
        super().__init__()
        for name, value in (("net", net), ("reset", reset), ("preprocessing", preprocessing)):
            if value is not None and not isinstance(value, Callable):
                raise InputError(f"{name} is {checks.shown(value)}; expected a module or a function")
        if not (readout is None or isinstance(readout, Callable)):
            checks.choice("readout", readout, READOUTS)
        self.net, self.preprocessing, self.readout = net, preprocessing, readout
        self.time_steps = None if time_steps is None else checks.whole("time_steps", time_steps)
        self._run, self._reset = run, reset
        self.original_name = type(net).__name__ if isinstance(net, nn.Module) else getattr(net, "__name__", "function")

    def forward(self, images: Tensor) -> Tensor:
        frames = images if self.preprocessing is None else self.preprocessing(images)
        if self.time_steps is not None:
            frames = self._over_time(frames, images)
        self._forget()
        try:
            output = self._run(self.net, frames)
        finally:
            self._forget()
        return read_out(output, len(images), self.readout)

    def _forget(self) -> None:
        if self._reset is not None:
            self._reset(self.net)

    def _over_time(self, x: Tensor, images: Tensor) -> Tensor:
        encoders = [part for part in _modules(self.preprocessing) if isinstance(part, Encoder)]
        if not encoders and images.dim() != 5:
            return x.expand(self.time_steps, *x.shape)
        frames = x if encoders else x.transpose(0, 1)
        if len(frames) != self.time_steps:
            raise InputError(
                f"time_steps is {self.time_steps}, and there are {len(frames)} frames per sample; expected as many; "
                f"wrap with time_steps={len(frames)}"
            )
        return frames

    def extra_repr(self) -> str:
        return f"time_steps={self.time_steps}, readout={self.readout!r}"


def _modules(preprocessing: Callable | None) -> Iterable[nn.Module]:
    return preprocessing.modules() if isinstance(preprocessing, nn.Module) else ()


def once(net: Callable[[Tensor], Output], x: Tensor) -> Output:
    """One call: the network has its own time loop, or takes all steps together."""
    return net(x)


def step_by_step(net: Callable[[Tensor], Output], frames: Tensor) -> Output:
    """One call per frame; frames [T, N, ...]."""
    return over_steps([net(frame) for frame in frames])


def over_steps(outputs: list[Output]) -> Output:
    """The outputs of T steps as one with a time axis in front."""
    if isinstance(outputs[0], tuple | list):
        return tuple(torch.stack(parts) for parts in zip(*outputs, strict=True) if isinstance(parts[0], Tensor))
    return torch.stack(outputs)


def read_out(output: Output, count: int, readout: str | ReadOut | None) -> Tensor:
    """Logits [count, classes] of what a network gave; see `Wrapped`. A list is one tensor per time step.

    Errors: InputError for outputs without the time axis in front that the read-out needs.
    """
    parts = [_with_time(part) for part in output] if isinstance(output, tuple) else [_with_time(output)]
    parts = [part for part in parts if isinstance(part, Tensor)]
    if not parts:
        raise InputError(f"the network returned {checks.shown(output)}; expected spikes, membranes or logits")
    if readout is None and parts[0].dim() == 2:
        return parts[0]
    spikes, membrane = parts[0], parts[-1]
    for part in (spikes, membrane):
        if part.dim() != 3 or part.shape[1] != count:
            raise InputError(
                f"the network returned {list(part.shape)}; expected [T, {count}, classes], time first: transpose it, "
                "leave readout out where it gives logits [N, classes], or pass time_steps where it does one step a call"
            )
    return (readout if isinstance(readout, Callable) else READOUTS[readout or "count"])(spikes, membrane)


def _with_time(part: object) -> object:
    is_steps = isinstance(part, list) and part and all(isinstance(step, Tensor) for step in part)
    return torch.stack(part) if is_steps else part


def check_framework(net: object, package: str, name: str) -> nn.Module:
    """`net`. Errors: InputError unless it is a module with a layer of this package in it."""
    if not isinstance(net, nn.Module):
        raise InputError(f"net is {checks.shown(net)}; expected a torch.nn.Module; wrap.callable takes functions")
    if not any(kind.__module__.split(".")[0] == package for part in net.modules() for kind in type(part).__mro__):
        raise InputError(f"{type(net).__name__} has no layer of {name}; expected some; wrap.callable takes any module")
    return net
