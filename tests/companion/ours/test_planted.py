"""The planted set: masks change the gradient and not the answers, halves share nothing, rates count what they say."""

from __future__ import annotations

import copy

import pandas as pd
import pytest
import torch

from snnlib.companion.ours import planted
from snnlib.companion.ours.planted_masks import MASKS, Front
from snnlib.companion.ours.planted_networks import LIBRARIES, _assembled, _layers, _neuron, converted, trained
from snnlib.data import ImageSet
from snnlib.neurons import foreign_neurons, neurons_of

RANDOM_OR_SCALED = ("randomness", "loss", "shattered")


def _images(count: int = 100) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 60, (count, 3, 32, 32), generator=generator)
    return ImageSet((noise + 150 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)


def _needs(library: str) -> None:
    if planted.release(library) is None:
        pytest.skip(f"{library} is not installed; the notebook then leaves its networks out")


def _slope(model, images):
    images = images.clone().requires_grad_(True)
    return torch.autograd.grad(model(images)[:, 0].sum(), images, allow_unused=True)[0]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_changes_the_gradient_and_leaves_the_answers(library, kind):
    _needs(library)
    images = _images(20).batch(slice(None))
    for mask in MASKS[kind]:
        torch.manual_seed(1)
        channels = mask.front()(images[:1]).shape[-3]
        twin = _assembled(library, mask.front(), _layers(_neuron(library), channels, 2)).eval()
        masked = copy.deepcopy(twin)
        mask.plant(masked, 0.5)
        answers = [model(images).detach() for model in (twin, masked)]
        if kind not in RANDOM_OR_SCALED:
            assert torch.equal(*answers), mask.name
        slopes = [_slope(model, images) for model in (twin, masked)]
        assert slopes[0].abs().sum() > 0, "the twin is honest"
        assert slopes[1] is None or not torch.allclose(slopes[0], slopes[1], rtol=0.01), mask.name


def test_large_logits_and_the_wave_leave_the_classes():
    images = _images(400)
    twin = trained("snnlib", Front(), images, epochs=10, seed=0)
    for kind in ("loss", "shattered"):
        masked = copy.deepcopy(twin)
        MASKS[kind][0].plant(masked, 1.0)
        x = images.batch(slice(None))
        assert torch.equal(masked(x).argmax(1), twin(x).argmax(1)), kind


@pytest.mark.parametrize("library", LIBRARIES)
def test_networks_learn_spike_and_come_out_equal_twice(library, capsys):
    _needs(library)
    images, before = _images(200), torch.random.get_rng_state()
    x, labels = images.batch(slice(None)), images.labels
    makers = (
        lambda: trained(library, Front(), images, epochs=12, seed=3),
        lambda: trained(library, Front(), images, epochs=12, seed=3, eps=4 / 255),
        lambda: converted(library, images, epochs=12, seed=3),
    )
    for make in makers:
        model, again = make(), make()
        assert torch.equal(torch.random.get_rng_state(), before)
        assert neurons_of(model) or foreign_neurons(model)
        with torch.no_grad():
            answers = model(x)
            assert (answers.argmax(1) == labels).float().mean() > 0.9
            assert torch.equal(again(x), answers)
        assert capsys.readouterr().err == "", "it would stay in the notebook"


def test_the_set_is_as_large_as_promised_and_its_halves_share_nothing():
    halves = {half: list(planted.plants(half)) for half in planted.HALVES}
    for plants in halves.values():
        assert len(plants) >= 24 and {plant.library for plant in plants} == set(LIBRARIES)
        assert {plant.kind for plant in plants} == {*MASKS, *planted.HONEST}
    development, published = (
        {(plant.library, plant.kind, plant.mask, plant.strength) for plant in plants if plant.mask}
        for plants in halves.values()
    )
    assert not development & published and len(set(planted.HALVES.values())) == 2


def test_the_reference_answers_as_the_network_and_goes_by_its_twin():
    torch.manual_seed(0)
    deployed, twin = (torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)) for _ in range(2))
    x = torch.rand(2, 3, 2, 2)
    both = planted.Reference(deployed, twin)
    assert torch.allclose(both(x), deployed(x), atol=1e-6)
    assert torch.allclose(_slope(both, x), _slope(twin, x)) and not torch.allclose(_slope(both, x), _slope(deployed, x))


def _rows(*rows: tuple) -> pd.DataFrame:
    names = ["kind", "masked", "correct", "left_own", "left_reference", "verdict"]
    return planted.judged(pd.DataFrame(rows, columns=names).assign(mask="", library="snnlib"))


def test_rates_count_masks_that_took_and_honest_networks_apart():
    rows = _rows(
        ("loss", True, 40, 30, 10, "masked"),
        ("loss", True, 40, 30, 10, "suspicious"),
        ("loss", True, 40, 30, 25, "no sign of masking"),
        ("quantiser", True, 40, 30, 26, "masked"),
        ("undefended", False, 40, 30, 30, "no sign of masking"),
        ("undefended", False, 40, 30, 29, "suspicious"),
        ("converted", False, 40, 30, 29, "inconclusive"),
    )
    assert rows.group.tolist() == ["masked"] * 3 + ["mask without effect"] + ["honest"] * 3
    assert rows.missed.tolist()[:4] == [0.5, 0.5, 0.125, 0.1]
    table = planted.rates(rows).set_index(["group", "kind"])
    assert table.loc[("masked", "all"), ["networks", "flagged", "called_masked"]].tolist() == [3, 2, 1]
    assert table.loc[("honest", "all"), ["networks", "flagged", "inconclusive"]].tolist() == [3, 1, 1]
    # Clopper and Pearson, closed forms of 2 of 3 and 0 of 1: the 2.5 % points of a beta distribution.
    hits = table.loc[("masked", "all")]
    assert hits.low == pytest.approx(0.0943, abs=1e-4) and hits.high == pytest.approx(0.9916, abs=1e-4)
    assert table.loc[("honest", "converted"), "high"] == pytest.approx(0.975)
    assert planted.names_of(rows[~rows.flagged].head(1)) == "loss in snnlib" and planted.names_of(rows[:0]) == "none"


def test_rows_are_made_once(artifacts, splits, profile, monkeypatch):
    rows = planted.planted_rows(_splits(splits), profile)
    assert set(rows.kind) == {"loss", "undefended"} and (rows.images == 6).all()
    monkeypatch.setattr(planted, "audit", lambda *_, **__: pytest.fail("a stored row is not made again"))
    pd.testing.assert_frame_equal(planted.planted_rows(_splits(splits), profile), rows)


def _splits(splits):
    from dataclasses import replace

    images = _images(60)
    three = ImageSet(images.images, torch.arange(60) % 3)
    return replace(splits, train=three, test=three)
