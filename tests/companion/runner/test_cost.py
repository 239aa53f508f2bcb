"""The cost model: it lists what the notebooks ask for, counts as the attacks count, and stores nothing."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

from snnlib.attacks.ensemble import MEMBERS, EnsembleResult
from snnlib.companion import paths
from snnlib.companion.luu2025 import networks as luu2025
from snnlib.companion.measure import networks as common
from snnlib.companion.measure.attacked import AUTHORS, AUTHORS_DRIFTING, ENCODED, IMAGE, Attack, run_attack
from snnlib.companion.measure.store import name_of
from snnlib.companion.ozdenizci2024 import networks as conversion
from snnlib.companion.runner import cost as cost_model
from snnlib.companion.runner import dry_run
from snnlib.companion.runner.cost import Meter, Training, Work, passes_of, work_of
from snnlib.companion.sizes import PROFILES, conversion_size, get_profile
from snnlib.data import ImageSet, ImageSplits, load_images
from snnlib.data.image_set import split_train_validation
from snnlib.encoding import build_encoder
from snnlib.models import Model
from snnlib.neurons import LIF, surrogates, use_kernel


class FixedMeter(Meter):
    """10 seconds an epoch, 1 ms a forward pass, 4 ms one with its gradient."""

    def __init__(self) -> None:
        super().__init__("cpu", 1)

    def epoch(self, training):
        return 10.0

    def passes(self, training, surrogate):
        return 0.001, 0.004


class Unmoved(nn.Module):
    """A body in which class 0 always wins."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = LIF(surrogate=surrogates.piecewise_linear(width=1))

    def forward(self, encoded):
        spikes = self.neuron(encoded).flatten(2).mean((0, 2))
        return torch.stack([spikes + 1, spikes], 1)


def _labelled(count: int, seed: int) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.arange(count) % 10)


def _attacks(name: str, label: str) -> list[Work]:
    return [work for work in work_of(name)[1] if work.training.network.label == label]


@pytest.mark.parametrize("threat", [AUTHORS, AUTHORS_DRIFTING, ENCODED, IMAGE], ids=lambda threat: threat.name)
@pytest.mark.parametrize(
    "attack",
    [Attack("random_noise", 0.1), Attack("fgsm", 0.1), Attack("pgd", 0.1, options={"steps": 4}), Attack("pgd", 0.1)],
    ids=lambda attack: f"{attack.name}-{attack.options}",
)
def test_passes_are_those_that_the_attack_reports_for_an_image_that_never_falls(attack, threat):
    model = Model(build_encoder("direct", 1), Unmoved(), {})
    image, label = torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, dtype=torch.int64)
    attack = replace(attack, threat=threat)
    result = run_attack(model, image, label, attack)
    assert not result.success.any()
    assert passes_of(Work("12", None, (attack,))) == (int(result.forwards) + 1, int(result.backwards))
    if threat is IMAGE and attack.name != "random_noise":
        together = replace(attack, members=tuple(MEMBERS))
        found = run_attack(model, image, label, together)
        assert isinstance(found, EnsembleResult)
        passes, gradients = passes_of(Work("23", None, (together, together)))
        assert (passes, gradients) == (2 * (int(found.result.forwards) + 1), 2 * int(found.result.backwards))


def test_ensemble_of_the_paper_takes_ten_steps_of_nineteen_members_at_three_levels():
    (found,) = [work for work in _attacks("paper", "SNN, conversion from AT") if work.attacks[0].name == "pgd"]
    assert len(found.attacks) == 3 and len(found.attacks[0].members) == 19 and not found.attacks[0].alone
    assert passes_of(found) == (3 * (1 + 19 * 12 + 10), 3 * 19 * 10)
    assert found.label == "pgd, 10 steps, 19 members, image, eps 2, 4, 8"


