"""Random numbers that belong to a sample, not to its place in a batch; and those of a randomised model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from torch import Tensor, nn

from snnlib.encoding import PoissonEncoder


class KeyedNoise:
    """One CPU generator per sample, seeded by (seed, draw, bytes of the sample).

    The numbers a sample receives depend on nothing else: not on the batch size, the order, or the device.
    Only the seed of `generator` is used (0 without one); its state neither matters nor moves.
    """

    def __init__(self, samples: Tensor, generator: torch.Generator | None) -> None:
        self._seed = _seed_bytes(generator)
        rows = samples.detach().cpu().contiguous().numpy()
        self._keys = [blake2b(row.tobytes(), digest_size=16).digest() for row in rows]

    def generators(self, indices: Tensor, draw: int) -> list[torch.Generator]:
        """Fresh generators of the samples at `indices` for the draw number `draw`."""
        return [torch.Generator().manual_seed(self._seed_of(index, draw)) for index in indices.tolist()]

    def _seed_of(self, index: int, draw: int) -> int:
        return _hashed(self._seed + draw.to_bytes(8, "little") + self._keys[index])


@contextmanager
def controlled_draws(
    model: nn.Module, generator: torch.Generator | None, device: torch.device
) -> Iterator[Callable[[int], None]]:
    """Give a randomised model its random numbers by the seed of `generator`; yields `use(number of the pass)`.

    A `PoissonEncoder` without a seed of its own has one inside, which changes from pass to pass and is shared by the
    samples of a batch: what a sample sees depends on the seed and the pass, neither on batch size nor on order.
    Every other module that draws from PyTorch's global generators finds them seeded at the start and left as they were
    at the end: the same call gives the same bytes, but a sample's numbers then do depend on its place in the batch.
    """
    encoders = [part for part in model.modules() if isinstance(part, PoissonEncoder) and part.seed is None]
    seed = _seed_bytes(generator)

    def use(number: int) -> None:
        for place, encoder in enumerate(encoders):
            encoder.seed = _hashed(b"encoder" + seed + number.to_bytes(8, "little") + place.to_bytes(8, "little"))

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(_hashed(b"model" + seed))
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(_hashed(b"model" + seed))
        try:
            yield use
        finally:
            for encoder in encoders:
                encoder.seed = None


def _seed_bytes(generator: torch.Generator | None) -> bytes:
    return (0 if generator is None else generator.initial_seed()).to_bytes(8, "little")


def _hashed(message: bytes) -> int:
    return int.from_bytes(blake2b(message, digest_size=8).digest(), "little")
