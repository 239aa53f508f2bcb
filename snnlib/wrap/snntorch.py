"""Networks of snnTorch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from snnlib.wrap.network import ReadOut, Wrapped, check_framework, once, step_by_step


def snntorch(
    net: nn.Module,
    *,
    time_steps: int | None = None,
    reset: Callable[[nn.Module], object] | None = None,
    readout: str | ReadOut | None = None,
    preprocessing: Callable[[Tensor], Tensor] | None = None,
) -> Wrapped:
    """An snnTorch network as a module from images `[N, C, H, W]` to logits `[N, classes]`, for attacks and the audit.

    time_steps: of a network that does one step per call, such as `nn.Sequential(..., snn.Leaky(..., init_hidden=True,
    output=True))`. None: it has its own loop, and is called once.
    reset: of the state before each call; None resets every snnTorch neuron, however deep, where `snntorch.utils.reset`
    sees the outermost layers alone, and the neurons of every other network too.
    readout: "count" or "mean" of the spikes, "last_membrane", "max" of the membrane over time, or a function of both
    `[T, N, classes]`; None: logits as they come, counts where they come over time. A network may return spikes or
    `(spikes, ..., membrane)`.
    preprocessing: of the images, in the graph, such as a normalisation or an encoder of snnlib.
    Errors: InputError for a network without a layer of snnTorch, and options that do not fit.
    """
    return Wrapped(
        check_framework(net, "snntorch", "snnTorch"),
        run=once if time_steps is None else step_by_step,
        reset=_reset if reset is None else reset,
        time_steps=time_steps,
        readout=readout,
        preprocessing=preprocessing,
    )


def _reset(net: nn.Module) -> None:
    for module in net.modules():
        if hasattr(module, "reset_mem"):
            module.reset_mem()