@pytest.mark.parametrize("name", PROFILES)
def test_trainings_are_the_networks_of_the_notebooks(name, monkeypatch):
    profile, asked = get_profile(name), []
    monkeypatch.setattr(luu2025, "trained", lambda network, *_: asked.append(network))
    luu2025.trained_networks(profile, tuple(luu2025.NETWORKS))
    luu2025.table_networks(profile)
    listed = [training.network for training in cost_model.luu_trainings(profile)]
    assert all(network in listed for network in asked) and all(network in asked for network in listed)
    assert len(listed) == 4 + 3 * (len(profile.depths) - 1)
    size = conversion_size(name)
    trainings = cost_model.conversion_trainings(size)
    assert [training.network for training in trainings[:4]] == [
        conversion.ann_network(objective, size) for objective in conversion.OBJECTIVES
    ]
    rivals = [conversion.end_to_end_network(comparison, size) for comparison in size.end_to_end_epochs]
    assert all(rival in [training.network for training in trainings] for rival in rivals)
    assert len(trainings) == 4 + 4 + 2 + 2
    assert all(training.profile == size.profile for training in trainings)


@pytest.mark.parametrize("name", PROFILES)
def test_attacks_are_the_rows_that_notebooks_12_and_15_ask_for(name, monkeypatch):
    profile, asked = get_profile(name), set()

    def named(label, attack):
        return label, name_of(asdict(attack))

    def attacked(item, profile, attacks):
        asked.update(named(item.network.label, attack) for attack in attacks)

    monkeypatch.setattr(luu2025, "on_attacked_images", attacked)
    trainings = cost_model.luu_trainings(profile)
    for training in trainings:
        item = SimpleNamespace(network=training.network, model=training.outline())
        luu2025.headline_rows(item, profile)
        if training.network in [luu2025.NETWORKS[key] for key in ("sew_max", "sew_avg", "defended")]:
            luu2025.curve_rows(item, profile)
            luu2025.ladder_rows(item, profile)
    works = cost_model.luu_attacks(trainings, profile)
    listed = [named(work.training.network.label, attack) for work in works for attack in work.attacks]
    assert set(listed) == asked and len(listed) == len(asked) > 0


def test_attacks_of_the_conversion_are_counted_once_by_the_first_notebook_that_asks():
    def asked(label):
        return sorted((work.notebook, _name(work), _levels(work), _members(work)) for work in _attacks("paper", label))

    together, alone = "together", "each alone"
    assert asked("ANN, MART") == [("20", "fgsm", [2, 4, 8], ""), ("20", "pgd", [2, 4, 8], "")]
    assert asked("SNN, conversion from TRADES, thresholds frozen") == [("21", "fgsm", [4], together)]
    of_both = [("22", "fgsm", [8], alone), ("22", "fgsm", [8], together), ("22", "pgd", [8], together)]
    assert asked("SNN, end to end, equal time") == [
        *of_both, ("23", "fgsm", [2, 4], together), ("23", "pgd", [2, 4], together)
    ]
    assert asked("SNN, conversion from TRADES") == [
        ("21", "fgsm", [4], together), *of_both, ("23", "fgsm", [2], together), ("23", "pgd", [2, 4], together)
    ]


def _name(work: Work) -> str:
    return work.attacks[0].name


def _levels(work: Work) -> list[int]:
    return [round(255 * attack.eps) for attack in work.attacks]


def _members(work: Work) -> str:
    attack = work.attacks[0]
    assert attack.members in ((), tuple(MEMBERS))
    return "" if not attack.members else "each alone" if attack.alone else "together"


def test_hours_are_networks_times_images_times_passes(monkeypatch):
    monkeypatch.setattr(cost_model, "images_of", lambda profile: cost_model.made_up_images())
    trainings, attacks = work_of("paper")
    table = cost_model.estimated(trainings, attacks, FixedMeter())
    trained, (row,) = table[table.work == "training"], _rows(table, "ANN, AT", "pgd, 10 steps, image, eps 2, 4, 8")
    assert set(trained.images) == {45_000} and set(table[table.work != "training"].images) == {10_000}
    assert trained.hours.sum() == pytest.approx(3 * 10 * sum(t.recipe().epochs for t in trainings) / 3600)
    assert (row.networks, row.passes, row.gradients) == (3, 3 * 13, 3 * 10)
    assert row.hours == pytest.approx(3 * 10_000 * 3 * (3 * 0.001 + 10 * 0.004) / 3600)
    by_speed = table.networks * table.images * table.passes / table["images/s"] / 3600
    assert by_speed.to_numpy() == pytest.approx(table.hours.to_numpy())


def _rows(table: pd.DataFrame, network: str, work: str) -> list:
    return list(table[(table.network == network) & (table.work == work)].itertuples())


