"""What the attacker may change: a ball around the original, inside the box [0, 1]; or some spikes of a code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from snnlib.errors import InputError
from snnlib.runtime import sent

NORMS = ("linf", "l2", "l0")
SPACES = ("image", "encoded")


@dataclass(frozen=True)
class Budget:
    """The attacker's budget: radius, norm, and the space in which the perturbation lives.

    eps: radius in pixel units, so 8/255 and not 8; at most 1 for "linf", any finite length for "l2"; for "l0" the
    number of entries that may change, a whole number.
    norm: "linf", "l2", or "l0" (encoded space only: entries of a 0/1 code that flip).
    space: "image" ([N, C, H, W]) or "encoded" ([T, N, C, H, W], every time step on its own).
    All tensors here are sample-first, `[N, ...]`; the box is [0, 1] in both spaces.
    Errors: InputError for an eps, norm or space that does not fit.
    """

    eps: float
    norm: str = "linf"
    space: str = "image"

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise InputError(f"norm is {self.norm!r}; expected one of {', '.join(NORMS)}")
        if self.space not in SPACES:
            raise InputError(f"space is {self.space!r}; expected one of {', '.join(SPACES)}")
        if isinstance(self.eps, bool) or not isinstance(self.eps, Real) or not math.isfinite(self.eps):
            raise InputError(f"eps is {self.eps!r}; expected a finite number such as 8/255")
        if self.eps < 0:
            raise InputError(f"eps is {self.eps}; expected a radius of 0 or more")
        if self.norm == "linf" and self.eps > 1:
            raise InputError(f"eps is {self.eps}; pixels run from 0 to 1: write 8/255, not 8")
        if self.norm == "l0" and (self.space != "encoded" or self.eps != int(self.eps)):
            raise InputError(
                f"norm is 'l0' with eps {self.eps} in space {self.space!r}; expected a whole number of flips, "
                "space='encoded'"
            )
        object.__setattr__(self, "eps", float(self.eps))

    def project(self, x: Tensor, origin: Tensor) -> Tensor:
        """Bring `x` into the ball around `origin` and into the box.

        For "l2" the perturbation is scaled to the ball and then clipped to the box: always inside both, but
        not always the nearest such point. For "l0" a point is left as it is: `inside` checks that it is a code.
        """
        if self.norm == "l0":
            return x
        if self.norm == "linf":
            return x.clamp(origin - self.eps, origin + self.eps).clamp(0, 1)
        perturbation = x - origin
        length = _per_sample(l2_distance(x, origin), x)
        scaled = origin + perturbation * (self.eps / length.clamp_min(torch.finfo(x.dtype).tiny))
        return torch.where(length > self.eps, scaled, x).clamp(0, 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction of length 1 that climbs fastest in this norm: sign(g) or g/‖g‖; zero stays zero.

        Errors: InputError for "l0", where there are no small steps.
        """
        if self.norm == "l0":
            raise InputError("norm is 'l0': spikes flip or stay, a gradient step needs 'linf' or 'l2'; use bit_flip")
        if self.norm == "linf":
            return gradient.sign()
        return unit_length(gradient)

    def random_start(self, origin: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """A point drawn uniformly from the ball around each sample, then clipped; for "l0", eps entries flipped.

        generators: one per sample, on the CPU (see `KeyedNoise`).
        """
        if self.norm == "l0":
            flipped = torch.stack([self._some_entries(origin.shape[1:], generator) for generator in generators])
            return torch.where(sent(flipped, origin.device), 1 - origin, origin)
        draw = self._uniform_linf if self.norm == "linf" else self._uniform_l2
        noise = torch.stack([draw(origin.shape[1:], origin.dtype, generator) for generator in generators])
        return self.project(origin + sent(noise, origin.device), origin)

    def inside(self, x: Tensor, origin: Tensor, tolerance: float = 1e-6) -> Tensor:
        """[N] bool: within the ball and the box, up to `tolerance` and the rounding of the pixels."""
        inside_box = ((x >= -tolerance) & (x <= 1 + tolerance)).flatten(1).all(1)
        if self.norm == "linf":
            return inside_box & (linf_distance(x, origin) <= self.eps + tolerance)
        if self.norm == "l0":
            changed = (x != origin).flatten(1)
            spikes = ((x == 0) | (x == 1)).flatten(1)
            return (changed.sum(1) <= self.eps) & (spikes | ~changed).all(1)
        rounding = torch.finfo(x.dtype).eps * math.sqrt(x[0].numel()) if len(x) else 0.0
        return inside_box & (l2_distance(x, origin) <= self.eps + tolerance * max(1.0, self.eps) + rounding)

    def _some_entries(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        chosen = torch.zeros(shape.numel(), dtype=torch.bool)
        chosen[torch.randperm(shape.numel(), generator=generator)[: int(self.eps)]] = True
        return chosen.view(shape)

    def _uniform_linf(self, shape: torch.Size, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
        return (2 * torch.rand(shape, dtype=dtype, generator=generator) - 1) * self.eps

    def _uniform_l2(self, shape: torch.Size, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
        direction = torch.randn(shape, dtype=dtype, generator=generator)
        share_of_radius = torch.rand((), dtype=dtype, generator=generator) ** (1 / direction.numel())
        return unit_length(direction.unsqueeze(0))[0] * share_of_radius * self.eps


def linf_distance(x: Tensor, origin: Tensor) -> Tensor:
    """[N] largest absolute difference of each sample."""
    return (x - origin).flatten(1).abs().amax(1)


def l2_distance(x: Tensor, origin: Tensor) -> Tensor:
    """[N] Euclidean length of each sample's difference."""
    return torch.linalg.vector_norm((x - origin).flatten(1), dim=1)


def unit_length(vectors: Tensor) -> Tensor:
    """Each sample of `[N, ...]` scaled to Euclidean length 1; zero stays zero.

    Divided by its largest entry first: the squares of a vanishing gradient (1e-25 in float32) would all be 0.
    """
    tiny = torch.finfo(vectors.dtype).tiny
    largest = _per_sample(vectors.flatten(1).abs().amax(1), vectors)
    scaled = vectors / largest.clamp_min(tiny)
    length = _per_sample(torch.linalg.vector_norm(scaled.flatten(1), dim=1), vectors)
    return scaled / length.clamp_min(tiny)


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
