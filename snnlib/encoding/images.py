"""Encoders of images: direct, Poisson, phase and latency coding."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from snnlib import checks
from snnlib.encoding.encoder import Encoder, check_floats
from snnlib.runtime import sent

BITS = 8
BRIGHTEST_LEVEL = 2**BITS - 1


class DirectEncoder(Encoder):
    """The image at every time step, as a view with stride 0 on the time axis; the gradient is exact."""

    gradients = ("exact",)

    def forward(self, images: Tensor) -> Tensor:
        check_floats(images)
        return images.expand(self.time_steps, *images.shape)


class PoissonEncoder(Encoder):
    """At every time step an independent spike with probability x.

    Straight-through: ds/dx := 1, the derivative of the expected spike.
    seed: None draws from PyTorch's global generator of the images' device. A number draws the same thresholds
    at every call, on every device and for every sample of a batch, so that a sample's spikes do not depend on
    its batch.
    """

    def __init__(self, time_steps: int, gradient: str | None = None, seed: int | None = None) -> None:
        super().__init__(time_steps, gradient)
        self.seed = seed

    def encode(self, images: Tensor) -> Tensor:
        return (self._thresholds(images) < images).to(images.dtype)

    def straight_through_slope(self, images: Tensor) -> Tensor:
        return images.new_ones(())

    def _thresholds(self, images: Tensor) -> Tensor:
        if self.seed is None:
            return torch.rand((self.time_steps, *images.shape), dtype=images.dtype, device=images.device)
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.time_steps, 1, *images.shape[1:])
        return sent(torch.rand(shape, dtype=images.dtype, generator=generator), images.device)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.seed is None else f", seed={self.seed}")


class PhaseEncoder(Encoder):
    """Bit planes of a pixel's byte, most significant first: frame t is plane k = t mod `planes`, 0 or 1.

    The byte is the level ⌊255·x + ½⌋, so images that come from bytes are encoded without loss from T = 8 on.

    Straight-through: db_k/dx := 2^-(k+1), the weight of the bit.
    Smooth: b_k is read as the wave s_k = ½·(1 − sin(π·(255·x + ½)/w)), w = 2^(7−k) the bit's place value. As
    the level steps where 255·x + ½ is whole, s_k > ½ exactly where b_k = 1, for every real x, and ds_k/dx =
    −255·π/(2w)·cos(π·(255·x + ½)/w). On bytes the lowest plane stands on the crests of its wave: slope 0.

    **Source:** Kim et al. 2018 (weighted spikes); Luu et al. 2025 use it with 8 planes for T = 10. Both
    gradients are ours: in the authors' code none reaches the image.
    """

    gradients = ("straight_through", "smooth", "none")

    def __init__(self, time_steps: int, gradient: str | None = None, planes: int = BITS) -> None:
        super().__init__(time_steps, gradient)
        self.planes = checks.whole("planes", planes, at_most=BITS)

    def forward(self, images: Tensor) -> Tensor:
        distinct = super().forward(images)
        if self.time_steps <= self.planes:
            return distinct
        rounds, rest = divmod(self.time_steps, self.planes)
        # Joined, not indexed: the backward pass of an index with repeats adds in no fixed order on CUDA.
        return torch.cat([distinct] * rounds + [distinct[:rest]])

    def encode(self, images: Tensor) -> Tensor:
        """The distinct frames, `[min(T, planes), N, C, H, W]`."""
        level = (BRIGHTEST_LEVEL * images + 0.5).floor().clamp(0, BRIGHTEST_LEVEL).to(torch.uint8)
        return ((level & self._place_values(images)) != 0).to(images.dtype)

    def straight_through_slope(self, images: Tensor) -> Tensor:
        return self._place_values(images).to(images.dtype) / 2**BITS

    def smooth_slope(self, images: Tensor) -> Tensor:
        width = self._place_values(images).to(images.dtype)
        angle = math.pi * (BRIGHTEST_LEVEL * images + 0.5) / width
        return -BRIGHTEST_LEVEL * math.pi / (2 * width) * angle.cos()

    def _place_values(self, images: Tensor) -> Tensor:
        return _place_values(min(self.time_steps, self.planes), images)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, planes={self.planes}"


class LatencyEncoder(Encoder):
    """One spike per pixel, the brighter the earlier: at step f = round(τ) with τ = (T−1)·(1−x).

    Halves go to the even step.
    Straight-through: one latency step in x is 1/(T−1). The slope is the difference quotient between the spike
    trains one step brighter and one step darker, ds/dx := (T−1)·(e_a − e_b)/(b − a) with a = max(f−1, 0), b =
    min(f+1, T−1) and e_t a spike at t. It keeps the number of spikes (Σ_t ds_t/dx = 0) and moves the spike as
    if the rounding were not there (Σ_t t·ds_t/dx = −(T−1) = dτ/dx).
    Smooth: the spike is read as the bump s_t = 2^(−4(t−τ)²), above ½ exactly where |t − τ| < ½, so
    ds_t/dx = −8·ln 2·(T−1)·(t−τ)·s_t.

    **Source:** linear latency as in SpikingJelly's encoder of that name; both gradients are ours.
    """

    gradients = ("straight_through", "smooth", "none")

    def encode(self, images: Tensor) -> Tensor:
        return self._spike_at(self._firing_step(images), images)

    def straight_through_slope(self, images: Tensor) -> Tensor:
        firing_step = self._firing_step(images)
        earlier, later = (firing_step - 1).clamp_min(0), (firing_step + 1).clamp_max(self._last_step)
        moved = self._spike_at(earlier, images) - self._spike_at(later, images)
        return self._last_step * moved / (later - earlier).clamp_min(1)

    def smooth_slope(self, images: Tensor) -> Tensor:
        distance = self._steps(images) - self._latency(images)
        return -8 * math.log(2) * self._last_step * distance * torch.exp2(-4 * distance**2)

    @property
    def _last_step(self) -> int:
        return self.time_steps - 1

    def _latency(self, images: Tensor) -> Tensor:
        return self._last_step * (1 - images)

    def _firing_step(self, images: Tensor) -> Tensor:
        return self._latency(images).round().clamp(0, self._last_step)

    def _steps(self, images: Tensor) -> Tensor:
        steps = torch.arange(self.time_steps, dtype=images.dtype, device=images.device)
        return steps.view(-1, *[1] * images.dim())

    def _spike_at(self, step: Tensor, images: Tensor) -> Tensor:
        return (self._steps(images) == step).to(images.dtype)


def decode_phase(encoded: Tensor) -> Tensor:
    """Images `[N, C, H, W]` in [0, 1] from bit planes `[T, N, C, H, W]`, for display.

    Σ_{k<8} 2^-(k+1)·b_k·256/255, clipped. The exact inverse of `PhaseEncoder` for images that come from
    bytes; frames after the eighth are not used, missing ones count as 0, and planes that an attack made
    fractional count by their value.
    """
    planes = encoded[:BITS]
    level = (planes * _place_values(len(planes), planes[0]).to(planes.dtype)).sum(0)
    # A divisor in a tensor: CUDA turns division by a Python number into a product with its rounded inverse.
    return (level / torch.full_like(level, BRIGHTEST_LEVEL)).clamp(0, 1)


def _place_values(count: int, like: Tensor) -> Tensor:
    """128, 64, 32, ... for the first `count` bits of a byte, uint8 `[count, 1, ...]` to fit `like`."""
    exponents = torch.arange(BITS - 1, BITS - 1 - count, -1, device=like.device)
    return (1 << exponents).to(torch.uint8).view(-1, *[1] * like.dim())