def test_made_up_images_come_in_the_numbers_that_load_images_keeps():
    fraction = inspect.signature(load_images).parameters["validation_fraction"].default
    published = ImageSet(torch.zeros(50_000, 1, 1, 1, dtype=torch.uint8), torch.arange(50_000) % 10)
    train, validation = split_train_validation(published, fraction, seed=0)
    found = cost_model.made_up_images()
    assert (len(found.train), len(found.validation), len(found.test)) == (len(train), len(validation), 10_000)


def test_equal_work_is_measured_once_and_validation_is_scaled_to_all_its_images(monkeypatch):
    given = []
    monkeypatch.setattr(cost_model.common, "load_profile_images", lambda profile: _splits())
    monkeypatch.setattr(Meter, "passes", lambda *_: (0.5, 1.0))

    def estimate(model, splits, recipe, device, *, batches):
        given.append((recipe.objective, recipe.epochs, len(splits.train), len(splits.validation), batches))
        return 100.0

    monkeypatch.setattr(cost_model, "estimate_training_seconds", estimate)
    meter = Meter("cpu", 2)
    seconds = {meter.epoch(training) for training in cost_model.conversion_trainings(conversion_size("smoke"))}
    assert seconds == {100 + (20 - 16) * 0.5}
    objectives = [*conversion.OBJECTIVES, "consistency", "consistency"]  # fine-tuning, and end to end
    assert sorted(given) == sorted((objective, 1, 40, 16, 2) for objective in objectives)


def _splits() -> ImageSplits:
    return ImageSplits("cifar10", _labelled(40, 1), _labelled(20, 2), _labelled(20, 3), 10, tuple("abcdefghij"))


def test_spent_seconds_are_those_of_the_logs_and_unknown_ones_are_left_out(home: Path):
    training, other = work_of("smoke")[0][:2]
    for seed, seconds in ((0, [5.0, None]), (1, [7.0, 8.0])):
        folder = paths.ARTIFACTS / "networks" / training.artifact(seed).name
        folder.mkdir(parents=True)
        lines = [{"epoch": n, "seconds": took, "images_per_second": None} for n, took in enumerate(seconds, start=1)]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = cost_model.beside_spent([training, other], FixedMeter())
    (row,) = table.to_dict("records")
    assert (row["network"], row["networks"], row["epochs"]) == (training.network.label, "2 of 2", 3)
    assert (row["hours estimated"], row["hours spent"]) == pytest.approx((30 / 3600, 20 / 3600))
    assert row["estimate/spent"] == pytest.approx(1.5)


def test_artifacts_of_a_run_are_found_when_it_has_trained(artifacts, monkeypatch):
    splits, smoke = _splits(), conversion_size("smoke")
    monkeypatch.setattr(common, "load_profile_images", lambda profile, data_dir=None: splits)
    calibration = {"time_steps": 4, "batches": 1, "batch_size": 8}
    size = replace(smoke, profile=replace(smoke.profile, seeds=(0,)), calibration=calibration)
    how = conversion.ABLATIONS["C5"]
    items = [conversion.finetuned("trades", size, 0, how=how), conversion.end_to_end("equal steps", size, 0)]
    items += [conversion.ann("trades", size, 0), common.trained(luu2025.NETWORKS["defended"], size.profile, 0)]
    trainings = [*cost_model.conversion_trainings(size), Training("10", luu2025.NETWORKS["defended"], size.profile)]
    by_label = {training.network.label: training for training in trainings}
    for item in items:
        assert by_label[item.network.label].artifact(0).name == item.key
    found = cost_model.beside_spent(trainings, FixedMeter())
    assert set(found.network) == {item.network.label for item in items} and (found["hours spent"] > 0).all()


@pytest.mark.slow
def test_report_of_the_smallest_profile_has_every_row_and_stores_nothing(home: Path, monkeypatch):
    monkeypatch.setenv("SNNLIB_DEVICE", "cpu")
    with use_kernel("reference"):
        text = dry_run.report("smoke")
    trainings, attacks = work_of("smoke")
    assert sum(line.startswith("| ") for line in text.splitlines()) == 2 + len(trainings) + len(attacks)
    assert "hours on this machine" in text and "at most" in text and "30-34" in text and "nan" not in text
    assert text.endswith("Spent so far: nothing, no training log of this profile and code is here.")
    assert list(home.iterdir()) == []
