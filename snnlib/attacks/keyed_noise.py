"""Random numbers that belong to a sample, not to its place in a batch."""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor


class KeyedNoise:
    """One CPU generator per sample, seeded by (seed, draw, bytes of the sample).

    The numbers a sample receives depend on nothing else: not on the batch size, the order, or the device.
    Only the seed of `generator` is used (0 without one); its state neither matters nor moves.
    """

    def __init__(self, samples: Tensor, generator: torch.Generator | None) -> None:
        self._seed = 0 if generator is None else generator.initial_seed()
        rows = samples.detach().cpu().contiguous().numpy()
        self._keys = [blake2b(row.tobytes(), digest_size=16).digest() for row in rows]

    def generators(self, indices: Tensor, draw: int) -> list[torch.Generator]:
        """Fresh generators of the samples at `indices` for the draw number `draw`."""
        return [torch.Generator().manual_seed(self._seed_of(index, draw)) for index in indices.tolist()]

    def _seed_of(self, index: int, draw: int) -> int:
        message = self._seed.to_bytes(8, "little") + draw.to_bytes(8, "little") + self._keys[index]
        return int.from_bytes(blake2b(message, digest_size=8).digest(), "little")
