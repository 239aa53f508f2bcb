"""The small statements: right ones hold, wrong numbers are caught, undefined cases are refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from snnlib.errors import InputError
from snnlib.models.blocks import SEWBlock
from snnlib.neurons import IF
from snnlib.theory import (
    first_order_ratio,
    guaranteed_progress,
    lemmas,
    poisson_distance,
    poisson_l1_radius,
    ratio_bounds,
    remainder_factor,
    thinned_snr,
)
from snnlib.theory.bounds import certified_vulnerability
from snnlib.theory.lemmas import (
    FIXED_NORM,
    INDEPENDENT,
    SAME_DENSITY,
    SMOOTH,
    check_gaussian,
    check_l2_ratio,
    check_poisson,
    check_pool,
    check_pool_pair,
    check_progress,
    check_residual,
    check_thinning,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_ratio_and_its_bounds_by_hand():
    g = torch.tensor([[3.0, -4.0, 0.0], [2.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert first_order_ratio(g)[:3].tolist() == pytest.approx([3 * 49 / 25, 3, 9])
    low, high = ratio_bounds(g)
    assert low[:3].tolist() == [3, 3, 3] and high[:3].tolist() == [6, 3, 9]
    assert first_order_ratio(g, "l2")[:3].tolist() == [5, 5, 5]
    for values in (first_order_ratio(g), first_order_ratio(g, "l2"), low, high):
        assert values.isnan().tolist() == [False, False, False, True]


def test_remainder_widens_and_ends_in_infinity():
    low, high = remainder_factor(torch.tensor([0.0, 0.5, 2.0]), torch.tensor([0.0, 0.5, 1.0]))
    assert low.tolist() == pytest.approx([1, 1 / 9, 0]) and high.tolist() == pytest.approx([1, 9, math.inf])


def test_signal_to_noise_of_a_thinned_gradient():
    assert thinned_snr(0.5, 0.3, 1.0) == pytest.approx(0.0431, abs=1e-4)
    assert thinned_snr(0.25, 0.3, 1.0) == pytest.approx(0.0211, abs=1e-4)
    assert thinned_snr(1.0, 0.3, 0.0) == math.inf
    values = [thinned_snr(q / 10, 0.3, 1.0) for q in range(1, 11)]
    assert values == sorted(values) and all(v <= q / 10 * values[-1] for q, v in enumerate(values, 1))


def test_thinning_holds_for_independent_zeros():
    gradient = 0.3 + torch.randn(100_000, generator=generator(), dtype=torch.float64)
    mask = torch.rand(100_000, generator=generator(1)) < 0.25
    assert check_thinning(gradient, mask).holds is True
    # Zeros add variance of their own, (1 − q) μ²: with a large mean the SNR is far below q times the unthinned one.
    strong = check_thinning(gradient + 3, mask)
    measured = float(strong.evidence.split()[1])
    assert strong.holds is True and measured == pytest.approx(thinned_snr(0.25, 3.3, 1.0), rel=0.05)
    assert measured < 0.15 * 0.25 * 3.3**2


@pytest.mark.parametrize("tail", [1.0, 1.5])
def test_thinning_is_not_called_violated_by_chance_however_heavy_the_tail(tail):
    for seed in range(200):
        gradient = torch.exp(tail * torch.randn(20_000, generator=generator(seed), dtype=torch.float64))
        density = 0.05 + 0.9 * seed / 200
        assert check_thinning(gradient, torch.rand(20_000, generator=generator(seed + 1000)) < density).holds is True


def test_thinning_finds_zeros_that_know_the_gradient_and_a_formula_that_forgets_their_variance(monkeypatch):
    gradient = 1 + torch.randn(20_000, generator=generator(), dtype=torch.float64)
    chosen = torch.rand(20_000, generator=generator(1)) < torch.where(gradient > 1, 0.35, 0.25)
    assert check_thinning(gradient, chosen).failed == (INDEPENDENT,)
    independent = torch.rand(20_000, generator=generator(1)) < 0.3
    assert check_thinning(gradient, independent).holds is True
    monkeypatch.setattr(lemmas, "thinned_snr", lambda q, mean, deviation: q * mean**2 / deviation**2)
    assert check_thinning(gradient, independent).holds is False


def test_thinning_of_a_constant_gradient_is_all_noise_of_the_zeros():
    mask = torch.arange(1000) % 4 == 0
    assert check_thinning(torch.full((1000,), 0.1), mask).holds is True
    assert check_thinning(torch.full((1000,), 0.1), torch.ones(1000)).holds is True


def test_progress_is_guaranteed_on_random_risks_and_tight_for_round_ones():
    for seed in range(200):
        a = torch.randn(4, 4, generator=generator(seed), dtype=torch.float64)
        noise = torch.diag(torch.rand(4, generator=generator(seed), dtype=torch.float64))
        result = check_progress(a @ a.T + 0.1 * torch.eye(4), torch.randn(4, generator=generator(seed)), noise, 0.3)
        assert result.holds is True
    tight = check_progress(2 * torch.eye(2), torch.ones(2), torch.zeros(2, 2), 1.0)
    assert tight.table.decrease.item() == pytest.approx(tight.table.guaranteed.item())
    assert guaranteed_progress(0.5, 2.0, 4.0, 1.0) == pytest.approx(1.0)
    assert certified_vulnerability(0.5, 10, 2.0, 0.1) == pytest.approx(0.2)


def test_a_risk_steeper_than_the_step_assumes_rises():
    hessian, noise = torch.diag(torch.tensor([4.0, 1.0])), 0.01 * torch.eye(2)
    steep = check_progress(hessian, torch.ones(2), noise, 1.0, smoothness=1.0)
    assert steep.failed == (SMOOTH,) and steep.conclusion is False and "decrease -" in steep.evidence


def progress(density: float, **options):
    return check_progress(torch.diag(torch.tensor([1.0, 0.5])), torch.ones(2), 0.1 * torch.eye(2), density, **options)


@pytest.mark.parametrize("density", [0.013, 0.1, 0.25, 0.5, 0.77, 1.0])
def test_both_bounds_are_linear_in_the_density_at_a_fixed_norm(density):
    assert progress(density).holds is True
    assert progress(density, input_gradient=torch.linspace(1, 5, 37)).holds is True


@pytest.mark.parametrize("density", [0.1, 0.25, 0.5])
def test_zeros_put_into_a_given_input_gradient_make_its_bound_quadratic(density):
    result = progress(density, keep_norm=False)
    assert result.failed == (FIXED_NORM,) and result.conclusion is False
    assert result.table.vulnerable.item() == pytest.approx(density**2, rel=0.05)


def test_input_and_weights_of_different_density_do_not_share_a_factor():
    result = progress(0.5, input_density=0.1)
    assert result.failed == (SAME_DENSITY,) and result.conclusion is False


def test_the_linearity_check_can_fail(monkeypatch):
    monkeypatch.setattr(lemmas, "certified_vulnerability", lambda q, size, norm2, eps: size**2 * norm2**2)
    assert progress(0.5).holds is False


@pytest.mark.parametrize(
    "size, kernel, stride, padding, share", [(8, 3, 2, 1, 0.75), (8, 2, 2, 0, 0.75), (6, 3, 3, 0, 8 / 9)]
)
def test_max_pool_makes_the_zeros_it_must(size, kernel, stride, padding, share):
    result = check_pool(nn.MaxPool2d(kernel, stride, padding), size, size)
    assert result.holds is True and f"{share:.3f} promised" in result.evidence
    assert check_pool(nn.MaxPool2d(3, 1, 1), 8, 8).evidence.split(";")[0].endswith("at least 0.000 promised")


def test_an_average_pool_has_zeros_where_no_gradient_arrives_and_nowhere_else():
    pool = nn.AvgPool2d(3, 2, 1)
    assert check_pool(pool, 8, 8).evidence.startswith("0.000 zeros")
    silent = check_pool(pool, 8, 8, silent=0.7)
    zeros, empty = (part.split()[0] for part in silent.evidence.split("; "))
    assert zeros == empty and float(zeros) > 0.2
    # Stride 2 with a kernel of 1 leaves most positions in no window at all.
    assert check_pool(nn.AvgPool2d(1, 2), 8, 8).evidence.startswith("0.750 zeros")


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d((2, 3))])
@pytest.mark.parametrize("silent", [0.0, 0.5, 1.0])
def test_max_pool_sends_back_no_more_non_zeros_than_arrive(pool, silent):
    assert check_pool(pool, 7, 9, silent=silent).holds is True


def test_residual_identity_and_the_support_behind_a_silent_path():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = SEWBlock("basic", 3, 3, 1, IF).eval()
    x = torch.rand(2, 2, 3, 6, 6, generator=generator()).round()
    assert check_residual(block, x).holds is True
    nn.init.zeros_(block.bn2.weight)
    silent = check_residual(block, x)
    assert silent.holds is True and "silent, the support kept" in silent.evidence


def test_pools_are_equally_vulnerable_only_without_overlap():
    readout = torch.randn(4, 4, generator=generator())
    result = check_pool_pair(readout, 2)
    assert result.holds is True and result.evidence.count(f"‖g‖₁ = {float(readout.abs().sum()):.4g}") == 2
    assert check_pool_pair(readout, 3, stride=2, padding=1).conclusion is False


def test_in_l2_the_ratio_is_the_dimension_however_sparse_the_gradient():
    for g in (torch.tensor([1.0, 0, 0, 0, 0]), torch.ones(5), torch.tensor([3.0, -1, 0, 0, 0])):
        assert check_l2_ratio(g).holds is True
    assert check_l2_ratio(torch.ones(5), in_ball=False).conclusion is False


def test_poisson_certificate_holds_on_every_small_network():
    for seed in range(40):
        weights = torch.randn(2, 3, generator=generator(seed), dtype=torch.float64)
        x = 0.1 + 0.8 * torch.rand(3, generator=generator(seed))
        others = (x + 0.3 * (torch.rand(64, 3, generator=generator(seed)) - 0.5)).clamp(0, 1)
        result = check_poisson(lambda s, w=weights: ((s * w).sum((1, 2)) > 0).long(), x, others, 2)
        assert result.holds is True
    assert "0 of 64 images certified" not in result.evidence


def test_poisson_distance_by_hand_and_its_exact_small_case():
    x, other = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.6, 0.5]])
    coupling, overlap = poisson_distance(x, other, 2)[:, 0].tolist()
    assert coupling == pytest.approx(1 - 0.9**2)
    b = (math.sqrt(0.3) + math.sqrt(0.2)) ** 2
    assert overlap == pytest.approx(math.sqrt(1 - b**2))
    # One pixel, one step: the total variation is |x − x'|, and the coupling bound is exact.
    assert poisson_distance(torch.tensor([[0.2]]), torch.tensor([[0.7]]), 1)[0].item() == pytest.approx(0.5)
    assert poisson_distance(x, x, 3).abs().amax() < 1e-7
    assert poisson_distance(torch.tensor([[0.0]]), torch.tensor([[1.0]]), 1).tolist() == [[1.0], [1.0]]


def test_poisson_radius_by_hand():
    radius = poisson_l1_radius(torch.tensor([0.5, 0.4, 1.0, 0.9]), 1)
    assert radius.isnan().tolist() == [True, True, False, False]
    assert radius[2:].tolist() == pytest.approx([0.5, 0.4])
    assert poisson_l1_radius(torch.tensor([1.0]), 4).item() == pytest.approx(1 - 0.5**0.25)


def test_gaussian_radius_is_the_distance_to_a_half_space():
    assert check_gaussian(torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4]), 0.5).holds is True
    assert check_gaussian(torch.tensor([1.0, 0.0]), torch.tensor([0.3, 0.0]), 0.5, curved=0.5).conclusion is False


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: thinned_snr(0.0, 1.0, 1.0), "density is 0"),
        (lambda: thinned_snr(1.0, 0.0, 0.0), "0/0"),
        (lambda: guaranteed_progress(0.5, 1.0, 0.0, 1.0), "expected both above 0"),
        (lambda: first_order_ratio(torch.ones(1, 2), "l1"), "norm is 'l1'"),
        (lambda: check_thinning(torch.ones(5), torch.ones(5)), "at least 100"),
        (lambda: check_progress(torch.eye(2), torch.zeros(2), torch.eye(2), 0.5), "gradient at the point is zero"),
        (lambda: check_pool(nn.MaxPool2d(2, dilation=2), 8, 8), "without dilation"),
        (lambda: check_l2_ratio(torch.zeros(3)), "gradient is zero"),
        (lambda: check_poisson(lambda s: s[:, 0, 0].long(), torch.rand(5), torch.rand(1, 5), 4), "at most 2\\^16"),
        (lambda: check_gaussian(torch.ones(1), torch.tensor([-1.0]), 0.1), "smoothed probability"),
    ],
)
def test_what_is_undefined_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
