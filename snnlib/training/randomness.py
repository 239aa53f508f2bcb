"""Randomness by place: what a step draws depends on where it stands, not on what ran before it.

A run that is resumed at epoch 7 therefore draws in epoch 7 exactly what an uninterrupted run draws there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_at(purpose: str, *place: int) -> int:
    """A seed in 0..2^63−1 from a purpose such as "order" and a place such as (seed, epoch, step)."""
    key = "/".join([purpose, *map(str, place)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) >> 1


def generator_at(purpose: str, *place: int) -> torch.Generator:
    """A CPU generator with the seed of that place."""
    return torch.Generator().manual_seed(seed_at(purpose, *place))


@contextmanager
def global_randomness_at(device: torch.device, purpose: str, *place: int) -> Iterator[None]:
    """Inside, PyTorch's global generators (Poisson encoders, dropout) stand at that place; restored after."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_at(purpose, *place))
        yield
