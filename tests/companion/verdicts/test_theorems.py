"""Verdict rules on made-up numbers: each can come out either way, and says its numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from snnlib.companion.verdicts import theorems as verdicts
from snnlib.errors import InputError
from snnlib.theory.measured import ABOVE, BELOW, HOLDS, OPEN, UNDEFINED_CONSTANT


def ratio_rows(relaxed, deployed, seeds=(0, 1), missed=0.0, samples=100):
    """Verdicts of the samples of each seed: the relaxation at two eps, the deployed network at a tiny and at 6/255."""
    rows = []
    for number, seed in enumerate(seeds):
        cases = [("relaxation", 0.25, relaxed[number], 0.01), ("relaxation", 4.0, HOLDS, 0.5)]
        cases += [("deployed", 1e-4, UNDEFINED_CONSTANT, 1.0), ("deployed", 6.0, deployed[number], 0.9)]
        for kind, eps, verdict, error in cases:
            numbers = {"ratio": 9.0, "first_order": 10.0, "upper": 30.0, "linear_error": error}
            numbers["integral_error"] = missed if kind == "deployed" else 0.0
            rows.append({"model": "a", "seed": seed, "network_is": kind, "eps255": eps, "verdict": verdict, **numbers})
    return pd.DataFrame(rows * samples)


@pytest.mark.parametrize(
    "relaxed, deployed, verdict",
    [
        ((HOLDS, OPEN), (HOLDS, HOLDS), "reproduced"),
        ((HOLDS, HOLDS), (BELOW, BELOW), "mixed"),
        ((HOLDS, HOLDS), (HOLDS, UNDEFINED_CONSTANT), "mixed"),
        ((ABOVE, BELOW), (HOLDS, HOLDS), "mixed"),
        ((ABOVE, BELOW), (BELOW, BELOW), "not reproduced"),
        ((HOLDS, ABOVE), (HOLDS, HOLDS), "mixed"),
        ((HOLDS, ABOVE), (BELOW, HOLDS), "mixed"),
    ],
)
def test_ratio_is_judged_on_the_relaxation_and_on_the_deployed_network(relaxed, deployed, verdict):
    judgement = verdicts.judge_ratio(ratio_rows(relaxed, deployed))
    assert judgement.verdict == verdict
    assert "linear up to 0.25-0.25/255" in judgement.evidence and "0/0 for 100 % at 0.0001/255" in judgement.evidence
    assert "upper bound over first order 3.0" in judgement.evidence


def test_a_few_samples_cannot_show_that_a_bound_holds():
    judgement = verdicts.judge_ratio(ratio_rows((HOLDS, HOLDS), (HOLDS, HOLDS), samples=6))
    assert judgement.verdict == "inconclusive at this size" and judgement.samples == 6
    assert (judgement.estimate, judgement.low) == (0, 0) and judgement.high > 5


def test_ratio_within_bounds_counts_only_where_the_gradient_is_a_derivative():
    judgement = verdicts.judge_ratio(ratio_rows((HOLDS, HOLDS), (HOLDS, HOLDS), missed=0.6))
    assert judgement.verdict == "mixed" and "deployed: derivative for 0 %, refuted for 0 %" in judgement.evidence


def test_ratio_needs_both_kinds():
    rows = ratio_rows((HOLDS, HOLDS), (HOLDS, HOLDS))
    with pytest.raises(InputError, match="expected both"):
        verdicts.judge_ratio(rows[rows.network_is == "deployed"])


def test_breakdown_stops_at_the_first_eps_that_is_not_linear():
    errors = {0.25: 0.01, 1.0: 0.3, 2.0: 0.02}
    key = {"model": "a", "seed": 0, "network_is": "relaxation"}
    rows = [{**key, "eps255": eps, "linear_error": error} for eps, error in errors.items()]
    assert verdicts.breakdown(pd.DataFrame(rows)).linear_up_to.tolist() == [0.25]
    rows[0]["linear_error"] = 0.2
    assert verdicts.breakdown(pd.DataFrame(rows)).linear_up_to.tolist() == [0.0]


def ranking(l0, rho, seeds=(0, 1)):
    parts = []
    for seed in seeds:
        numbers = np.arange(1.0, 41.0)
        parts.append(
            pd.DataFrame({"model": "a", "seed": seed, "rho_adv": rho(numbers), "l0": l0(numbers),
                          "l1_squared": numbers, "l2_squared": -numbers})
        )  # fmt: skip
    return pd.concat(parts)


def dose(power):
    rows = [
        {"model": "a", "seed": 0, "network_is": kind, "sample": 0, "share": share, "nonzeros": 100 * share,
         "rho_adv": (100 * share) ** power}
        for kind in ("relaxation", "deployed") for share in (0.1, 0.5, 1.0)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def learned(accuracies_of):
    return accuracies_of({"a": (0.6, 0.6)})


@pytest.mark.parametrize(
    "l0, rho, verdict",
    [
        (lambda n: 100 + n, lambda n: n, "reproduced"),
        (lambda n: 100 - n, lambda n: n, "not reproduced"),
        (lambda n: 100 + n / 4 + np.random.default_rng(2).permutation(n), lambda n: n, "inconclusive at this size"),
        (lambda n: 0 * n + 100, lambda n: n, "not testable"),
        (lambda n: 1000 + 0.001 * n, lambda n: n, "not testable"),
    ],
)
def test_scaling_needs_counts_that_vary_and_rank(learned, l0, rho, verdict):
    judgement = verdicts.judge_scaling(ranking(l0, rho), dose(2.0), learned)
    assert judgement.verdict == verdict and "‖g‖₀^2.0 at first order" in judgement.evidence


def test_ranks_within_a_network_that_has_not_learned_say_nothing(accuracies_of):
    table = ranking(lambda n: 100 + n, lambda n: n)
    assert verdicts.judge_scaling(table, dose(2.0), accuracies_of({"a": (0.6, 0.1)})).verdict == "not testable"


def test_rank_correlations_have_intervals_and_nan_for_constants():
    table = verdicts.rank_correlations(ranking(lambda n: 0 * n + 3, lambda n: n, seeds=(0,))).set_index("norm")
    assert table.correlation["l1_squared"] == 1 and table.correlation["l2_squared"] == -1
    assert np.isnan(table.correlation["l0"]) and table.spread["l0"] == 0
    noisy = ranking(lambda n: np.random.default_rng(0).permutation(n), lambda n: n, seeds=(0,))
    row = verdicts.rank_correlations(noisy).set_index("norm").loc["l0"]
    assert row.low < row.correlation < row.high and row.high - row.low > 0.2
    pd.testing.assert_frame_equal(verdicts.rank_correlations(noisy), verdicts.rank_correlations(noisy))


def test_dose_exponent_leaves_out_what_does_not_move():
    table = pd.concat([dose(1.0), dose(1.0).assign(sample=1, rho_adv=0.0)])
    assert verdicts.dose_exponents(table).exponent.tolist() == pytest.approx([1.0, 1.0])
    assert verdicts.dose_exponents(dose(1.0).assign(rho_adv=0.0)).empty


def density(densities, bounds, zero_shares, layers=200):
    rows = []
    for seed, (value, bound, share) in enumerate(zip(densities, bounds, zero_shares, strict=True)):
        for per, mode in (("sample", "eval"), ("batch", "eval"), ("batch", "train")):
            numbers = {"density": value, "architecture_spikes": bound, "S": share, "r": bound, "union": value}
            rows += [{"seed": seed, "per": per, "batch_norm": mode, "behind_neuron": True, **numbers}] * layers
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    "rows, verdict",
    [
        (density((0.2, 0.3), (0.3, 0.3), (0.5, 0.4)), "reproduced"),
        (density((0.2, 0.3), (0.3, 0.3), (0.5, 0.4), layers=9), "inconclusive at this size"),
        (density((0.2, 0.3), (0.3, 0.3), (0.0, 0.01)), "not testable"),
        (density((0.4, 0.4), (0.3, 0.3), (0.5, 0.5)), "not reproduced"),
        (density((0.2, 0.4), (0.3, 0.3), (0.5, 0.5)), "mixed"),
    ],
)
def test_density_is_judged_by_its_bound_and_by_what_carries_it(rows, verdict):
    judgement = verdicts.judge_density(rows)
    assert judgement.verdict == verdict and "gradients above (1 − S)·r" in judgement.evidence


def test_density_without_judged_layers_is_refused():
    with pytest.raises(InputError, match="no layer with a neuron"):
        verdicts.judge_density(density((0.2,), (0.3,), (0.5,)).assign(behind_neuron=False))
