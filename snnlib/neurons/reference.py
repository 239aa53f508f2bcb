"""The neuron, defined: a plain differentiable loop over time that every faster path is tested against."""

from __future__ import annotations

import torch
from torch import Tensor

from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate


def as_floats(currents: Tensor) -> Tensor:
    """`currents` themselves, or as float32 if they are integers or booleans: leak and threshold would be cut to those.

    Errors: InputError for complex numbers.
    """
    if currents.is_complex():
        raise InputError(f"currents are {currents.dtype}; expected real numbers; pass e.g. their absolute values")
    return currents if currents.is_floating_point() else currents.to(torch.float32)


def membrane_dtype(currents: Tensor) -> torch.dtype:
    """float32 for half-precision currents, else the dtype of the currents: a membrane in bfloat16 loses its leak."""
    return torch.float32 if currents.dtype in (torch.float16, torch.bfloat16) else currents.dtype


def lif_reference(
    currents: Tensor,
    v0: Tensor,
    leak: Tensor,
    threshold: Tensor,
    *,
    surrogate: Surrogate,
    reset: str,
    detach_reset: bool,
) -> tuple[Tensor, Tensor]:
    """LIF over `[T, ...]`: returns spikes `[T, ...]` and the membrane after the last reset `[...]`.

    Per step, with membrane v, input current x, leak λ and threshold θ::

        h[t] = λ v[t-1] + x[t]                  charge
        s[t] = 1 if h[t] - θ >= 0 else 0        fire
        v[t] = h[t] (1 - s[t])                  hard reset to 0
        v[t] = h[t] - θ s[t]                    soft reset

    `leak` and `threshold` are 0-dimensional tensors in the membrane's dtype; membrane in units of the threshold's.

    **Source:** Fang et al. 2021, eqs. 1-3, without input decay (λ = 1 gives the IF neuron of Luu et al. 2025).
    """
    v = v0
    spikes = []
    for x in currents.unbind(0):
        h = leak * v + x.to(v.dtype)
        s = surrogate.spike(h - threshold)
        s_reset = s.detach() if detach_reset else s
        v = h * (1 - s_reset) if reset == "hard" else h - threshold * s_reset
        spikes.append(s.to(currents.dtype))
    return torch.stack(spikes), v
