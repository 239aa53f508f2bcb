"""Networks, attacks and pictures of the chapter."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from snnlib.companion.luu2025 import networks as luu2025
from snnlib.companion.luu2025.networks import NETWORKS, Examples
from snnlib.companion.luu2025.tables import KEPT, competitor_table, recipe_beside_authors
from snnlib.companion.measure.attacked import AUTHORS, AUTHORS_DRIFTING, IMAGE, IMAGE_SMOOTH, Attack
from snnlib.companion.measure.networks import build_network, build_recipe, trained
from snnlib.companion.published import load_reference
from snnlib.companion.sizes import PROFILES
from snnlib.data import ImageSet
from snnlib.encoding import DirectEncoder, PhaseEncoder
from snnlib.models.blocks import SEWBlock, SpikingBlock


@pytest.fixture
def item(artifacts, profile):
    return trained(NETWORKS["sew_max"], profile, 0)


@pytest.mark.parametrize(
    "key, pool, block, encoder",
    [
        ("sew_max", nn.MaxPool2d, SEWBlock, PhaseEncoder),
        ("sew_avg", nn.AvgPool2d, SEWBlock, PhaseEncoder),
        ("spiking_max", nn.MaxPool2d, SpikingBlock, PhaseEncoder),
        ("defended", nn.MaxPool2d, SEWBlock, DirectEncoder),
    ],
)
@pytest.mark.parametrize("profile_name", PROFILES)
def test_every_network_is_built_as_its_label_says(key, pool, block, encoder, profile_name):
    profile = PROFILES[profile_name]
    with torch.device("meta"):
        model = build_network(NETWORKS[key], profile, 10, seed=0)
    assert type(model.body.pool) is pool and type(model.body.layer1[0]) is block
    assert type(model.encoder) is encoder
    assert model.encoder.time_steps == (4 if key == "defended" else profile.time_steps)
    assert model.body.conv1.kernel_size == (7, 7)
    recipe = build_recipe(NETWORKS[key], profile, seed=0)
    assert (recipe.objective == "adversarial") == (recipe.attack is not None) == (key == "defended")


def test_labels_tell_the_networks_apart():
    labels = [luu2025.network(key, depth).label for key in NETWORKS for depth in (18, 34, 50)]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("key", NETWORKS)
def test_depth_stands_in_label_and_name_when_it_changes(key):
    base, deep = NETWORKS[key], luu2025.network(key, 34)
    assert luu2025.network(key) == base
    assert deep.name == base.name.removesuffix("18") + "34"
    assert "-34," in deep.label and "18" not in deep.label
    assert (deep.model, deep.recipe) == (base.model, base.recipe)
    with torch.device("meta"):
        assert len(build_network(luu2025.network(key, 50), PROFILES["smoke"], 10, 0).body.layer3) == 6


def test_attacks_carry_the_numbers_of_the_authors_code():
    assert luu2025.authors_fgsm(AUTHORS) == Attack("fgsm", 6 / 255, AUTHORS)
    assert luu2025.authors_pgd(AUTHORS) == Attack("pgd", 6 / 255, AUTHORS, options={"steps": 7, "step_size": 0.01})
    quick = PROFILES["quick"]
    levels = len(quick.eps_levels)
    authors, images = (luu2025.curve_attacks(quick, threat) for threat in (AUTHORS, IMAGE))
    assert [round(255 * attack.eps) for attack in authors] == [*quick.eps_levels] * 2
    assert [attack.name for attack in authors] == ["fgsm"] * levels + ["pgd"] * levels
    assert {attack.threat for attack in authors} == {AUTHORS} and {attack.threat for attack in images} == {IMAGE}
    steps = [{attack.options["steps"] for attack in attacks[levels:]} for attacks in (authors, images)]
    assert steps == [{7}, {20}]
    assert luu2025.authors_pgd(AUTHORS) in authors, "the headline lies on the curve, so it is attacked once"
    assert luu2025.strong_pgd(quick) in images


def test_headline_is_part_of_the_curves(item, profile, calls):
    curve = luu2025.curve_rows(item, profile)
    assert calls["rows"] == 2 * 2 * len(profile.eps_levels)
    headline = luu2025.headline_rows(item, profile)
    assert calls["rows"] == 2 * 2 * len(profile.eps_levels)
    assert len(headline) == 2 * 2 * 6
    assert len(headline.merge(curve, on=list(headline.columns.drop(["step_size"])))) == len(headline)


def test_ladder_has_every_threat_model_that_the_encoder_allows(artifacts, profile, item):
    ladder = luu2025.ladder_rows(item, profile)
    assert list(ladder.threat_model.unique()) == [threat.name for threat in luu2025.LADDER]
    assert set(ladder.attack) == {"random_noise", "fgsm", "pgd"} and ladder.eps.nunique() == 1
    surrogates = ladder[ladder.attack == "pgd"].groupby("threat_model").surrogate.unique().map(set).to_dict()
    assert surrogates.pop("image") == {"atan(alpha=2)", *luu2025.OTHER_SURROGATES}
    assert set().union(*surrogates.values()) == {"atan(alpha=2)"}
    noisy = set(ladder[ladder.attack == "random_noise"].threat_model)
    assert noisy == {threat.name for threat in luu2025.LADDER} - {AUTHORS_DRIFTING.name}
    steps = ladder[ladder.attack == "pgd"].groupby("space").steps.unique().map(list).to_dict()
    assert steps == {"encoded": [7], "image": [profile.steps]}
    direct = trained(luu2025.network("defended"), profile, 0)
    assert IMAGE_SMOOTH.name not in set(luu2025.ladder_rows(direct, profile).threat_model)


@pytest.mark.parametrize("measure", ["operations", "inputs"])
def test_gradients_are_measured_once_per_mode(item, profile, monkeypatch, measure):
    name = "gradient_by_operation" if measure == "operations" else "input_gradient_measures"
    original, seen = getattr(luu2025, name), []

    def counting(model, images, labels, **options):
        seen.append((options["batch_norm"], labels.tolist()))
        return original(model, images, labels, **options)

    monkeypatch.setattr(luu2025, name, counting)
    tables = {}
    for mode in ("eval", "train", "eval"):
        if measure == "operations":
            tables[mode] = luu2025.operation_rows(item, profile, mode)
        else:
            tables[mode] = luu2025.input_rows(item, profile, "image", mode)
    labels = [0, 1, 2] if measure == "operations" else [0, 1, 2, 0, 1, 2]
    assert seen == [("eval", labels), ("train", labels)], "3 inspected, 6 attacked images"
    assert set(tables["train"].batch_norm) == {"train"} and set(tables["train"].seed) == {0}
    assert not tables["eval"].drop(columns="batch_norm").equals(tables["train"].drop(columns="batch_norm"))


def test_pictures_of_both_spaces_are_images(item, splits):
    batch = splits.test.take(range(4))
    for threat in (AUTHORS, IMAGE):
        examples = luu2025.attacked_examples(item, batch, luu2025.authors_fgsm(threat))
        assert examples.pictures.shape == (4, 3, 16, 16)
        assert examples.pictures.min() >= 0 and examples.pictures.max() <= 1
        assert torch.equal(examples.result.success, examples.predicted != batch.labels)
        assert not item.model.training
    assert (examples.pictures - batch.batch(slice(None))).abs().max() <= 6 / 255 + 1e-6


def _made_up_examples(threat, adversarial, pictures, linf=(0.1, 0.2)):
    result = SimpleNamespace(adversarial=adversarial, success=torch.tensor([True, False]))
    result.linf, result.l2 = torch.tensor(linf), torch.tensor([0.3, 0.4])
    return Examples(Attack("fgsm", 0.25, threat), result, pictures, torch.tensor([2, 1]))


def test_pixel_levels_are_those_counted_by_hand():
    """Two pixels of level 128 (bits 10000000), eps 0.25; the attack left the second one alone."""
    encoder = PhaseEncoder(8)
    item = SimpleNamespace(model=SimpleNamespace(encoder=encoder))
    batch = ImageSet(torch.full((2, 1, 1, 1), 128, dtype=torch.uint8), torch.tensor([0, 0]))
    image = batch.batch(slice(None))
    first_only = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)

    move = 0.25 * torch.tensor([-1.0, 1, 0, 0, 0, 0, 0, 0]).view(8, 1, 1, 1, 1)
    picture = image - 16 / 255 * first_only
    examples = _made_up_examples(AUTHORS, encoder(image) + move * first_only, picture, linf=[0.25, 0.0])
    levels = luu2025.pixel_levels(item, batch, examples)
    assert (levels["nominal_eps"], levels["images_moved"]) == (63.75, 1)
    assert levels["may_rise"] == pytest.approx(0.25 * 127, rel=1e-5), "seven bits may rise: 0.25 · (64 + ... + 1)"
    assert levels["may_fall"] == pytest.approx(0.25 * 128, rel=1e-5), "one bit may fall"
    assert levels["mean_move"] == pytest.approx(16, rel=1e-4), "over the pixel that was moved"
    assert levels["mean_of_largest_moves"] == pytest.approx(16, rel=1e-4)
    assert levels["bits_flipped_per_pixel"] == 0, "0.75 still reads 1, 0.25 still reads 0"
    assert levels["linf_of_the_code"] == 0.25

    darker = image - 1 / 255 * first_only
    levels = luu2025.pixel_levels(item, batch, _made_up_examples(IMAGE, darker, darker, linf=[1 / 255, 0.0]))
    assert levels["mean_move"] == pytest.approx(1, rel=1e-3)
    assert levels["bits_flipped_per_pixel"] == 8, "127 is 01111111"
    assert levels["linf_of_the_code"] == 1
    assert levels["may_rise"] == pytest.approx(63.75) and levels["may_fall"] == pytest.approx(63.75)


@pytest.mark.parametrize(
    "predicted, labels, count, chosen",
    [
        ([0, 1, 2], [0, 1, 2], 3, [0, 1, 2]),
        ([1, 0, 1, 2], [0, 0, 1, 2], 3, [1, 2, 3]),
        ([1, 1, 1, 2], [0, 0, 1, 2], 3, [0, 2, 3]),
        ([1, 1, 1, 2], [0, 0, 1, 2], 2, [2, 3]),
        ([0, 0], [0, 0], 5, [0]),
    ],
)
def test_shown_images_are_of_different_classes_and_right_where_possible(predicted, labels, count, chosen):
    assert luu2025.one_per_class(torch.tensor(predicted), torch.tensor(labels), count) == chosen


def test_example_rows_name_the_classes():
    batch = ImageSet(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 1]))
    examples = _made_up_examples(IMAGE, None, None)
    rows = luu2025.example_rows(examples, batch, torch.tensor([1, 1]), [1, 0], ("cat", "dog", "frog"))
    assert rows.position.tolist() == [1, 0]
    assert rows.label.tolist() == ["dog", "cat"]
    assert rows.without_attack.tolist() == ["dog", "dog"]
    assert rows.under_attack.tolist() == ["dog", "frog"]
    assert rows.success.tolist() == [False, True]
    assert rows.linf.tolist() == pytest.approx([0.2, 0.1])


def test_tables_ask_for_every_depth_and_seed(profile, monkeypatch):
    asked = []
    monkeypatch.setattr(luu2025, "trained", lambda network, _, seed, data_dir: asked.append((network.label, seed)))
    luu2025.table_networks(PROFILES["paper"])
    assert len(asked) == len(set(asked)) == (3 * 3 + 1) * 3
    asked.clear()
    luu2025.trained_networks(profile, ("sew_max", "defended"))
    assert asked == [(NETWORKS[key].label, seed) for key in ("sew_max", "defended") for seed in (0, 1)]


def test_every_number_of_the_competitors_is_shown():
    published, table = load_reference("competitors"), competitor_table()
    cells = " ".join(table[["clean", "FGSM", "PGD", "other attacks"]].to_numpy().flatten())
    numbers = re.findall(r"(?<![\w-])[0-9.]+", re.sub(r"[0-9]+: ", "", cells))
    assert sorted(map(float, numbers)) == sorted(published.value)
    assert set(table.source) == set(published.source)


def test_every_setting_of_the_authors_has_ours_beside_it(item, profile):
    table = recipe_beside_authors(item, profile).set_index("setting")["this profile"]
    assert table.index.is_unique
    assert [table[name] for name in ("time steps", "epochs", "batch size", "channels after the stem")] == [
        "4",
        "2",
        "12",
        "4",
    ]
    assert table["data set"].endswith("24 images to train on") and table["validation split"].startswith("9 ")
    assert set(KEPT) <= set(load_reference("luu2025_setup").item), "names of the reference table"
