"""Recompute stored rows from a released network, and say whether they are equal:

    python -m snnlib.companion.reproduce ann-trades-night-0

NAME is a released network's name or key. Of the attacks whose rows are in `artifacts/rows`, or published in `figures`,
the one that took least time is run again, or `--all`. Rows of at most 100 test images of each class need no more than
the embedded images; others, and those of validation images, which come last, need `--data-dir`.
Exit code 0: equal; 1: not; 2: nothing to compare with.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from snnlib.commands import OneLineParser, exit_code
from snnlib.companion import paths
from snnlib.companion.measure.archive import published_results
from snnlib.companion.measure.attacked import Attack, _rows
from snnlib.companion.measure.networks import Network, TrainedNetwork
from snnlib.companion.measure.release import profile_of, released_keys
from snnlib.companion.measure.rows import robust_accuracy
from snnlib.companion.measure.store import ROWS, read_record
from snnlib.companion.sizes import PROFILES
from snnlib.data import ImageSet, load_images
from snnlib.errors import InputError
from snnlib.models import released, released_card
from snnlib.runtime import apply_process_settings, default_device
from snnlib.training import History

BATCH = 50
COMPARED = ["sample", "surrogate", "success", "first_successful_step"]


def main(arguments: list[str] | None = None) -> int:
    """Exit code: see the module."""
    parser = OneLineParser(prog="python -m snnlib.companion.reproduce", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="name or key of a released network")
    parser.add_argument("--all", action="store_true", help="every stored attack, not the quickest alone")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="folder with whole CIFAR-10, or for its download")
    return exit_code(lambda: reproduce(**vars(parser.parse_args(arguments))))


def reproduce(name: str, *, all: bool = False, data_dir: Path | None = None) -> int:
    """Print a line for each row set, 0 where all are equal, else 1. Errors: InputError where no rows are stored."""
    apply_process_settings()
    name = released_keys().get(name, name)
    network, profile = as_trained(name, data_dir), profile_of(name)
    found = stored_rows(network.key)
    if not found:
        folder = paths.ARTIFACTS / "rows"
        raise InputError(
            f"no rows of {name} are published, nor in {folder}; expected some; "
            f"./run_all.sh --profile {profile} makes them"
        )
    equal = [check(network, record) for record in (found if all else found[:1])]
    if not (min(equal) or PROFILES[profile].rounded):
        print("this profile was measured before the weights were rounded to half precision for release")
    return int(not min(equal))


def as_trained(name: str, data_dir: Path | None = None) -> TrainedNetwork:
    """The released network as the measurements take one, with the embedded images where no folder has all.

    Errors: InputError for an unknown name, and for a folder without the data set.
    """
    card, model = released_card(name), released(name)
    data = card["arguments"]["data"]
    if data["subset"] == "whole" and data_dir is None:
        data = {"name": data["name"]}  # its test images are the first of the whole set's, class by class
    splits, device = load_images(**data, data_dir=data_dir), default_device()
    history = History((), True, None, None)
    network = Network(card["label"], model.config["name"])
    return TrainedNetwork(network, card["seed"], model.to(device), history, card["key"], splits, str(device))


def stored_rows(key: str) -> list[dict]:
    """The rows of this network in `artifacts`, else the published ones: quickest first, parts of the images last.

    Not those of attacks transferred from another network.
    """
    for records in (kept_rows(key), *map(published_results, paths.PROFILE_NAMES)):
        mine = [each for each in records if each["arguments"]["network"] == key and "source" not in each["arguments"]]
        if mine:
            return sorted(mine, key=_quickest)
    return []


def _quickest(record: dict) -> tuple:
    """Test images first, which the embedded ones may stand for, and whole sets before parts."""
    arguments = record["arguments"]
    return "split" in arguments, "samples" in arguments, record["made"]["seconds"]


def kept_rows(key: str) -> list[dict]:
    """What `artifacts/rows` holds of this network: the record of every result, and its `table`."""
    records = [(path, read_record(path)) for path in sorted((paths.ARTIFACTS / "rows").glob("*.json"))]
    return [
        {**record, "table": ROWS.read(path.with_suffix(ROWS.suffix))}
        for path, record in records
        if record and record["arguments"]["network"] == key
    ]


def check(network: TrainedNetwork, record: dict) -> bool:
    """Run one stored attack again, print both robust accuracies, and say whether every row is equal."""
    arguments, before = record["arguments"], record["table"]
    attack = Attack.of(arguments["attack"])
    split = arguments.get("split", "test")
    images = images_of(arguments["images"], getattr(network.splits, split), before)
    batch = arguments.get("batch_norm_batch")
    again = _rows.__wrapped__(network, attack, images, batch or BATCH, batch, arguments.get("samples"), split=split)
    same = again[COMPARED].reset_index(drop=True).equals(before[COMPARED].astype(again[COMPARED].dtypes))
    shares = [f"{100 * robust_accuracy(rows).robust_accuracy.item():.2f} %" for rows in (before, again)]
    print(
        f"{'equal' if same else 'NOT EQUAL'}: {attack.name} at {255 * attack.eps:g}/255, {attack.threat.name}, "
        f"{before['sample'].nunique()} images: robust accuracy {shares[0]} stored, {shares[1]} now"
    )
    if not same:
        fallen = [rows.groupby("sample")["success"].any() for rows in (before, again)]
        there = f"{record['made']['device']}, torch {record['made']['torch']}"
        print(f"  {fallen[0].ne(fallen[1]).sum()} images fell in one of the two alone; the stored rows are of {there}")
    return same


def images_of(key: str, given: ImageSet, rows: pd.DataFrame) -> ImageSet:
    """Those of `given` with this key: all, or the first of each class. Errors: InputError where neither is it."""
    per_class = range(1, 1 + len(given) // len(given.labels.unique()))
    likely = rows["sample"].nunique() // len(given.labels.unique())
    for count in sorted(per_class, key=lambda number: abs(number - likely)):
        if (images := given.first_per_class(count)).key == key:
            return images
    if given.key == key:
        return given
    raise InputError(
        f"the rows are of images {key}; expected the first of each class of the {len(given)} images at hand; "
        "give --data-dir, a folder with the whole CIFAR-10 or for its download, or make the rows anew"
    )


if __name__ == "__main__":
    sys.exit(main())
