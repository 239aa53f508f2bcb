"""How sparse is a gradient? Seven numbers per sample, from counting zeros to measures that ignore scale.

Every function takes `g` of shape [N, ...] (float32 or float64): axis 0 holds the samples and is kept, all
other axes together are one vector of d entries. The answer is float64 [N], on the device of `g`. A tensor
that holds NaN or infinity raises `InputError`: a count over NaN would pass for a dense gradient.

Exact zeros and small entries say how many directions an attacker cannot see at all; Hoyer and Gini say how
unevenly the rest is spread. Where a vector is entirely zero the shares, Hoyer and Gini are 1 (no entry
carries anything) and the norms are 0, so that a vanished gradient never yields NaN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from snnlib.errors import InputError

SMALL = 1e-12


def zero_share(g: Tensor) -> Tensor:
    """Share of entries that are exactly zero: 1 − ‖g‖₀ / d, in [0, 1]; 1 for the zero vector.

    **Source:** Luu et al. 2025, figures 3 and 5 (theirs is taken over a whole batch, ours per sample).
    """
    return _share(_vectors(g) == 0)


def small_share(g: Tensor, relative: float = SMALL) -> Tensor:
    """Share of entries with |gᵢ| < relative · max|g| of the same sample, in [0, 1); 1 for the zero vector.

    Counts exact zeros too (for relative > 0), and beside them the entries that only rounding keeps from zero.
    **Source:** ours; exact zeros alone depend on underflow.
    """
    if not (math.isfinite(relative) and relative > 0):
        raise InputError(f"relative is {relative!r}; expected a finite number above 0; use e.g. {SMALL:g}")
    largest, scaled = _scaled(g)
    return torch.where(largest == 0, 1.0, _share(scaled < relative))


def l0(g: Tensor) -> Tensor:
    """‖g‖₀ = number of entries that are not exactly zero, in 0..d; 0 for the zero vector.

    **Source:** the count in Theorem 4.1 of Luu et al. 2025 (Liu et al. 2024), there at the input.
    """
    return (_vectors(g) != 0).sum(1).double()


def l1(g: Tensor) -> Tensor:
    """‖g‖₁ = Σ|gᵢ|, in [0, ∞), units of the gradient; 0 for the zero vector.

    **Source:** first-order loss of an L∞ attacker of size 1, e.g. Goodfellow et al. 2015, section 3.
    """
    return _vectors(g).abs().sum(1, dtype=torch.float64)


def l2(g: Tensor) -> Tensor:
    """‖g‖₂ = √Σgᵢ², in [0, ∞), units of the gradient; 0 for the zero vector.

    Scaled by the largest entry before squaring, so that entries below 1e-154 do not vanish.
    **Source:** textbook; the norm drawn beside the sparsity in Luu et al. 2025, figures 3 and 5.
    """
    largest, scaled = _scaled(g)
    return largest * torch.linalg.vector_norm(scaled, dim=1, dtype=torch.float64)


def hoyer(g: Tensor) -> Tensor:
    """(√d − ‖g‖₁ / ‖g‖₂) / (√d − 1), in [0, 1]: 0 if all |gᵢ| are equal, 1 if one entry carries everything.

    1 for the zero vector (ours: the ratio is 0/0 there), 0 for a single non-zero entry (d = 1).
    **Source:** Hoyer 2004, "Non-negative matrix factorization with sparseness constraints", section 3.1.
    """
    largest, scaled = _scaled(g)
    d = scaled.shape[1]
    if d == 1:
        return (largest == 0).double()
    norm = torch.linalg.vector_norm(scaled, dim=1, dtype=torch.float64).clamp_min(1)
    share = (math.sqrt(d) - scaled.sum(1, dtype=torch.float64) / norm) / (math.sqrt(d) - 1)
    return torch.where(largest == 0, 1.0, share.clamp(0, 1))


def gini(g: Tensor) -> Tensor:
    """1 − 2 Σₖ (cₖ / ‖c‖₁) (d − k + ½) / d, where cₖ is the k-th smallest |gᵢ|.

    In [0, 1 − 1/d]: 0 if all |gᵢ| are equal, 1 − 1/d if one entry carries everything;
    1 for the zero vector (ours: the shares are 0/0 there). Needs a sort: O(d log d).
    **Source:** Hurley & Rickard 2009, "Comparing measures of sparsity", section III.
    """
    largest, scaled = _scaled(g)
    ordered = scaled.sort(1).values.double()
    d = ordered.shape[1]
    weights = (d - torch.arange(1, d + 1, dtype=torch.float64, device=g.device) + 0.5) / d
    share = 1 - 2 * (ordered * weights).sum(1) / ordered.sum(1).clamp_min(1)
    return torch.where(largest == 0, 1.0, share.clamp(0, 1))


MEASURES = {measure.__name__: measure for measure in (zero_share, small_share, l0, l1, l2, hoyer, gini)}


def _vectors(g: Tensor) -> Tensor:
    if g.dtype not in (torch.float32, torch.float64):
        raise InputError(f"gradient is {g.dtype}; expected float32 or float64; convert it with .float()")
    if g.dim() < 2 or g.numel() == 0:
        shape = list(g.shape)
        raise InputError(f"gradient has shape {shape}; expected [N, ...], not empty; add a sample axis")
    vectors = g.detach().reshape(g.shape[0], -1)
    finite = torch.isfinite(vectors)
    if not finite.all():
        bad = int((~finite).sum())
        raise InputError(f"gradient holds {bad} entries that are NaN or infinite; check weights and loss")
    return vectors


def _share(entries: Tensor) -> Tensor:
    return entries.sum(1).double() / entries.shape[1]


def _scaled(g: Tensor) -> tuple[Tensor, Tensor]:
    """Largest |gᵢ| of each sample [N] (float64), and |g| over it [N, d]: the largest entry is 1, or all are
    0.

    Neither squares nor tiny limits can then over- or underflow, also in float32.
    """
    size = _vectors(g).abs()
    largest = size.amax(1)
    return largest.double(), size / torch.where(largest == 0, 1, largest)[:, None]
