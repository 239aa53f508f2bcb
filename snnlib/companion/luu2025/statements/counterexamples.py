"""One executable case per statement that breaks an assumption: the check names it, and the conclusion fails."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.models.blocks import SEWBlock
from snnlib.neurons import IF, LIF, use_kernel
from snnlib.theory.checks import (
    CheckResult,
    check_circulation,
    check_constancy,
    check_density,
    check_ratio,
    check_remainder,
    found,
)
from snnlib.theory.functions import ClosedForm, TrueClassProbability
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
from snnlib.theory.vulnerability import adversarial_vulnerability


class TwoNeurons(nn.Module):
    """Two inputs, two IF neurons at T = 1, logits (v·s, 0): the smallest spiking classifier. x [N, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False, dtype=torch.float64)
        self.linear.weight.data = 2 * torch.eye(2, dtype=torch.float64)
        self.neuron = IF()
        self.readout = torch.tensor([2.0, 1.0], dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        score = self.neuron(self.linear(x)[None])[0] @ self.readout
        return torch.stack([score, torch.zeros_like(score)], 1)


class PreActivation(nn.Module):
    """A layer whose output meets a neuron *and* goes around it, as in a pre-activation block. x [N, 6]."""

    def __init__(self, threshold: float = 100.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Linear(6, 5, bias=False)
        self.neuron = LIF(leak=0.5, threshold=threshold)
        self.last = nn.Linear(5, 3, bias=False)
        for layer in (self.first, self.last):
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
        # Nothing listens to the neurons' first unit: no gradient there.
        self.heard = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        return self.last(z + self.heard * self.neuron(z[None])[0])


def clipped_noise() -> CheckResult:
    """A.1: a linear f at the corner of the pixel box, whose noise is clipped to it: the ratio leaves 3."""
    generator = torch.Generator().manual_seed(0)
    slope = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    noise = 2 * torch.rand(100_000, 3, generator=generator, dtype=torch.float64) - 1
    free, clipped = (float(slope.sum() / (moved @ slope).square().mean()) for moved in (noise, noise.clamp(min=0)))
    findings = (found("the noise is not clipped", False, "x lies at 0, the lower edge of the pixel box"),)
    evidence = f"ratio of a linear f with one input: {free:.2f} without clipping, {clipped:.2f} with it; 3 expected"
    return CheckResult("A.1", findings, abs(clipped - 3) < 0.1, evidence)


def one_sided() -> CheckResult:
    """A.2: where f is small, an attacker who only lowers it misses the supremum."""
    function = ClosedForm(lambda x: torch.sigmoid(8 * x.sum(1) - 4), torch.zeros(1, 2, dtype=torch.float64))
    both = adversarial_vulnerability(function, 0.2)
    lowered = float(function.change(function.x - 0.2).square())
    findings = (found("the attacker may raise f as well as lower it", False, "it only lowers f"),)
    evidence = f"worst squared change {lowered:.2g} by lowering f, {float(both.value):.2g} by either way"
    return CheckResult("A.2", findings, lowered >= float(both.value), evidence)


def saturated() -> CheckResult:
    """4.1: eps far beyond where f = σ(a·x₁) is linear: the ratio falls below 3."""
    function = ClosedForm(lambda x: torch.sigmoid(200 * x[:, 0]), torch.zeros(2, 4, dtype=torch.float64))
    return check_ratio(function, 0.5, draws=256)


def chosen_zeros() -> CheckResult:
    """4.2: only the large draws are kept, so the zeros know the gradient, and the SNR rises."""
    gradient = 0.3 + torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return check_thinning(gradient, gradient > 1)


def shortcut_behind_layer() -> CheckResult:
    """4.3: neurons get no gradient from their consumers, the layer gets one all the same, around them."""
    with use_kernel("reference"):
        images = torch.rand(4, 6, generator=torch.Generator().manual_seed(1))
        return check_density(PreActivation(), images, torch.arange(4) % 3, per="sample", bound="architecture_spikes")


def thinned_input() -> CheckResult:
    """4.4: zeros put into a given input gradient, whose norm shrinks with them: one bound linear, one quadratic."""
    curvature = torch.diag(torch.tensor([1.0, 0.5]))
    return check_progress(curvature, torch.ones(2), 0.1 * torch.eye(2), 0.5, keep_norm=False)


def average_pool() -> CheckResult:
    """P1: an average pool."""
    return check_pool(nn.AvgPool2d(3, 2, 1), 8, 8)


def gated_block() -> CheckResult:
    """P2: a SEW block that multiplies its shortcut instead of adding it."""
    with torch.random.fork_rng(devices=[]), use_kernel("reference"):
        torch.manual_seed(0)
        block = SEWBlock("basic", 3, 3, 1, IF, "AND").eval()
        return check_residual(block, torch.rand(2, 2, 3, 6, 6).round())


def overlapping_windows() -> CheckResult:
    """P3: the stem's pool, whose windows overlap: the average pool's gradients cancel, its ‖g‖₁ is smaller."""
    readout = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    return check_pool_pair(readout, 3, stride=2, padding=1)


def shortcut_around_neurons() -> CheckResult:
    """P4: logits last(z + IF(z)): the spikes stay, z does not."""
    with use_kernel("reference"):
        images = torch.rand(4, 6, generator=torch.Generator().manual_seed(1))
        return check_constancy(PreActivation(threshold=1.0), images, torch.arange(4) % 3, share=0.5)


def hard_step() -> CheckResult:
    """O1: the same network across a threshold: its surrogate gradient does not integrate to the jump."""
    with use_kernel("reference"):
        x = torch.tensor([[0.475, 0.35]], dtype=torch.float64)
        return check_remainder(TrueClassProbability(TwoNeurons(), x, torch.tensor([0])), 0.05)


def count_without_size() -> CheckResult:
    """O2: one non-zero with vulnerability 1/4 against 100 with 1e-6: the count alone orders nothing."""
    eps, measured = 0.1, []
    for count, vulnerability in ((1, 0.25), (100, 1e-6)):
        slope = vulnerability**0.5 / (count * eps)
        function = ClosedForm(
            lambda x, count=count, slope=slope: 0.5 + slope * x[:, :count].sum(1), torch.zeros(1, 100).double()
        )
        measured.append(float(adversarial_vulnerability(function, eps, steps=2).value))
    findings = (found("a norm of the gradient is held fixed", False, "only the count of non-zeros is compared"),)
    evidence = f"ρ_adv {measured[0]:.3g} at ‖g‖₀ = 1, {measured[1]:.3g} at ‖g‖₀ = 100"
    return CheckResult("O2", findings, measured[0] <= measured[1], evidence)


def coupled_samples() -> CheckResult:
    """O3: train-mode BatchNorm, a loss that reads the first of three samples only; the second has δ ≠ 0."""
    generator = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm1d(4).double().train()
    s = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    z = (s @ torch.randn(5, 4, generator=generator, dtype=torch.float64)).requires_grad_(True)
    loss = norm(z)[0].square().sum()
    (delta,) = torch.autograd.grad(loss, z)
    density = float((torch.outer(delta[1], s[1]) != 0).double().mean())
    findings = (found("samples are not coupled", False, "BatchNorm takes its statistics from the batch"),)
    evidence = f"density {density:.2f} for a sample whose neurons get no gradient, (1 − S)·r = 0"
    return CheckResult("O3", findings, density <= 0, evidence)


def noise_on_sphere() -> CheckResult:
    """O4: noise on the sphere; the ratio is d and not d + 2."""
    return check_l2_ratio(torch.tensor([1.0, 0.0, 0.0, 0.0]), in_ball=False)


def no_potential() -> CheckResult:
    """O5 is about this: the deployed two-neuron network's field circulates."""
    with use_kernel("reference"):
        x = torch.full((1, 2), 0.51, dtype=torch.float64)
        return check_circulation(TrueClassProbability(TwoNeurons(), x, torch.tensor([0])), 0.15, nodes=256, seed=5)


def gain_before_code() -> CheckResult:
    """O6: spikes fall three times as often as the pixels say."""
    x, others = torch.tensor([0.1, 0.2]), torch.tensor([[0.25, 0.2], [0.1, 0.3]])
    return check_poisson(lambda spikes: (spikes.sum((1, 2)) > 1).long(), x, others, 2, gain=3.0)


def bent_boundary() -> CheckResult:
    """C1: the class reaches farther beside x than in front of it: certified beyond the network's own boundary."""
    return check_gaussian(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.3, 0.0, 0.0]), 0.5, curved=0.5)
