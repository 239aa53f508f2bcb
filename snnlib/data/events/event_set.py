"""Labelled binned recordings in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnlib.data.image_set import ImageSet, Index, as_index
from snnlib.errors import InputError
from snnlib.runtime import sent


@dataclass(frozen=True, eq=False)
class EventSet(ImageSet):
    """Binned recordings uint8 [N, T, 2, H, W] with labels int64 [N]; otherwise an `ImageSet`.

    The layout is sample-first, as attacks and batches are; `model.encoder` turns it to [T, N, 2, H, W].
    """

    layout = "[N, T, 2, H, W]"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images.shape[2] != 2:
            raise InputError(f"events have shape {list(self.images.shape)}, expected {self.layout}: OFF and ON")

    def batch(self, index: Index, device: torch.device | str = "cpu") -> Tensor:
        """Events float32 [n, T, 2, H, W] on `device`: 0 and 1, or counts."""
        return sent(self.images[as_index(index)], device).to(torch.float32)

    @property
    def event_rate(self) -> float:
        """Share of the cells that hold an event."""
        return (self.images > 0).double().mean().item()
