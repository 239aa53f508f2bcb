"""Work items: a profile's list, a user's own sweep, and the values of --set and --grid."""

from __future__ import annotations

import pytest
import torch

from snnlib.companion.measure.release import profile_of
from snnlib.companion.runner.cost import Training, Work, work_of
from snnlib.companion.runner.items import (
    function_of,
    items_of,
    own_items,
    own_table,
    points,
    read_axes,
    swept_items,
    work_behind,
)
from snnlib.companion.sizes import TABLE, get_profile
from snnlib.errors import InputError
from snnlib.models import released_card, released_names
from snnlib.models.released import FOLDER
from snnlib.tensor_files import read_tensors


def test_the_list_has_every_network_before_its_rows_and_no_name_twice():
    items = items_of("smoke")
    names = [item.name for item in items]
    assert len(set(names)) == len(names) == len({item.key for item in items})
    assert {item.call.rpartition(":")[2] for item in items} == {"make_network", "make_rows"}
    assert all(names.index(needed) < place for place, item in enumerate(items) for needed in item.after)


def test_the_list_has_every_training_and_every_attack_at_every_eps_for_every_seed():
    trainings, attacks = work_of("quick")
    found = [work_behind(item) for item in items_of("quick")]
    wanted = sum(len(training.profile.seeds) for training in trainings)
    wanted_rows = sum(len(work.attacks) * len(work.training.profile.seeds) for work in attacks)
    assert sum(isinstance(work, Training) for work, _ in found) == wanted
    assert sum(isinstance(work, Work) for work, _ in found) == wanted_rows
    assert len(found) == wanted + wanted_rows


def test_where_the_data_lie_does_not_change_what_an_item_is():
    assert [item.key for item in items_of("smoke", data_dir="/here")] == [item.key for item in items_of("smoke")]


def test_sets_and_grids_are_read_as_values_ranges_and_texts():
    axes = read_axes(["seed=0..3", "pool=avg"], ["lr=1e-3,1e-2", "depth=18,34"])
    assert axes == {"seed": [0, 1, 2, 3], "pool": ["avg"], "lr": [1e-3, 1e-2], "depth": [18, 34]}
    assert len(points(axes)) == 4 * 1 * 2 * 2 and points({}) == [{}]


@pytest.mark.parametrize(
    ("sets", "grids", "message"),
    [
        (["seed"], [], "--set 'seed'; expected key=value"),
        ([], ["lr=0.1,"], "--grid 'lr=0.1,'; expected key=value"),
        (["seed=1"], ["seed=1,2"], "seed was given before"),
        (["seed=9..0"], [], "range is '9..0'; expected a rising one"),
        (["seed=0..99999999"], [], "expected a rising one of at most"),
    ],
)
def test_what_is_no_axis_is_refused_in_one_line(sets, grids, message):
    with pytest.raises(InputError, match=message):
        read_axes(sets, grids)


def test_a_grid_of_too_many_points_is_refused_before_it_is_made():
    with pytest.raises(InputError, match="more than 1,000,000 points"):
        points({name: list(range(1000)) for name in "abcd"})


def test_a_sweep_over_sizes_has_every_point_and_leaves_the_table_as_it_was():
    before = dict(TABLE)
    axes = {"profile.width": [4, 8], "conversion.inner_steps": [1], "seed": [7]}
    items = swept_items("smoke", axes)
    assert dict(TABLE) == before and get_profile("smoke").seeds == (0, 1)
    assert {item.arguments["seed"] for item in items} == {7}
    widths = {work_behind(item)[0].profile.width for item in items if "10" in str(work_behind(item)[0].notebook)}
    assert widths == {4, 8} and any(item.name.endswith("width 4, conversion.inner_steps 1") for item in items)
    assert all(needed in {item.name for item in items} for item in items for needed in item.after)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"profile.colour": [1]}, "size 'profile.colour' does not exist"),
        ({"profile.width": ["wide"]}, "size profile.width is 'wide'; expected int"),
        ({"profile.learning_rate": ["fast"]}, "expected float"),
    ],
)
def test_a_size_that_does_not_exist_or_fit_is_refused(axes, message):
    with pytest.raises(InputError, match=message):
        swept_items("smoke", axes)


OWN = """
calls = []
def measure(seed, lr):
    calls.append(seed)
    return {"score": seed * lr, "kind": "toy"}
def bare(x):
    return 2 * x
def wrong():
    return {"model": object()}
"""


@pytest.fixture
def own(home):
    path = home / "own.py"
    path.write_text(OWN, encoding="utf-8")
    return path


def test_a_users_function_is_called_once_for_every_point_and_its_answers_are_a_table(own):
    items = own_items(f"{own}:measure", {"seed": [1, 2], "lr": [0.5, 1.0]})
    assert [item.name for item in items][:2] == ["seed 1, lr 0.5", "seed 1, lr 1.0"]
    assert items[0].make() == items[0].make() == "score 0.5, kind toy"
    assert own_table(items).to_dict("list") == {
        "seed": [1, 1, 2, 2], "lr": [0.5, 1.0, 0.5, 1.0], "score": [0.5, 1.0, 1.0, 2.0], "kind": ["toy"] * 4,
    }  # fmt: skip
    assert function_of(f"{own}:measure").__globals__["calls"] == [1, 1, 2, 2]
    assert own_items(f"{own}:bare", {"x": [3]})[0].make() == "value 6"


def test_a_raised_version_makes_a_users_results_anew(own):
    item = own_items(f"{own}:measure", {"seed": [1], "lr": [0.5]})[0]
    item.make()
    function_of(f"{own}:measure").version = 2
    item.make()
    assert function_of(f"{own}:measure").__globals__["calls"] == [1, 1]
    function_of.cache_clear()


def test_what_a_users_function_may_not_say_is_refused(own):
    with pytest.raises(InputError, match="returned model as object; expected plain values"):
        own_items(f"{own}:wrong", {})[0].make()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("measure", "expected file.py:function or module:function"),
        ("nowhere.py:measure", "nowhere.py is no file"),
        ("no_such_module_here:f", "expected a module that can be imported"),
        ("json:nothing", "json has no function nothing"),
    ],
)
def test_a_function_that_is_not_there_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        own_items(call, {})


def test_the_package_has_every_network_of_nights_list_in_half_precision_and_below_60_mb():
    wanted = {(training.network.label, seed) for training in work_of("night")[0] for seed in training.profile.seeds}
    cards = [released_card(name) for name in released_names()]
    wanted.add(("SEW-ResNet-18 on events, max pool", 0))  # on which notebook 17 shows its attacks
    assert sorted((card["label"], card["seed"]) for card in cards) == sorted(wanted)
    assert {profile_of(name) for name in released_names()} == {"night"}
    assert {card["arguments"]["data"]["subset"] for card in cards} == {"whole"}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 60_000_000
    for name in released_names():
        tensors, _ = read_tensors(FOLDER / f"{name}.safetensors")
        assert {value.dtype for value in tensors.values() if value.is_floating_point()} == {torch.float16}
