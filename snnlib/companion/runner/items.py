"""Work items: what a profile, or a user's own sweep, has to make, and in which order.

An item names a function and its arguments in plain values, so that any process on any machine can make it. What it
makes goes to the store under its own arguments; the item itself carries nothing home but a few words.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from snnlib.companion.measure.attacked import attacked
from snnlib.companion.measure.networks import Network, TrainedNetwork, attacked_images, trained
from snnlib.companion.measure.release import release, released_keys
from snnlib.companion.measure.store import name_of, stored
from snnlib.companion.measure.time_limit import seconds_left
from snnlib.companion.ozdenizci2024 import networks as conversion
from snnlib.companion.runner.cost import work_of
from snnlib.companion.runner.series import SETTING_READERS
from snnlib.companion.sizes import TABLE, changed, conversion_size
from snnlib.errors import InputError

HERE = __name__
MOST_ITEMS = 1_000_000
SEEDS = ("profile.seeds", "conversion.profile.seeds")
TABLE_BEFORE = dict(TABLE)


@dataclass(frozen=True)
class Item:
    """One result to make: `call`, "module:function" or "file.py:function", with `arguments` and `how`, plain values.

    arguments say what is made, how (folder of the data, say) does not. after: names of the items it needs.
    """

    name: str
    call: str
    arguments: dict[str, Any]
    after: tuple[str, ...] = ()
    how: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def key(self) -> str:
        """The same in every process that would make the same."""
        return name_of({"call": self.call, "arguments": self.arguments})

    def make(self) -> str:
        """Make it, or find it stored; returns a few words on it."""
        return str(function_of(self.call)(**self.arguments, **self.how))


@functools.lru_cache
def function_of(call: str) -> Callable:
    """The function of "module:function" or "file.py:function". Errors: InputError where there is none."""
    place, _, name = call.rpartition(":")
    if not place or not name:
        raise InputError(f"call is {call!r}; expected file.py:function or module:function")
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise InputError(f"{place} is no file; expected a Python file with the function {name}")
        spec = importlib.util.spec_from_file_location(f"sweep_{Path(place).stem}", place)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look there
        spec.loader.exec_module(module)
    else:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise InputError(f"call is {call!r}; expected a module that can be imported: {error}") from None
    if not callable(getattr(module, name, None)):
        raise InputError(f"{place} has no function {name}; expected one to call")
    return getattr(module, name)


def items_of(
    profile_name: str, sizes: dict[str, Any] | None = None, data_dir: str | None = None, releases: bool = False
) -> list[Item]:
    """All items of a profile, those first that others wait for: trainings seed by seed, then attacks seed by seed.

    sizes: other values for rows of the table of sizes; they stand in the items' names.
    """
    sizes, how = _plain(sizes or {}), {"data_dir": data_dir}
    trainings, attacks = _work_of(profile_name, json.dumps(sizes))
    tail = "".join(f", {key.removeprefix('profile.')} {value}" for key, value in sizes.items() if key not in SEEDS)
    found = []

    def add(kind: str, name: str, number: int, seed: int, after: tuple[str, ...], level: int | None = None) -> None:
        arguments = {"profile": profile_name, "number": number, "seed": seed}
        arguments |= ({} if level is None else {"level": level}) | ({"sizes": sizes} if sizes else {})
        more = {"releases": True} if releases and kind == "network" else {}
        item = Item(name + tail, f"{HERE}:make_{kind}", arguments, tuple(one + tail for one in after), how | more)
        found.append(((kind != "network", seed, bool(after), number, level or 0), item))

    for number, training in enumerate(trainings):
        for seed in training.profile.seeds:
            start = () if training.ann is None else (_name(training.ann, seed),)
            add("network", _name(training.network, seed), number, seed, start)
    for number, work in enumerate(attacks):
        for seed in work.training.profile.seeds:
            needs = _name(work.training.network, seed)
            for level, attack in enumerate(work.attacks):
                label = f"{needs}: {work.label.partition(', eps')[0]}, eps {255 * attack.eps:g}"
                add("rows", label, number, seed, (needs,), level)
    return [item for _, item in sorted(found, key=lambda pair: pair[0])]


def _name(network: Network, seed: int) -> str:
    return f"{network.label}, seed {seed}"


@functools.cache
def _work_of(profile_name: str, sizes: str) -> tuple[list, list]:
    with changed(_as_in_table(json.loads(sizes))):
        return work_of(profile_name)


def work_behind(item: Item) -> tuple[Any, int | None]:
    """The `Training`, or the `Work` and the number of its level, of a profile's item."""
    given = item.arguments
    trainings, attacks = _work_of(given["profile"], json.dumps(given.get("sizes", {})))
    level = given.get("level")
    return (trainings if level is None else attacks)[given["number"]], level


def make_network(
    profile: str,
    number: int,
    seed: int,
    sizes: dict | None = None,
    data_dir: str | None = None,
    releases: bool = False,
) -> str:
    """Train a network of the profile, or find it trained. Raises OutOfTime."""
    seconds_left()
    network = network_of(profile, number, seed, json.dumps(sizes or {}), data_dir)
    best = network.history.epochs[network.history.best_epoch - 1]["validation_accuracy"]
    named = release(network, profile) if releases and network.key not in released_keys() else ""
    return f"validation {best:.1%} {named}".rstrip()


