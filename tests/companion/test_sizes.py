"""Sizes: one table that is whole, the papers' numbers, sizes that grow, comparisons that are fair."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from snnlib.audit import EFFORTS
from snnlib.companion import paths, sizes
from snnlib.companion.measure.networks import Network, build_recipe
from snnlib.companion.ours.defences import DEFENCES
from snnlib.companion.ozdenizci2024.networks import OBJECTIVES, ann_network, end_to_end_network, finetune_recipe
from snnlib.companion.sizes import PROFILES, TABLE, conversion_size, get_profile
from snnlib.companion.verdicts.ozdenizci2024 import HEADLINE
from snnlib.errors import InputError

EMBEDDED = {"train": 500, "test": 100}
"""Images per class."""
BUILDERS = {
    "profile": get_profile,
    "conversion": conversion_size,
    "audit": sizes.audit_size,
    "own": sizes.own_size,
    "black_box": sizes.black_box_size,
    "further": sizes.further_size,
    "defences": sizes.defence_size,
    "adaptive": sizes.adaptive_size,
    "theory": sizes.theory_size,
    "events": sizes.event_size,
}
REPOSITORY = Path(__file__).resolve().parents[2]

each_size = pytest.mark.parametrize(
    "size", [conversion_size(name) for name in paths.PROFILE_NAMES], ids=paths.PROFILE_NAMES
)


def _size(count: int | None) -> float:
    return float("inf") if count is None else count


@pytest.mark.parametrize("key", TABLE)
def test_every_line_of_the_table_has_a_value_for_every_profile_and_belongs_to_a_size(key):
    assert isinstance(TABLE[key], tuple) and len(TABLE[key]) == len(paths.PROFILE_NAMES) == 4
    group, _, name = key.rpartition(".")
    for place, profile in enumerate(paths.PROFILE_NAMES):
        found = BUILDERS[group.removesuffix(".profile")](profile)
        found = found.profile if group.endswith(".profile") else found
        assert getattr(found, name) == TABLE[key][place], profile


def test_table_is_shown_with_a_column_per_profile():
    table = sizes.size_table()
    assert list(table.columns) == list(paths.PROFILE_NAMES) and list(table.index) == list(TABLE)
    assert table.loc["profile.epochs"].tolist() == list(TABLE["profile.epochs"])


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
@pytest.mark.parametrize("name", ["Quick", "", "full"])
def test_one_line_error_when_the_profile_is_unknown(build, name):
    message = f"unknown profile '{name}'; expected one of: smoke, quick, night, paper"
    with pytest.raises(InputError, match=message) as caught:
        build(name)
    assert "\n" not in str(caught.value)


def test_profile_comes_back_by_its_name_and_cannot_be_changed():
    assert [get_profile(name).name for name in paths.PROFILE_NAMES] == list(PROFILES) == list(paths.PROFILE_NAMES)
    assert all(conversion_size(name).profile.name == name for name in PROFILES)
    with pytest.raises(FrozenInstanceError):
        PROFILES["smoke"].epochs = 1


def _code_of_the_companion() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((REPOSITORY / "snnlib" / "companion").rglob("*.py")):
        if path != Path(sizes.__file__):
            yield path.name, ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for place, cell in enumerate(cells):
            if cell["cell_type"] == "code":
                yield f"{path.name}, cell {place}", ast.parse("".join(cell["source"]))


def _asks_for_a_profile_by_name(node: ast.AST) -> bool:
    """A comparison with the name of a profile, a `case` of it, or a table by names that is written on the spot."""
    match node:
        case ast.Compare() | ast.MatchValue():
            named = ast.walk(node)
        case ast.Subscript(value=ast.Dict(keys=named)):
            pass
        case _:
            return False
    return any(isinstance(each, ast.Constant) and each.value in paths.PROFILE_NAMES for each in named)


def test_what_a_profile_means_is_decided_in_the_table_alone():
    sample = ast.parse('a = 1 if profile == "paper" else 2\nb = {"quick": 3}[name]\nc = name in ("night", "paper")')
    assert sum(map(_asks_for_a_profile_by_name, ast.walk(sample))) == 3
    found = [
        f"{where}: {ast.unparse(node)}"
        for where, tree in _code_of_the_companion()
        for node in ast.walk(tree)
        if _asks_for_a_profile_by_name(node)
    ]
    assert not found, "\n".join(found)


def test_paper_has_the_numbers_of_the_authors_code():
    paper = get_profile("paper")
    assert (paper.time_steps, paper.epochs, paper.batch_size, paper.width) == (10, 100, 16, 64)
    assert (paper.learning_rate, paper.weight_decay, paper.schedule) == (1e-3, 1e-3, "constant")
    assert paper.subset == "whole"
    assert paper.train_per_class is paper.test_per_class is paper.attacked_per_class is None
    assert paper.depths == (18, 34, 50)


def test_no_size_shrinks_when_the_profile_grows():
    names = ("train_per_class", "test_per_class", "attacked_per_class", "inspected_per_class", "width", "time_steps")
    for small, large in zip(paths.PROFILE_NAMES, paths.PROFILE_NAMES[1:], strict=False):
        for name in (*names, "epochs", "steps", "bench_repeats"):
            assert _size(getattr(PROFILES[small], name)) <= _size(getattr(PROFILES[large], name)), (small, name)
        assert set(PROFILES[small].depths) <= set(PROFILES[large].depths)


NIGHT = paths.PROFILE_NAMES.index("night")
SMALLER_AT_NIGHT = {"conversion.adaptive_steps", "conversion.square_queries"}
"""Attacks beside the main one, on a hundred images of each class where quick has ten."""


CHAPTERS = ("conversion", "audit", "own", "black_box", "theory", "further", "defences", "events", "adaptive")


@pytest.mark.parametrize("name", CHAPTERS)
def test_no_number_of_a_chapter_shrinks_when_the_profile_grows(name):
    for key, values in TABLE.items():
        counted = all(value is None or type(value) is int for value in values)
        if key.rpartition(".")[0] == name and counted:
            kept = [value for place, value in enumerate(values) if place != NIGHT or key not in SMALLER_AT_NIGHT]
            assert list(map(_size, kept)) == sorted(map(_size, kept)), key


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_profile_can_run(profile):
    if profile.subset == "embedded":
        train, test = profile.train_per_class or EMBEDDED["train"], profile.test_per_class or EMBEDDED["test"]
        assert 2 <= train <= EMBEDDED["train"], "one image per class is held out"
        assert profile.attacked_per_class <= test <= EMBEDDED["test"]
    assert 6 in profile.eps_levels, "the headline eps is on every curve"
    assert list(profile.eps_levels) == sorted(set(profile.eps_levels))
    assert len(set(profile.seeds)) == len(profile.seeds)
    assert len(profile.seeds) >= 2 or profile.name == "quick", "one seed shows no spread"
    defended = sizes.defence_size(profile.name)
    assert set(defended.audited) <= set(defended.names) <= set(DEFENCES) and defended.effort in EFFORTS
    assert sizes.audit_size(profile.name).effort in EFFORTS and sizes.own_size(profile.name).effort in EFFORTS
    moving, held_out = sizes.event_size(profile.name).moving_per_class, EMBEDDED["train"] // 10
    assert moving <= EMBEDDED["train"] - held_out and moving // 6 <= held_out, "they move embedded images"
    for field in fields(profile):
        value = getattr(profile, field.name)
        assert isinstance(value, str | tuple | bool) or value is None or value > 0, field.name


def _fine_tuning(size):
    return build_recipe(Network("", size.network, {}, finetune_recipe(size)), size.profile, 0)


def _end_to_end(size, comparison):
    return build_recipe(end_to_end_network(comparison, size), size.profile, 0)


@each_size
def test_what_the_notebooks_of_the_conversion_ask_for_is_there(size):
    assert HEADLINE in size.eps_levels
    assert size.profile.time_steps in size.other_time_steps
    assert list(size.end_to_end_epochs) == ["equal steps", "equal time"]


@each_size
def test_equal_steps_are_equal(size):
    ours, rival = _fine_tuning(size), _end_to_end(size, "equal steps")
    assert (rival.epochs, rival.batch_size) == (ours.epochs, ours.batch_size)
    assert size.end_to_end_epochs["equal time"] > rival.epochs


@each_size
def test_rival_trains_on_the_same_objective_attack_and_images(size):
    ours, rival = _fine_tuning(size), _end_to_end(size, "equal time")
    for name in ("objective", "objective_parameters", "attack", "augmentation", "optimiser"):
        assert getattr(rival, name) == getattr(ours, name), name


@each_size
def test_only_robust_objectives_are_attacked_in_training(size):
    recipes = {name: build_recipe(ann_network(name, size), size.profile, 0) for name in OBJECTIVES}
    assert recipes.pop("natural").attack is None
    for recipe in recipes.values():
        assert recipe.attack["eps"] == 2 / 255 and recipe.attack["steps"] == size.inner_steps


def test_conversion_at_paper_size_is_the_authors_code():
    size = conversion_size("paper")
    ann = build_recipe(ann_network("trades", size), size.profile, 0)
    assert (ann.epochs, ann.batch_size, ann.learning_rate, ann.weight_decay) == (200, 64, 0.1, 5e-4)
    assert (ann.optimiser, ann.schedule, ann.augmentation) == ("sgd", "cosine-per-epoch", "crop-flip-cutout")
    assert ann.attack == {"name": "pgd", "eps": 2 / 255, "steps": 10, "loss": "kl", "start": "gaussian"}
    ours = _fine_tuning(size)
    assert (ours.epochs, ours.batch_size, ours.learning_rate, ours.weight_decay) == (60, 64, 1e-3, 1e-3)
    assert (ours.optimiser, ours.schedule, ours.augmentation) == ("sgd", "cosine-per-epoch", "crop-flip")
    assert (ours.objective, ours.objective_parameters) == ("consistency", {"beta": 2.0})
    assert ours.attack == {"name": "r_fgsm", "eps": 2 / 255, "loss": "kl"}
    rival = _end_to_end(size, "equal time")
    assert (rival.epochs, rival.learning_rate, rival.weight_decay) == (200, 0.1, 5e-4)
    assert (size.profile.width, size.profile.time_steps, size.network) == (64, 8, "vgg11")
    assert not size.calibration, "the defaults of calibrate are the paper's"
