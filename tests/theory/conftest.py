"""Many small random networks in one module, so that a thousand of them are checked in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib.neurons import LIF, Surrogate, surrogates, use_kernel

CLASSES, PER_GROUP = 3, 32


class ManyNetworks(nn.Module):
    """N different networks of one shape: sample n of a batch [K·N, ...] is seen by network n alone."""

    def __init__(self, count: int, time_steps: int, surrogate: Surrogate, generator: torch.Generator) -> None:
        super().__init__()
        self.count, self.time_steps, self._generator = count, time_steps, generator
        options = {
            "leak": (0.5, 0.9, 1.0)[time_steps % 3],
            "surrogate": surrogate,
            "reset": ("hard", "soft")[time_steps % 2],
            "detach_reset": bool(time_steps % 2),
        }
        self.first, self.second = LIF(**options), LIF(**options)

    def drawn(self, *shape: int) -> nn.Parameter:
        fan_in = shape[-1] if len(shape) == 3 else shape[-1] * shape[-2] * shape[-3]
        scale = 1.5 / fan_in**0.5
        return nn.Parameter(scale * torch.randn(shape, generator=self._generator, dtype=torch.float64))


class ManyDense(ManyNetworks):
    """x [K·N, d] → hidden → hidden → classes, the input repeated over time."""

    def __init__(self, inputs: int, *arguments) -> None:
        super().__init__(*arguments)
        self.w1, self.w2 = self.drawn(self.count, 6, inputs), self.drawn(self.count, 5, 6)
        self.w3 = self.drawn(self.count, CLASSES, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.einsum("knd,nhd->knh", x.view(-1, self.count, x.shape[-1]), self.w1)
        s = self.first(x.expand(self.time_steps, *x.shape))
        s = self.second(torch.einsum("tknh,ngh->tkng", s, self.w2))
        return torch.einsum("tkng,ncg->knc", s, self.w3).flatten(0, 1) / self.time_steps


class ManyConvolutional(ManyNetworks):
    """x [K·N, 2, 4, 4] → 3x3 convolution → 2x2 average pool → classes."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.w1, self.w2 = self.drawn(self.count, 3, 2, 3, 3), self.drawn(self.count, CLASSES, 12)

    def forward(self, x: Tensor) -> Tensor:
        # Patches and one product: a grouped convolution in float64 takes ten times as long.
        patches = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).unflatten(0, (-1, self.count))
        x = torch.einsum("knchwuv,nocuv->knohw", patches, self.w1)
        s = self.first(x.expand(self.time_steps, *x.shape))
        s = F.avg_pool2d(s.flatten(0, 3), 2).view(self.time_steps, -1, self.count, 12)
        return torch.einsum("tkng,ncg->knc", s, self.w2).flatten(0, 1) / self.time_steps


def all_families() -> list[Surrogate]:
    return [make() for make in surrogates.FAMILIES.values()]


def thousand_networks() -> Iterator[tuple[ManyNetworks, Tensor, Tensor]]:
    """32 groups of 32 networks: every surrogate family, T = 1…8, dense and convolutional; with inputs and labels."""
    generator = torch.Generator().manual_seed(0)
    for number, surrogate in enumerate(all_families()):
        for step in range(4):
            time_steps = 1 + 2 * step + number % 2
            common = (PER_GROUP, time_steps, surrogate, generator)
            dense = (number // 2 + step) % 2 == 0
            inputs = 1 + (3 * number + time_steps) % 12
            model = ManyDense(inputs, *common) if dense else ManyConvolutional(*common)
            shape = (inputs,) if dense else (2, 4, 4)
            x = torch.rand(PER_GROUP, *shape, generator=generator, dtype=torch.float64)
            yield model, x, torch.randint(0, CLASSES, (PER_GROUP,), generator=generator)


@pytest.fixture(autouse=True)
def reference_kernel() -> Iterator[None]:
    """Nothing here is about compilation."""
    with use_kernel("reference"):
        yield


@pytest.fixture
def networks() -> SimpleNamespace:
    return SimpleNamespace(
        thousand=thousand_networks,
        Dense=ManyDense,
        Convolutional=ManyConvolutional,
        families=all_families,
        CLASSES=CLASSES,
        PER_GROUP=PER_GROUP,
    )
