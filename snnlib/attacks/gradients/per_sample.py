"""One pass in which every sample is differentiated by a rule of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from snnlib.attacks.gradients.base import (
    MembraneRule,
    PulledBack,
    SpikeGradient,
    SpikeRule,
    distance_to_threshold,
    through_membrane,
)
from snnlib.errors import InputError
from snnlib.neurons import LIF
from snnlib.neurons.foreign import Slope


class _PerSampleRule(SpikeRule):
    """Forward and convolutions are shared by the batch; only the step through a neuron differs."""

    def __init__(self, gradients: Iterable[SpikeGradient]) -> None:
        self._rules = [gradient.new_rule() for gradient in gradients]
        self._rows: dict[int, Tensor] = {}

    def choose(self, choice: Tensor) -> None:
        every = torch.arange(len(self._rules), device=choice.device)
        sizes = (choice.unsqueeze(1) == every).sum(0).tolist()
        rows = choice.argsort(stable=True).split(sizes)
        self._rows = {number: own for number, own in enumerate(rows) if len(own)}

    def pull_back(self, layer: LIF, currents: Tensor, spikes: Tensor) -> PulledBack:
        u = distance_to_threshold(layer, currents, spikes)
        slope, apart = torch.zeros_like(u), []
        for rows, rule in self._groups():
            if isinstance(rule, MembraneRule):
                slope[:, rows] = rule.slope(layer, u[:, rows])
            else:
                apart.append((rows, rule.pull_back(layer, currents[:, rows], spikes[:, rows])))

        def pull_back(g_spikes: Tensor) -> Tensor:
            g_currents = through_membrane(layer, u, spikes, slope, g_spikes)
            for rows, own in apart:
                g_currents[:, rows] = own(g_spikes[:, rows])
            return g_currents

        return pull_back

    def foreign_slope(self, u: Tensor, slopes: list[Slope]) -> Tensor:
        """As `SpikeGradient.foreign_slope`, with `slopes[number]` for the samples that chose the gradient `number`."""
        if len(u) != sum(map(len, self._rows.values())):
            raise InputError(
                f"a neuron fires on {list(u.shape)}; expected one row per sample; use ensemble_attack, or "
                "surrogates one by one"
            )
        slope = torch.zeros_like(u)
        for number, rows in self._rows.items():
            slope[rows] = slopes[number](u[rows])
        return slope

    def _groups(self) -> Iterator[tuple[Tensor, SpikeRule]]:
        return ((rows, self._rules[number]) for number, rows in self._rows.items())


@dataclass(frozen=True)
class PerSample(SpikeGradient):
    """Differentiates sample i of the next pass by `gradients[choice[i]]`; for one attack at a time.

    gradients: with the network's own forward and without a state per sample. Its `name` cannot be read back.
    Errors: InputError for a gradient that cannot take part.
    """

    family: ClassVar[str] = "per_sample"
    gradients: tuple[SpikeGradient, ...]
    _rule: _PerSampleRule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        unfit = [gradient.name for gradient in self.gradients if not gradient.same_forward or gradient.stateful]
        if unfit or not self.gradients:
            raise InputError(f"gradients are {unfit}; expected at least one, none with a state or another forward")
        object.__setattr__(self, "_rule", _PerSampleRule(self.gradients))

    @property
    def name(self) -> str:
        return f"{self.family}({' | '.join(gradient.name for gradient in self.gradients)})"

    @property
    def foreign_slope(self) -> Slope | None:
        slopes = [gradient.foreign_slope for gradient in self.gradients]
        return None if None in slopes else lambda u: self._rule.foreign_slope(u, slopes)

    def choose(self, choice: Tensor) -> None:
        """choice: `[n]` int64, a position in `gradients` for each sample of the passes that follow."""
        self._rule.choose(choice)

    def new_rule(self) -> SpikeRule:
        return self._rule
