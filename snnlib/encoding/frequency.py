"""A front end that filters: it makes no spikes, but frames of ever lower frequency."""

from __future__ import annotations

import torch
from torch import Tensor

from snnlib.encoding.encoder import Encoder, check_floats
from snnlib.errors import InputError


class FrequencyEncoder(Encoder):
    """Low-pass pictures, ever coarser: step t keeps the frequencies −k..k−1 on both axes, k = ½·H·(1 − t/T).

    Of the filtered picture the modulus is taken, as the window is not symmetric; values may exceed 1 a little. Frames
    are analog, as in direct coding. The gradient is exact; a high frequency of the image reaches the first steps alone.
    Errors: InputError for images that are not square.

    **Source:** Xu et al. 2024 (FEEL-SNN), authors' code, whose windows for T = 8 and 32 pixels are these; without its
    evolutionary leak factor. The rule for other T is ours.
    """

    gradients = ("exact",)

    def forward(self, images: Tensor) -> Tensor:
        check_floats(images)
        side = images.shape[-1]
        if images.shape[-2] != side:
            raise InputError(f"images are {images.shape[-2]}x{side}; expected squares for the frequency encoder")
        spectrum = torch.fft.fft2(images)
        return torch.stack([torch.fft.ifft2(spectrum * mask).abs() for mask in self._masks(side, images)])

    def _masks(self, side: int, images: Tensor) -> list[Tensor]:
        """`[H, W]` of 0 and 1 per step, over frequencies in the order of `fft2`."""
        frequency = torch.fft.ifftshift(torch.arange(side, device=images.device) - side // 2)
        halves = [max(1, round(side / 2 * (1 - step / self.time_steps))) for step in range(self.time_steps)]
        kept = [((frequency >= -half) & (frequency < half)).to(images.dtype) for half in halves]
        return [axis.unsqueeze(1) * axis for axis in kept]
