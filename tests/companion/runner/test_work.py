"""The work list of a profile, and its executors: in this process, and in several that may die."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import pytest

from snnlib.companion.measure.networks import OutOfTime
from snnlib.companion.runner.work import Item, items_of, run_items, workers_of
from snnlib.errors import InputError


def item(name: str, *after: str) -> Item:
    return Item(name, ("training", 0, 0), 0, after)


CHAIN = [item("ann"), item("snn", "ann"), item("rows", "snn"), item("alone")]


def note(made: Item, folder: Path) -> str:
    """Appends to a file what was made, in one write; a worker in another process does it as well."""
    with open(folder / "made", "a", encoding="utf-8") as stream:
        stream.write(f"{made.name}\n")
    return "made"


def fail_at_snn(made: Item, folder: Path) -> str:
    if made.name == "snn":
        raise ValueError("no")
    return note(made, folder)


def die_once_at_snn(made: Item, folder: Path) -> str:
    if made.name == "snn" and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return note(made, folder)


def out_of_time_at_snn(made: Item, folder: Path) -> str:
    if made.name == "snn":
        raise OutOfTime("the time limit has passed")
    return note(made, folder)


def never() -> bool:
    return False


def made_in(folder: Path) -> list[str]:
    return (folder / "made").read_text(encoding="utf-8").split()


@pytest.mark.parametrize("workers", [0, 2])
def test_every_item_is_made_once_and_after_what_it_needs(tmp_path, workers):
    progress = run_items(CHAIN, workers, functools.partial(note, folder=tmp_path), never)
    made = made_in(tmp_path)
    assert sorted(made) == sorted(progress.done) == sorted(entry.name for entry in CHAIN)
    assert made.index("ann") < made.index("snn") < made.index("rows")


def test_a_failure_takes_along_what_needs_it_and_nothing_else(tmp_path, capsys):
    progress = run_items(CHAIN, 0, functools.partial(fail_at_snn, folder=tmp_path), never)
    assert progress.done == {"ann", "alone"}
    assert progress.failed == {"snn": "ValueError: no", "rows": "what it needs failed"}
    assert "FAILED snn: ValueError: no" in capsys.readouterr().out


def test_what_a_killed_worker_did_starts_again(tmp_path, capsys):
    progress = run_items(CHAIN, 2, functools.partial(die_once_at_snn, folder=tmp_path), never)
    assert progress.done == {"ann", "snn", "rows", "alone"} and not progress.failed
    assert "a worker died" in capsys.readouterr().out


def test_nothing_starts_once_time_is_up(tmp_path):
    progress = run_items(CHAIN, 0, functools.partial(note, folder=tmp_path), lambda: (tmp_path / "made").exists())
    assert made_in(tmp_path) == ["ann"] and progress.done == {"ann"} and not progress.failed


def test_an_item_that_runs_out_of_time_is_left_and_is_no_failure(tmp_path):
    progress = run_items(CHAIN, 0, functools.partial(out_of_time_at_snn, folder=tmp_path), never)
    assert progress.done == {"ann", "alone"} and not progress.failed


def test_the_list_has_every_network_before_its_rows_and_no_name_twice():
    items = items_of("smoke")
    names = [entry.name for entry in items]
    assert len(set(names)) == len(names) and {entry.place[0] for entry in items} == {"training", "attack"}
    assert all(names.index(needed) < place for place, entry in enumerate(items) for needed in entry.after)


@pytest.mark.parametrize("jobs", ["0", "2", "local", "local:", "local:0", "local:-1", "slurm"])
def test_unknown_jobs_are_one_line(jobs):
    with pytest.raises(InputError, match=r"--jobs is .*; expected 1 or local:N"):
        workers_of(jobs)


def test_jobs_are_processes_beside_this_one():
    assert workers_of("1") == 0 and workers_of("local:3") == 3
