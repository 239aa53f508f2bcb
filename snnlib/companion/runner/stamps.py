"""When is a notebook's result still good? A stamp per completed run, and the files that it must have left."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnlib.companion import paths
from snnlib.companion.measure.provenance import code_digest, package_digest
from snnlib.companion.measure.store import name_of, read_json, read_record
from snnlib.companion.report import claims, figures
from snnlib.companion.runner.series import Notebook
from snnlib.errors import InputError
from snnlib.files import sha256_of, write_atomic

OVERVIEW = "99"
"""The notebook that shows what the others left; every other one makes what it needs."""
UP_TO_DATE, OUT_OF_DATE, NOT_RUN, UNFINISHED = "up to date", "out of date", "not run", "unfinished"


@dataclass(frozen=True)
class Run:
    """A notebook with the parameters it gets in a profile, and the fingerprint of all that it depends on."""

    notebook: Notebook
    profile: str
    parameters: dict[str, Any]
    fingerprint: str

    @property
    def executed(self) -> Path:
        """Where the completed notebook lies."""
        return paths.runs_dir(self.profile) / "notebooks" / self.notebook.path.name

    @property
    def unfinished(self) -> Path:
        """Where the notebook lies while it runs, and after it failed."""
        return paths.runs_dir(self.profile) / "unfinished" / self.notebook.path.name

    @property
    def stamp(self) -> Path:
        return paths.runs_dir(self.profile) / "stamps" / f"{self.notebook.number}.json"


def make_runs(
    series: dict[str, Notebook], profile: str, parameters: dict[str, dict[str, Any]]
) -> dict[str, Run]:
    """One `Run` per notebook, in running order; `parameters` gives each number what it is started with."""
    runs: dict[str, Run] = {}
    for number, notebook in series.items():
        given = parameters[number]
        parts = {
            "code": notebook.code_hash,
            "parameters": {**notebook.parameters, **given},
            "package": package_digest(),
            "torch": importlib.metadata.version("torch"),
            "series": [run.fingerprint for run in runs.values()] if number == OVERVIEW else [],
        }
        runs[number] = Run(notebook, profile, given, name_of(parts))
    return runs


def state_of(run: Run) -> str:
    """One of "up to date", "out of date", "not run" and "unfinished"."""
    stamp = read_json(run.stamp)
    if stamp is None:
        return UNFINISHED if run.unfinished.is_file() else NOT_RUN
    same = (
        stamp.get("fingerprint") == run.fingerprint and run.executed.is_file() and stamp.get("left") == _left_by(run)
    )
    return UP_TO_DATE if same and _files_are_whole(run) else OUT_OF_DATE


def clear_stamp(run: Run) -> None:
    """Forget an earlier run before the notebook starts: from now on nothing of it counts as done."""
    run.stamp.unlink(missing_ok=True)
    figures.forget_outputs(run.profile, run.notebook.number)
    claims.forget_verdicts(run.profile, run.notebook.number)


def write_stamp(run: Run) -> None:
    """Declare the run complete: its figures, tables and verdicts are the ones that lie there now."""
    figures.remove_orphans(run.profile, run.notebook.number)
    stamp = {"fingerprint": run.fingerprint, "left": _left_by(run)}
    write_atomic(run.stamp, json.dumps(stamp, indent=1, sort_keys=True) + "\n")


def _left_by(run: Run) -> dict[str, dict[str, str]]:
    number = run.notebook.number
    return {
        "files": figures.outputs_of(run.profile, number),
        "verdicts": claims.verdicts_of(run.profile, number),
    }


def _files_are_whole(run: Run) -> bool:
    folder = paths.figures_dir(run.profile)
    expected = figures.outputs_of(run.profile, run.notebook.number)
    return all(
        (folder / name).is_file() and sha256_of(folder / name) == digest for name, digest in expected.items()
    )


def earlier_code(run: Run) -> tuple[int, int]:
    """How many of the stored results that a notebook used other code than today's made, and how many it used."""
    records = [_record_of(name) for name in figures.used_results(run.profile, run.notebook.number)]
    changed = [not path.is_file() or not _is_made_by_todays_code(path, path.stat().st_mtime_ns) for path in records]
    return sum(changed), len(changed)


def seconds_saved(run: Run, since: float) -> float:
    """What the results took that the notebook found here: made before `since` (seconds since the epoch), and not used
    by a notebook before it in the series, to whose time they belong."""
    profile, own = run.profile, run.notebook.number
    numbers = [path.stem for path in figures.used_path(profile, own).parent.glob("*.json")]
    before = {name for number in numbers if number < own for name in figures.used_results(profile, number)}
    found = [_record_of(name) for name in figures.used_results(profile, own) if name not in before]
    records = [read_record(path) for path in found if path.is_file() and path.stat().st_mtime < since]
    return sum(record["made"].get("seconds", 0.0) for record in records if record is not None)


def _record_of(result: str) -> Path:
    return paths.ARTIFACTS / f"{result}.json"


@functools.cache  # a start asks for a thousand of them after every notebook
def _is_made_by_todays_code(path: Path, changed: int) -> bool:
    """Of a record that was `changed` then."""
    record = read_record(path)
    try:
        return record is not None and record["made"]["code"] == code_digest(record["made"]["module"])
    except InputError:  # the module has another name today
        return False