def make_rows(
    profile: str, number: int, seed: int, level: int, sizes: dict | None = None, data_dir: str | None = None
) -> str:
    """Attack a network of the profile at one eps, or find its rows. Raises OutOfTime."""
    seconds_left()
    text = json.dumps(sizes or {})
    trainings, attacks = _work_of(profile, text)
    work = attacks[number]
    size = work.training.profile
    network = network_of(profile, trainings.index(work.training), seed, text, data_dir)
    images = attacked_images(size, network.splits)
    rows = attacked(network, [work.attacks[level]], images, size.attack_batch_size)
    broken = rows.groupby("sample").success.any().mean()
    return f"{100 * (1 - broken):.1f} % of {len(images)} left"


@functools.lru_cache(maxsize=8)
def network_of(profile: str, number: int, seed: int, sizes: str, data_dir: str | None) -> TrainedNetwork:
    """The network that this training of `work_of` makes, or what is stored of it."""
    training = _work_of(profile, sizes)[0][number]
    if training.ann is None:
        return trained(training.network, training.profile, seed, data_dir)
    with changed(_as_in_table(json.loads(sizes))):
        size = conversion_size(profile)
    return conversion.finetuned(training.objective, size, seed, data_dir, training.how)


@dataclass(frozen=True)
class Own:
    """A user's function, named by its file, its name and its attribute `version` (1 where it has none)."""

    call: str

    @property
    def key(self) -> str:
        version = getattr(function_of(self.call), "version", 1)
        return f"{self.call}, version {version}"


@stored("sweep_rows")
def own_row(own: Own, arguments: dict[str, Any]) -> pd.DataFrame:
    """One row: what a user's function says for these arguments."""
    said = function_of(own.call)(**arguments)
    said = said if isinstance(said, dict) else {"value": said}
    if wrong := [name for name, value in said.items() if not isinstance(value, str | int | float | bool | None)]:
        raise InputError(f"{own.call} returned {wrong[0]} as {type(said[wrong[0]]).__name__}; expected plain values")
    return pd.DataFrame([arguments | said])


def make_own(call: str, arguments: dict[str, Any]) -> str:
    """Call a user's function, or find what it said."""
    row = own_row(Own(call), arguments).iloc[0].to_dict()
    said = {name: value for name, value in row.items() if name not in arguments}
    shown = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in said.items())
    return ", ".join(shown) or "nothing said"


def own_items(call: str, axes: dict[str, list]) -> list[Item]:
    """One item for every combination of the axes' values, for the function `call`. Errors: InputError."""
    place, _, name = call.rpartition(":")
    call = f"{Path(place).resolve()}:{name}" if place.endswith(".py") else call
    function_of(call)
    return [
        Item(_point(point) or name, f"{HERE}:make_own", {"call": call, "arguments": point})
        for point in points(axes)
    ]


def _point(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def own_table(items: Iterable[Item]) -> pd.DataFrame:
    """What is stored of a user's sweep: a row per item."""
    given = [item.arguments for item in items]
    return pd.concat([own_row(Own(one["call"]), one["arguments"]) for one in given], ignore_index=True)


def swept_items(profile_name: str, axes: dict[str, list], **how: Any) -> list[Item]:
    """The items of a profile for every combination of sizes; the axis "seed" gives the seeds of all trainings."""
    seeds = {key: axes["seed"] for key in SEEDS} if "seed" in axes else {}
    found = [
        item
        for point in points({key: values for key, values in axes.items() if key != "seed"})
        for item in items_of(profile_name, _read_sizes(point) | seeds, **how)
    ]
    return list({item.name: item for item in found}.values())


def points(axes: dict[str, list]) -> list[dict[str, Any]]:
    """Every combination of the axes' values. Errors: InputError for more than a million."""
    if math.prod(map(len, axes.values())) > MOST_ITEMS:
        raise InputError(f"the grid has more than {MOST_ITEMS:,} points; expected fewer; sweep in parts")
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def read_axes(sets: Sequence[str], grids: Sequence[str]) -> dict[str, list]:
    """`--set key=value` (or a range of whole numbers, 0..9) and `--grid key=a,b,c`: the values of every key.

    Values are read as Python's, else taken as text. Errors: InputError for a text without "=", or a key given twice.
    """
    axes: dict[str, list] = {}
    texts = [("--set", text, [text.partition("=")[2]]) for text in sets]
    texts += [("--grid", text, text.partition("=")[2].split(",")) for text in grids]
    for option, text, values in texts:
        key, separator, _ = text.partition("=")
        if not separator or not key or "" in values:
            raise InputError(f"{option} {text!r}; expected key=value, such as seed=0..9 or lr=1e-3,1e-2")
        if key in axes:
            raise InputError(f"{option} {text!r}; {key} was given before; give all its values at once")
        axes[key] = [value for each in values for value in _expanded(each)]
    return axes


def _expanded(text: str) -> list:
    if not (found := re.fullmatch(r"(\d+)\.\.(\d+)", text)):
        return [SETTING_READERS[type(None)](text)]
    first, last = int(found[1]), int(found[2])
    if last < first or last - first >= MOST_ITEMS:
        raise InputError(f"range is {text!r}; expected a rising one of at most {MOST_ITEMS:,} numbers, such as 0..9")
    return list(range(first, last + 1))


def _read_sizes(point: dict[str, Any]) -> dict[str, Any]:
    """The point, each value of the type that the table has. Errors: InputError."""
    with changed(point):
        for key, value in point.items():
            usual = next((kept for kept in TABLE_BEFORE[key] if kept is not None), value)
            fits = isinstance(value, int | float) if isinstance(usual, float) else isinstance(value, type(usual))
            if not fits and not (value is None and None in TABLE_BEFORE[key]):
                expected = type(usual).__name__
                raise InputError(f"size {key} is {value!r}; expected {expected}, such as {usual!r}")
    return point


def _plain(sizes: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in sizes.items()}


def _as_in_table(sizes: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()}
