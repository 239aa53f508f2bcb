"""Any function or module that answers images, of whatever framework."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from snnlib.wrap.network import Output, ReadOut, Wrapped, once, step_by_step


def callable(
    net: Callable[[Tensor], Output],
    *,
    time_steps: int | None = None,
    reset: Callable[[Callable], object] | None = None,
    readout: str | ReadOut | None = None,
    preprocessing: Callable[[Tensor], Tensor] | None = None,
) -> Wrapped:
    """A function or module as a module from images `[N, C, H, W]` to logits `[N, classes]`.

    net: `net(images)` gives logits, `[T, N, classes]`, or a tuple with the spikes first and the membrane last; with
    time_steps it is called once per step. Hand over a module rather than a function around it: its weights and its
    neurons, whose surrogates attacks exchange, are found inside a module alone.
    reset: called with `net` before and after each call. readout, preprocessing: as in `wrap.snntorch`.
    Errors: InputError for options that do not fit, and, in the call, for outputs that do not.

    >>> import torch
    >>> spikes = lambda images: (images.flatten(1)[:, :3] > torch.tensor([[[0.2]], [[0.6]]])).float()
    >>> callable(spikes, readout="count")(torch.tensor([[[[0.1, 0.5, 0.9]]]]))
    tensor([[0., 1., 2.]])
    """
    return Wrapped(
        net,
        run=once if time_steps is None else step_by_step,
        reset=reset,
        time_steps=time_steps,
        readout=readout,
        preprocessing=preprocessing,
    )
