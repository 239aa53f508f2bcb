"""Encoders of event data: binned recordings as they are, and images turned into events."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from snnlib import checks
from snnlib.encoding.encoder import Encoder, above_zero, atan_slope, check_floats
from snnlib.errors import InputError

POLARITIES = 2
"""Channels of an event tensor: 0 = OFF (darker), 1 = ON (brighter)."""
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""Where the neighbour lies that each time step of `I2EEncoder` looks at, as (rows down, columns right)."""


class EventEncoder(Encoder):
    """Binned events `[N, T, 2, H, W]`, sample-first as data has them, to `[T, N, 2, H, W]`; the gradient is exact.

    Counts pass as they are. Errors: InputError for another layout, or another number of bins than `time_steps`.
    """

    gradients = ("exact",)

    def forward(self, images: Tensor) -> Tensor:
        check_floats(images)
        if images.dim() != 5 or images.shape[1:3] != (self.time_steps, POLARITIES):
            raise InputError(
                f"events have shape {list(images.shape)}; expected [N, {self.time_steps}, {POLARITIES}, H, W]: bin the "
                f"recordings with bins={self.time_steps}"
            )
        return images.transpose(0, 1)


class I2EEncoder(Encoder):
    """Images `[N, C, H, W]` in [0, 1] to events `[8, N, 2, H, W]`, 0 or 1: what eight one-pixel moves would show.

    V is the maximum over the channels. At step t a pixel compares itself with its neighbour in direction t of
    `DIRECTIONS`: D = V(neighbour) − V(pixel); ON where D > θ, OFF where D < −θ, θ = `threshold` · (max V − min V) of
    the image. At the border the image goes on with its last pixels, so that no edge appears there.

    The gradient crosses the step h of D ∓ θ; maxima, differences and θ are differentiated as they are.
    Straight-through: h is read as the ramp ½ + z/2w, clipped to 0..1: slope 1/2w where |z| < w, else 0.
    Smooth: h is read as ½ + atan(z/w)/π. w = `threshold`, in pixel units.

    **Source:** the image-to-event rule of I2E (UESTC-BICS 2025) by its description: their event rate is 5.86 % at
    128 × 128 pixels; smaller images have more edges per pixel, hence more events. The order of the directions, the
    border and both gradients are ours; their random equivalent shifts in training are left out.
    Errors: InputError for `time_steps` other than 8.
    """

    gradients = ("straight_through", "smooth", "none")

    def __init__(self, time_steps: int = 8, gradient: str | None = None, threshold: float = 0.12) -> None:
        super().__init__(time_steps, gradient)
        if time_steps != len(DIRECTIONS):
            raise InputError(f"time_steps is {time_steps}; I2E has one step per neighbour: set {len(DIRECTIONS)}")
        self.threshold = checks.number("threshold", threshold, above=0)

    def forward(self, images: Tensor) -> Tensor:
        check_floats(images)
        if images.dtype in (torch.float16, torch.bfloat16):
            return self.forward(images.to(torch.float32)).to(images.dtype)
        margins = self.margins(images.detach() if self.gradient == "none" else images)
        if self.gradient == "none":
            return (margins > 0).to(margins.dtype)
        return above_zero(margins, getattr(self, f"{self.gradient}_slope"))

    def margins(self, images: Tensor) -> Tensor:
        """By how much each possible event exceeds its threshold, `[8, N, 2, H, W]`."""
        brightest = images.amax(1, keepdim=True)
        theta = self.threshold * (brightest.amax((1, 2, 3), keepdim=True) - brightest.amin((1, 2, 3), keepdim=True))
        height, width = images.shape[-2:]
        padded = F.pad(brightest, (1, 1, 1, 1), mode="replicate")
        neighbours = [padded[..., 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in DIRECTIONS]
        difference = torch.stack(neighbours) - brightest
        return torch.cat([-difference, difference], dim=2) - theta

    def straight_through_slope(self, margins: Tensor) -> Tensor:
        return (margins.abs() < self.threshold).to(margins.dtype) / (2 * self.threshold)

    def smooth_slope(self, margins: Tensor) -> Tensor:
        return atan_slope(margins, self.threshold)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, threshold={self.threshold:g}"
