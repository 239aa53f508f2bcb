"""One small case per statement that fits its assumptions: the check finds them, and the conclusion, to hold."""

from __future__ import annotations

import torch
from torch import nn

from snnlib.companion.luu2025.statements.counterexamples import TwoNeurons
from snnlib.models.blocks import SEWBlock
from snnlib.neurons import IF, use_kernel
from snnlib.theory.checks import (
    CheckResult,
    check_circulation,
    check_constancy,
    check_definitions,
    check_density,
    check_ratio,
    check_remainder,
)
from snnlib.theory.functions import TrueClassProbability
from snnlib.theory.lemmas import (
    check_gaussian,
    check_l2_ratio,
    check_poisson,
    check_pool,
    check_pool_pair,
    check_progress,
    check_residual,
    check_thinning,
)


def relaxed_neurons() -> TrueClassProbability:
    """The relaxation of the two-neuron network, at two inputs."""
    x = torch.tensor([[0.3, 0.6], [0.45, 0.2]], dtype=torch.float64)
    return TrueClassProbability(TwoNeurons(), x, torch.tensor([0, 1]), relax=True)


def definitions() -> CheckResult:
    """A.1, A.2."""
    with use_kernel("reference"):
        return check_definitions(relaxed_neurons(), 0.2)


def small_eps() -> CheckResult:
    """4.1."""
    with use_kernel("reference"):
        return check_ratio(relaxed_neurons(), 0.001)


def finite_eps() -> CheckResult:
    """O1 and O2."""
    with use_kernel("reference"):
        return check_remainder(relaxed_neurons(), 0.1)


def closed_field() -> CheckResult:
    """O5, of the relaxation: no circulation."""
    with use_kernel("reference"):
        return check_circulation(relaxed_neurons(), 0.15, nodes=64, seed=5)


def still_spikes() -> CheckResult:
    """P4."""
    with use_kernel("reference"):
        return check_constancy(TwoNeurons(), torch.tensor([[0.3, 0.6]], dtype=torch.float64), torch.tensor([0]))


def dense_layers(bound: str = "architecture_spikes") -> CheckResult:
    """4.3."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4, bias=False), OneStep(), nn.Linear(4, 3, bias=False))
    for layer in (model[0], model[2]):
        layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
    with use_kernel("reference"):
        return check_density(model, torch.rand(3, 6, generator=generator).round(), torch.arange(3), bound=bound)


def supports() -> CheckResult:
    """O3."""
    return dense_layers("union")


def independent_zeros(density: float = 0.3) -> CheckResult:
    """4.2: a gradient with mean and deviation 1, thinned to `density`."""
    generator = torch.Generator().manual_seed(0)
    gradient = 1 + torch.randn(100_000, generator=generator, dtype=torch.float64)
    return check_thinning(gradient, torch.rand(100_000, generator=generator) < density)


def smooth_risk(density: float = 0.3) -> CheckResult:
    """4.4: a risk with curvatures 1 and 0.5, thinned to `density`."""
    return check_progress(torch.diag(torch.tensor([1.0, 0.5])), torch.ones(2), 0.1 * torch.eye(2), density)


def max_pool() -> CheckResult:
    """P1: the stem's pool on an even map."""
    return check_pool(nn.MaxPool2d(3, 2, 1), 8, 8)


def added_shortcut() -> CheckResult:
    """P2."""
    with torch.random.fork_rng(devices=[]), use_kernel("reference"):
        torch.manual_seed(0)
        block = SEWBlock("basic", 3, 3, 1, IF).eval()
        return check_residual(block, torch.rand(2, 2, 3, 6, 6).round())


def separate_windows() -> CheckResult:
    """P3."""
    return check_pool_pair(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)), 2)


def sparse_in_l2() -> CheckResult:
    """O4: one non-zero of five, and still 7."""
    return check_l2_ratio(torch.tensor([2.0, 0.0, 0.0, 0.0, 0.0]))


def poisson_code() -> CheckResult:
    """O6: three pixels, two time steps, all 64 spike trains."""
    x = torch.tensor([0.9, 0.8, 0.9])
    others = (x + 0.2 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.1).clamp(0, 1)
    return check_poisson(lambda spikes: (spikes.sum((1, 2)) > 2).long(), x, others, 2)


def half_space() -> CheckResult:
    """C1."""
    return check_gaussian(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.3, 0.0, 0.0]), 0.5)


class OneStep(nn.Module):
    """IF neurons at T = 1 between layers that know no time."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = IF()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.neuron(x[None])[0]
