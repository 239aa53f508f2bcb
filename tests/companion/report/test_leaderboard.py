"""Only networks that were attacked enough get a rank, and the worst case per image decides it."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pandas as pd
import pytest

from snnlib.companion import paths
from snnlib.companion.ours.defences import DEFENCES
from snnlib.companion.report.leaderboard import leaderboard, publish_leaderboard
from snnlib.errors import InputError

REPOSITORY = Path(__file__).parents[3]
ENOUGH = (("pgd", "own"), ("pgd", "wide"), ("pgd", "narrow"), ("square", ""))


def rows_of(model: str, broken: dict[str, set[int]], attacks=ENOUGH, images: int = 4, image_set: str = "a", **fields):
    """Rows of every attack on images of one seed. broken: attack -> the images that it breaks."""
    lines = [
        {
            **{"model": model, "seed": 0, "dataset": "d", "split": "test", "sample": sample, "attack": attack},
            **{"surrogate": surrogate, "space": "image", "batch_norm": "eval", "norm": "linf", "eps": 2 / 255},
            **{"steps": 10, "clean_correct": True, "success": sample in broken.get(attack, set())},
            **{"forwards": 2, "backwards": 1, "image_set": image_set, "device": "cpu", **fields},
        }
        for attack, surrogate in attacks
        for sample in range(images)
    ]
    return pd.DataFrame(lines)


def read_lines(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_worst_case_over_all_attacks_is_ranked():
    weak = rows_of("weak", {"pgd": {0, 1}, "square": {2}})
    strong = rows_of("strong", {"pgd": {0}})
    table = leaderboard(pd.concat([weak, strong])).set_index("network")
    assert table.robust.to_dict() == {"strong": 0.75, "weak": 0.25}
    assert table["rank"].to_dict() == {"strong": 1, "weak": 2}
    assert table.passes.to_dict() == {"strong": 12, "weak": 12}
    assert (table.low < table.robust).all() and (table.robust < table.high).all()


@pytest.mark.parametrize(
    ("attacks", "fields", "lack"),
    [
        (ENOUGH[:3], {}, "an attack without gradient"),
        (ENOUGH[2:], {}, "3 surrogates"),
        (ENOUGH, {"steps": 9}, "a gradient attack of 10 steps"),
    ],
)
def test_a_network_that_was_attacked_too_little_has_no_rank(attacks, fields, lack):
    rows = pd.concat([rows_of("tried", {"pgd": {0}}), rows_of("untried", {}, attacks, **fields)])
    table = leaderboard(rows).set_index("network")
    assert table.lacks["untried"] == lack and pd.isna(table["rank"]["untried"])
    assert table["rank"]["tried"] == 1


def test_a_network_without_spikes_needs_no_surrogates():
    assert leaderboard(rows_of("ANN, AT", {}, (("pgd", "own"), ("square", "")))).lacks.item() == ""


def test_numbers_of_samples_of_another_image_set_are_not_mixed_up():
    rows = pd.concat([rows_of("net", {"pgd": {0}}), rows_of("net", {"pgd": {3}}, images=2, image_set="b")])
    assert leaderboard(rows).robust.item() == 0.75
    other = pd.concat([rows_of("net", {"pgd": {0}}), rows_of("net", {"pgd": {1}}, images=2, image_set="b")])
    assert leaderboard(other).robust.item() == 0.75


def test_validation_images_are_no_part_of_it_however_many_they_are():
    others = rows_of("net", {"pgd": {3}}, images=9, image_set="b", split="validation")
    rows = pd.concat([rows_of("net", {"pgd": {0}}), others])
    line = leaderboard(rows).iloc[0]
    assert (line.robust, line.images) == (0.75, 4)


def test_right_is_what_all_devices_got_right_and_one_device_may_not_contradict_itself():
    here, there = rows_of("both", {"pgd": {0}}), rows_of("both", {"square": {1}}, device="cuda")
    there.loc[there["sample"] == 3, ["clean_correct", "success"]] = False, True
    line = leaderboard(pd.concat([here, there])).iloc[0]
    assert (line.clean, line.robust) == (0.75, 0.25)
    with pytest.raises(InputError, match="clean_correct differs"):
        leaderboard(pd.concat([here, there.assign(device="cpu")]))


def test_the_code_and_train_mode_are_no_part_of_it():
    rows = pd.concat([rows_of("net", {}), rows_of("net", {"pgd": {0, 1, 2, 3}}, space="encoded")])
    assert leaderboard(rows).robust.item() == 1.0


PUBLISHED = sorted((REPOSITORY / "figures").glob("*/rows.parquet"))


@pytest.mark.parametrize("path", PUBLISHED, ids=[path.parent.name for path in PUBLISHED])
def test_the_committed_table_follows_from_the_committed_rows(path, monkeypatch, tmp_path):
    published, again = path.parent, tmp_path / path.parent.name
    again.mkdir()
    for name in ("rows.parquet", "results.parquet"):
        (again / name).write_bytes((published / name).read_bytes())
    monkeypatch.setattr(paths, "FIGURES", tmp_path)
    publish_leaderboard(published.name)
    ours, committed = (read_lines(folder / "leaderboard.csv") for folder in (again, published))
    assert ours == committed


@pytest.mark.parametrize("path", PUBLISHED, ids=[path.parent.name for path in PUBLISHED])
def test_a_defence_is_named_as_the_network_that_notebook_34_trains_with_it(path):
    names = {line["network"] for line in read_lines(path.parent / "leaderboard.csv")}
    assert "SNN of notebook 34: MPD-SGR" in names and not names & set(DEFENCES)


def test_the_front_page_shows_the_ranked_networks_of_the_profile_and_eps_that_it_names():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    profile, eps = re.search(r"Profile `(\w+)`; all networks.*?\| eps (\d+)/255 \|", readme, re.DOTALL).groups()
    for line in read_lines(REPOSITORY / "figures" / profile / "leaderboard.csv"):
        if line["rank"] and line["eps255"] == eps:
            clean, *numbers = (100 * float(line[name]) for name in ("clean", "robust", "low", "high"))
            left, low, high = (f"{number + 1e-9:.1f}" for number in numbers)
            assert f"{clean + 1e-9:.0f} % | {left} [{low}, {high}] %" in readme


def test_the_turns_of_the_worst_case_count_as_what_they_are():
    turns = [("worst_case", name) for name in ("apgd ce by own", "apgd ce by narrow", "apgd margin by own", "square")]
    rows = pd.concat([rows_of("whole", {}, turns, steps=1, backwards=10), rows_of("cut", {}, turns[:3], steps=1)])
    table = leaderboard(rows).set_index("network")
    assert table.lacks.to_dict() == {"whole": "", "cut": "a gradient attack of 10 steps; an attack without gradient"}
