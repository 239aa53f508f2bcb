"""Networks of Norse."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from snnlib.wrap.network import Output, ReadOut, Wrapped, check_framework, once, over_steps

OVER_TIME = ("SNN", "SNNRecurrent", "Lift")
"""Classes of Norse whose modules take all time steps together."""


def norse(
    net: nn.Module,
    *,
    time_steps: int | None = None,
    reset: Callable[[nn.Module], object] | None = None,
    readout: str | ReadOut | None = None,
    preprocessing: Callable[[Tensor], Tensor] | None = None,
) -> Wrapped:
    """A Norse network as a module from images `[N, C, H, W]` to logits `[N, classes]`.

    time_steps: a network of cells, such as `SequentialState(..., LIFCell())`, is called once per step as `net(frame,
    state)`, the first time with state None; one of `LIF`, `Lift` or the like with all frames `[T, N, ...]` at once.
    None: the network has its own loop. reset: rarely needed, because Norse hands its state around.
    readout, preprocessing: as in `wrap.snntorch`; the membrane is `v` of the last state that has one.
    Errors: InputError for a network without a layer of Norse, and options that do not fit.
    """
    return Wrapped(
        check_framework(net, "norse", "Norse"),
        run=_own_loop if time_steps is None else _over_time if _takes_sequences(net) else _cell_by_cell,
        reset=reset,
        time_steps=time_steps,
        readout=readout,
        preprocessing=preprocessing,
    )


def _takes_sequences(net: nn.Module) -> bool:
    return any(
        kind.__name__ in OVER_TIME and kind.__module__.startswith("norse.")
        for module in net.modules()
        for kind in type(module).__mro__
    )


def _own_loop(net: nn.Module, images: Tensor) -> Output:
    output = once(net, images)
    return output if isinstance(output, Tensor) else (output[0], *_membranes(output[1:]))


def _over_time(net: nn.Module, frames: Tensor) -> Output:
    output = net(frames)
    return output[0] if isinstance(output, tuple) else output


def _cell_by_cell(net: nn.Module, frames: Tensor) -> Output:
    outputs, state = [], None
    for frame in frames:
        spikes, state = net(frame, state)
        outputs.append((spikes, *_membranes(state)))
    return over_steps(outputs)


def _membranes(state: object) -> list[Tensor]:
    """The membrane `v` of the last state, in a list; empty where there is none."""
    if isinstance(state, Tensor):
        return [state]
    if hasattr(state, "v"):
        return [state.v]
    inner = [found for part in state for found in _membranes(part)] if isinstance(state, tuple | list) else []
    return inner[-1:]
