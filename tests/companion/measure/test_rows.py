from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from snnlib.companion.measure.rows import (
    ROW_COLUMNS,
    attack_success_rate_among_correct,
    clean_accuracy,
    mean_and_range,
    read_table,
    robust_accuracy,
    wilson_interval,
    write_rows,
)
from snnlib.errors import InputError


def row(**changed: object) -> dict[str, object]:
    plain = {
        "run": "r", "model": "m", "dataset": "cifar10", "split": "test", "sample": 0, "label": 3, "seed": 0,
        "threat_model": "image", "attack": "pgd", "space": "image", "batch_norm": "eval", "norm": "linf",
        "eps": 0.03, "steps": 7, "step_size": 0.01, "restarts": 1, "surrogate": "atan(alpha=2.0)",
        "encoder_gradient": "straight-through", "clean_correct": True, "success": False,
        "first_successful_step": -1, "loss": 0.5, "linf": 0.03, "l2": 0.4, "forwards": 8, "backwards": 7,
        "kernel": "compiled", "device": "cpu",
    }  # fmt: skip
    return plain | changed


@pytest.fixture
def rows() -> pd.DataFrame:
    """Four samples, two attacks, two budgets.

    small eps: sample 0 falls to pgd only, 1 to fgsm only, 2 to none, 3 was misclassified at the start.
    large eps: 0, 1 and 3 fall to both attacks, 2 to none.
    """
    fallen = {
        (0.01, "pgd"): {0, 3},
        (0.01, "fgsm"): {1, 3},
        (0.1, "pgd"): {0, 1, 3},
        (0.1, "fgsm"): {0, 1, 3},
    }
    return pd.DataFrame(
        row(sample=sample, eps=eps, attack=attack, success=sample in broken, clean_correct=sample != 3)
        for (eps, attack), broken in fallen.items()
        for sample in range(4)
    )


def test_worst_case_counts_a_sample_once_when_any_attack_breaks_it(rows: pd.DataFrame) -> None:
    small = robust_accuracy(rows[rows.eps == 0.01])
    assert small.robust_accuracy.tolist() == [
        0.25
    ]  # only sample 2 withstands both, though each attack leaves two
    assert small.samples.tolist() == [4]


def test_accuracies_are_per_attack_when_attack_is_in_by(rows: pd.DataFrame) -> None:
    table = robust_accuracy(rows, by=["eps", "attack"]).set_index(["eps", "attack"]).robust_accuracy
    assert table.to_dict() == {
        (0.01, "fgsm"): 0.5,
        (0.01, "pgd"): 0.5,
        (0.1, "fgsm"): 0.25,
        (0.1, "pgd"): 0.25,
    }


def test_samples_of_two_splits_are_different_samples(rows: pd.DataFrame) -> None:
    both = pd.concat([rows, rows.assign(split="validation", success=False)])
    assert robust_accuracy(both).samples.tolist() == [8]
    assert robust_accuracy(both).robust_accuracy.tolist() == [5 / 8]


def test_clean_accuracy_ignores_attacks(rows: pd.DataFrame) -> None:
    assert clean_accuracy(rows).clean_accuracy.tolist() == [0.75]


def test_one_line_error_when_clean_accuracy_mixes_models(rows: pd.DataFrame) -> None:
    mixed = pd.concat([rows, rows.assign(model="other", clean_correct=False)])
    with pytest.raises(InputError, match="add 'model' or 'seed'"):
        clean_accuracy(mixed)
    assert clean_accuracy(mixed, by=["model"]).clean_accuracy.tolist() == [0.75, 0.0]


def test_success_rate_leaves_out_samples_wrong_from_the_start(rows: pd.DataFrame) -> None:
    table = attack_success_rate_among_correct(rows, by=["attack", "eps"]).set_index(["attack", "eps"])
    assert table.samples.unique().tolist() == [3]
    assert table.attack_success_rate["pgd", 0.01] == pytest.approx(1 / 3)


def test_one_line_error_when_grouping_by_unknown_column(rows: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"cannot group by \['modle'\]"):
        robust_accuracy(rows, by=["modle"])


def test_one_line_error_when_no_rows_are_left(rows: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no result rows left"):
        robust_accuracy(rows[rows.eps > 1])


def test_wilson_interval_matches_hand_computation() -> None:
    # 5 of 10, z = 1.96: centre 0.5, half-width z * sqrt(0.025 + z²/400) / (1 + z²/10)
    z = 1.96
    half = z * math.sqrt(0.025 + z * z / 400) / (1 + z * z / 10)
    assert wilson_interval(5, 10, z) == pytest.approx((0.5 - half, 0.5 + half))
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_wilson_interval_touches_the_edge_when_all_or_none_succeed() -> None:
    assert wilson_interval(0, 20)[0] == 0.0
    assert wilson_interval(20, 20)[1] == 1.0
    assert wilson_interval(0, 20)[1] == pytest.approx(1 - wilson_interval(20, 20)[0])


def test_rows_survive_storage_with_equal_bytes(rows: pd.DataFrame, tmp_path: Path) -> None:
    rows["step_size"] = float("nan")
    first = write_rows(tmp_path / "a.parquet", rows)
    second = write_rows(
        tmp_path / "b.parquet", rows[list(reversed(ROW_COLUMNS))].set_index("label", drop=False)
    )
    assert first.read_bytes() == second.read_bytes()
    assert b"pandas_version" not in first.read_bytes()
    again = read_table(first)
    assert tuple(again.columns) == ROW_COLUMNS
    pd.testing.assert_frame_equal(again, rows[list(ROW_COLUMNS)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="eps"), r"missing columns \['eps'\]"),
        (lambda rows: rows.assign(extra=1), r"unknown columns \['extra'\]"),
        (lambda rows: rows.assign(surrogate=None), "column 'surrogate' .* has empty cells"),
        (lambda rows: rows.assign(sample="x"), "does not fit its columns"),
        (lambda rows: rows.assign(steps=1.5), "does not fit its columns"),
    ],
)
def test_one_line_error_and_no_file_when_rows_do_not_fit(
    rows: pd.DataFrame, tmp_path: Path, change, message
) -> None:
    with pytest.raises(InputError, match=message):
        write_rows(tmp_path / "a.parquet", change(rows))
    assert not list(tmp_path.iterdir())


def test_one_line_error_when_the_file_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_table(tmp_path / "none.parquet")
    (tmp_path / "half.parquet").write_bytes(b"half a file")
    with pytest.raises(InputError, match="is damaged .*delete it and run again"):
        read_table(tmp_path / "half.parquet")


def test_seeds_are_shown_by_their_mean_and_range() -> None:
    assert mean_and_range([0.1, 0.25]) == "17.5 [10.0, 25.0]" and mean_and_range([1.0]) == "100.0 [100.0, 100.0]"
