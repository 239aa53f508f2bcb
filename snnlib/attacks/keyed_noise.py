"""Random numbers that belong to a sample, not to its place in a batch; and those of a randomised model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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

    def generators(self, indices: Iterable[int], draw: int) -> list[torch.Generator]:
        """Fresh generators of the samples at `indices` for the draw number `draw`."""
        return [torch.Generator().manual_seed(self._seed_of(index, draw)) for index in indices]

    def _seed_of(self, index: int, draw: int) -> int:
        return _hashed(self._seed + draw.to_bytes(8, "little") + self._keys[index])


@contextmanager
def controlled_draws(
    model: nn.Module, generator: torch.Generator | None, device: torch.device
) -> Iterator[Callable[[Tensor], None]]:
    """Give a randomised model its random numbers by the seed of `generator`; yields `use(numbers)`.

    numbers: [n] int64, how many passes each sample of the coming pass has taken part in, with it.
    A `PoissonEncoder` without a seed of its own has one inside, which changes from pass to pass and is shared by the
    samples that are at the same pass: what a sample sees depends on the seed and on its own passes, neither on batch
    size nor on order.
    Every other module that draws from PyTorch's global generators finds them seeded at the start and left as they were
    at the end: the same call gives the same bytes, but a sample's numbers then do depend on its place in the batch.
    """
    encoders = [part for part in model.modules() if isinstance(part, PoissonEncoder) and part.seed is None]
    seed = _seed_bytes(generator)

    def use(numbers: Tensor) -> None:
        if not encoders or len(numbers) == 0:
            return
        numbers = numbers.tolist()
        for place, encoder in enumerate(encoders):
            vars(encoder).pop("encode", None)
            seeds = [_hashed(b"encoder" + seed + _eight_bytes(number) + _eight_bytes(place)) for number in numbers]
            encoder.seed = seeds[0]
            if len(set(seeds)) > 1:
                encoder.encode = _one_by_one(encoder, seeds)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(_hashed(b"model" + seed))
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(_hashed(b"model" + seed))
        try:
            yield use
        finally:
            for encoder in encoders:
                vars(encoder).pop("encode", None)
                encoder.seed = None


def _one_by_one(encoder: PoissonEncoder, seeds: list[int]) -> Callable[[Tensor], Tensor]:
    """`encoder.encode` with a seed for each sample; those of equal seeds are encoded together."""
    together = {seed: [place for place, other in enumerate(seeds) if other == seed] for seed in set(seeds)}

    def encode(images: Tensor) -> Tensor:
        encoded = images.new_empty(encoder.time_steps, *images.shape)
        for encoder.seed, places in together.items():
            encoded[:, places] = type(encoder).encode(encoder, images[places])
        return encoded

    return encode


def _seed_bytes(generator: torch.Generator | None) -> bytes:
    return _eight_bytes(0 if generator is None else generator.initial_seed())


def _eight_bytes(number: int) -> bytes:
    return number.to_bytes(8, "little")


def _hashed(message: bytes) -> int:
    return int.from_bytes(blake2b(message, digest_size=8).digest(), "little")
