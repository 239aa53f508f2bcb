"""Rules on shares of zeros: each can come out either way, and says its numbers."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion.luu2025.networks import HEADLINE_EPS
from snnlib.companion.measure.attacked import AUTHORS, IMAGE, IMAGE_SMOOTH
from snnlib.companion.verdicts import luu2025 as verdicts
from snnlib.errors import InputError


def _sparsity(in_max, in_average):
    rows = []
    for model, shares in ((verdicts.MAX, in_max), (verdicts.AVERAGE, in_average)):
        for seed, share in enumerate(shares):
            numbers = {"in_blocks": share, "in_blocks_without_strided_shortcuts": share, "at_stem_pool": 0.8}
            rows.append({"model": model, "seed": seed, "batch_norm": "train", **numbers})
            rows.append({"model": model, "seed": seed, "batch_norm": "eval", **dict.fromkeys(numbers, 0.99)})
    return pd.DataFrame(rows)


@pytest.fixture
def learned(accuracies_of):
    return accuracies_of({verdicts.MAX: (0.6, 0.6), verdicts.AVERAGE: (0.6, 0.6)})


@pytest.mark.parametrize(
    "in_max, verdict",
    [
        ((0.5, 0.45), "reproduced"),
        ((0.5, 0.1), "mixed"),
        ((0.0, 0.1), "not reproduced"),
        ((0.26, 0.24), "inconclusive at this size"),
    ],
)
def test_block_sparsity_is_judged_in_the_authors_mode(learned, in_max, verdict):
    judgement = verdicts.judge_block_sparsity(_sparsity(in_max, (0.0, 0.0)), learned, 200)
    assert judgement.verdict == verdict and (judgement.unit, judgement.samples) == ("%", 200)
    assert judgement.estimate == pytest.approx(50 * sum(in_max))


@pytest.mark.parametrize(
    "in_max, in_average, verdict",
    [
        ((0.6, 0.6), (0.1, 0.2), "reproduced"),
        ((0.6, 0.6), (0.5, 0.5), "not reproduced"),
        ((0.6, 0.04), (0.1, 0.04), "not testable"),
    ],
)
def test_pool_effect_needs_most_of_the_zeros_to_go(learned, in_max, in_average, verdict):
    assert verdicts.judge_pool_effect(_sparsity(in_max, in_average), learned, 200).verdict == verdict


def test_zeros_of_a_network_that_has_not_learned_say_nothing(accuracies_of):
    accuracies = accuracies_of({verdicts.MAX: (0.6, 0.2), verdicts.AVERAGE: (0.6, 0.6)})
    zeros = _sparsity((0.6, 0.6), (0.1, 0.1))
    assert verdicts.judge_block_sparsity(zeros, accuracies, 200).verdict == "not testable"
    assert verdicts.judge_pool_effect(zeros, accuracies, 200).verdict == "not testable"


def test_nothing_is_judged_when_there_is_no_seed(learned):
    with pytest.raises(InputError, match="no seed to judge"):
        verdicts.judge_block_sparsity(_sparsity((0.1,), (0.1,)).assign(model="renamed"), learned, 200)


def test_headline_is_the_worst_case_per_sample_over_image_attacks():
    def row(sample, threat, attack, success):
        key = {"model": "m", "seed": 0, "dataset": "d", "split": "test", "sample": sample, "eps": HEADLINE_EPS}
        return {**key, "threat_model": threat, "attack": attack, "success": success}

    rows = pd.DataFrame(
        [row(s, threat.name, "pgd", hit) for s, threat, hit in (
            (0, IMAGE, True), (1, IMAGE, False), (2, IMAGE, False), (3, IMAGE, False),
            (0, IMAGE_SMOOTH, False), (1, IMAGE_SMOOTH, True), (2, IMAGE_SMOOTH, False), (3, IMAGE_SMOOTH, False),
            (0, AUTHORS, False), (1, AUTHORS, False), (2, AUTHORS, False), (3, AUTHORS, False),
        )]
        + [row(s, "encoded, BN eval", "pgd", False) for s in range(4)]
    )  # fmt: skip
    robust = verdicts.headline(rows).set_index("threat_model").robust_accuracy
    assert (robust["image"], robust["authors"]) == (0.5, 1.0)


def test_strided_shortcuts_are_told_apart_from_the_rest_of_a_block():
    def row(operation, kind, zeros, inside):
        return {
            "model": "m", "seed": 0, "batch_norm": "train", "operation": operation, "kind": kind,
            "inside_residual_block": inside, "zero_share_grad_input": zeros,
        }  # fmt: skip

    operations = pd.DataFrame(
        [
            row("body.layer2.0.conv1", "Conv2d", 0.0, True),
            row("body.layer2.0.downsample.0", "Conv2d", 0.75, True),
            row("body.pool", "MaxPool2d", 0.8, False),
            row("body.head_pool", "AdaptiveAvgPool2d", 0.0, False),
        ]
    )
    (line,) = verdicts.block_sparsity(operations).to_dict("records")
    assert line["in_blocks"] == 0.375
    assert line["in_blocks_without_strided_shortcuts"] == 0.0
    assert line["at_stem_pool"] == 0.8
