"""Networks of SpikingJelly."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.wrap.network import Output, ReadOut, Wrapped, check_framework, once, step_by_step


def spikingjelly(
    net: nn.Module,
    *,
    time_steps: int | None = None,
    reset: Callable[[nn.Module], object] | None = None,
    readout: str | ReadOut | None = None,
    preprocessing: Callable[[Tensor], Tensor] | None = None,
) -> Wrapped:
    """A SpikingJelly network as a module from images `[N, C, H, W]` to logits `[N, classes]`.

    time_steps: the network is called with one frame at a time in step mode "s", with all of them `[T, N, ...]` in "m".
    None: it repeats the image itself, and is called once.
    reset: of the state before each call; None calls `reset()` of every module that has one, as `functional.reset_net`.
    readout, preprocessing: as in `wrap.snntorch`; a network's output has the time axis in front, or none.
    Errors: InputError for a network without a layer of SpikingJelly, options that do not fit, and, in the call, for
    layers in both step modes.
    """
    return Wrapped(
        check_framework(net, "spikingjelly", "SpikingJelly"),
        run=once if time_steps is None else _by_step_mode,
        reset=_reset if reset is None else reset,
        time_steps=time_steps,
        readout=readout,
        preprocessing=preprocessing,
    )


def _by_step_mode(net: nn.Module, frames: Tensor) -> Output:
    modes = {module.step_mode for module in net.modules() if hasattr(module, "step_mode")}
    if len(modes) > 1:
        raise InputError(
            'some layers have step mode "s", others "m"; expected one for all: functional.set_step_mode(net, "m"), or '
            "time_steps=None for a network with its own loop"
        )
    return net(frames) if modes == {"m"} else step_by_step(net, frames)


def _reset(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(getattr(module, "reset", None), Callable):
            module.reset()
