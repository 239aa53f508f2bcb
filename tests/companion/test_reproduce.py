"""Stored rows are made again from the released network, and a difference is said."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from snnlib.attacks import Turn
from snnlib.companion import reproduce
from snnlib.companion.measure.attacked import AUTHORS, Attack, attack_rows
from snnlib.models import released, released_card

NAME = "ann-trades-night-0"
TURNS = (Turn("apgd", 12, options={"loss": "margin"}), Turn("square", 12))


@pytest.fixture
def rows_of_two_attacks(home, monkeypatch):
    monkeypatch.setenv("SNNLIB_DEVICE", "cpu")
    network = reproduce.as_trained(NAME)
    images = network.splits.test.first_per_class(2)
    by_schedule = Attack("worst_case", 2 / 255, options={"passes": 24, "schedule": TURNS})
    for attack in (Attack("fgsm", 2 / 255), Attack("pgd", 2 / 255, threat=AUTHORS, options={"steps": 2}), by_schedule):
        attack_rows(network, attack, images, batch_size=20)


def test_rows_made_by_the_released_network_are_equal(rows_of_two_attacks, capsys):
    assert reproduce.main([released_card(NAME)["key"], "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(line.startswith("equal: ") and "20 images" in line for line in lines)
    assert {line.split()[1] for line in lines} == {"fgsm", "pgd", "worst_case"}
    assert reproduce.main([NAME]) == 0
    assert capsys.readouterr().out.splitlines()[0] in lines


def test_another_network_is_not_equal(rows_of_two_attacks, capsys, monkeypatch):
    def other(name):
        model = released(name)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(0.5)
        return model

    monkeypatch.setattr(reproduce, "released", other)
    assert reproduce.main([NAME]) == 1
    said = capsys.readouterr().out
    assert said.startswith("NOT EQUAL: ") and int(re.search(r"\n  (\d+) images fell in one", said)[1]) > 0


def test_without_rows_one_line_says_how_to_make_them(home, capsys):
    assert reproduce.main([NAME]) == 2
    error = capsys.readouterr().err
    assert "./run_all.sh --profile night makes them" in error and error.count("\n") == 1
    assert reproduce.main(["nothing"]) == 2
    assert "released network 'nothing'" in capsys.readouterr().err


def test_rows_of_validation_images_come_last_and_are_found_among_those(home, capsys, monkeypatch):
    monkeypatch.setenv("SNNLIB_DEVICE", "cpu")
    network = reproduce.as_trained(NAME)
    few, more = network.splits.validation.first_per_class(1), network.splits.test.first_per_class(3)
    attack_rows(network, Attack("fgsm", 2 / 255), few, batch_size=50, split="validation")
    attack_rows(network, Attack("pgd", 2 / 255, options={"steps": 3}), more, batch_size=50)
    assert reproduce.main([NAME]) == 0
    assert "equal: pgd" in capsys.readouterr().out
    assert reproduce.main([NAME, "--all"]) == 0
    assert capsys.readouterr().out.count("equal: ") == 2


def test_rows_of_images_that_are_not_embedded_need_the_folder_of_the_whole_data_set(home, capsys, monkeypatch):
    """The embedded validation images stand for those of the whole test set that are not embedded."""
    monkeypatch.setenv("SNNLIB_DEVICE", "cpu")
    network, asked = reproduce.as_trained(NAME), []
    others = network.splits.validation.first_per_class(2)
    attack_rows(network, Attack("fgsm", 2 / 255), others, batch_size=20)
    assert reproduce.main([NAME]) == 2
    error = capsys.readouterr().err
    assert f"the rows are of images {others.key}" in error and "give --data-dir" in error and error.count("\n") == 1
    assert reproduce.main([NAME, "--data-dir", str(home / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert "nowhere does not exist" in error and error.count("\n") == 1

    def whole(**options):
        asked.append((options["subset"], options["data_dir"]))
        return replace(network.splits, test=network.splits.validation)

    monkeypatch.setattr(reproduce, "load_images", whole)
    assert reproduce.main([NAME, "--data-dir", str(home)]) == 0
    assert asked == [("whole", home)] and capsys.readouterr().out.startswith("equal: fgsm")
