"""Run the numbered notebooks of a profile, only where their result is out of date.

`run_all.sh --help` lists the options. Exit code: 0 all is well, 1 a notebook failed, 2 an option is
wrong, 130 interrupted. A run that was killed continues where it stopped when it is started again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from snnlib import checks
from snnlib.commands import exit_code
from snnlib.companion import paths
from snnlib.companion.measure.store import read_json
from snnlib.companion.measure.time_limit import OutOfTime, is_out_of_time, set_time_limit
from snnlib.companion.report import figures
from snnlib.companion.runner.apart import Apart, Here, ProcessDied, Processes, ended
from snnlib.companion.runner.execute import NotebookFailed, clock, execute
from snnlib.companion.runner.options import parse_arguments
from snnlib.companion.runner.series import Notebook, convert_setting, load_series
from snnlib.companion.runner.stamps import (
    UP_TO_DATE,
    Run,
    clear_stamp,
    earlier_code,
    make_runs,
    seconds_saved,
    state_of,
    write_stamp,
)
from snnlib.companion.runner.warm_kernels import warm_kernels
from snnlib.errors import InputError
from snnlib.files import file_lock, remove_stale_parts, write_atomic
from snnlib.runtime import set_environment

SPEED = "40"
"""The notebook that times."""
RAN, FAILED, LEFT = "ran", "failed", "left for another start"


def main(arguments: list[str] | None = None) -> int:
    return exit_code(
        lambda: run_series(parse_arguments(arguments)), interrupted="interrupted; the next start continues here"
    )


def run_series(options: argparse.Namespace) -> int:
    """Do what the options ask; returns the exit code. Raises InputError before anything runs."""
    set_environment()  # the kernels inherit it
    profile = paths.check_profile(options.profile)
    checks.whole("--at-once", options.at_once)
    if options.dry_run:
        check_dry_run(options)
        from snnlib.companion.runner import dry_run  # every network and attack comes with it

        if options.machines:
            from snnlib.companion.runner.plan import machines_report

            print(machines_report(profile, options.machines))
        else:
            print(dry_run.report(profile, options.measure))
        return 0
    if options.machines or options.measure:
        option = "--machines" if options.machines else "--measure"
        raise InputError(f"{option} without --dry-run; expected both; add --dry-run")
    if options.resources and not options.jobs:
        raise InputError("--resources without --jobs; expected both; add --jobs, such as slurm:8")
    if options.from_released and options.jobs:
        raise InputError(f"--from-released with --jobs {options.jobs}; expected one of them: --jobs trains networks")
    if options.publish:
        check_published(profile)
    series = load_series(paths.NOTEBOOKS)
    chosen = choose(options.only, series)
    within = [number for number in series if number in chosen]
    parameters = read_settings(options, [series[number] for number in within])
    runs = make_runs(
        series, profile, {number: parameters.get(number, {"profile": profile}) for number in series}
    )
    states = {number: state_of(run) for number, run in runs.items()}
    if options.list:
        print(status_table(runs, states, read_timings(profile)))
        return 0
    due = [
        number for number in within if states[number] != UP_TO_DATE or options.force
    ]
    if options.time_limit:
        set_time_limit(options.time_limit)
    with file_lock(paths.runs_dir(profile) / "run.lock", wait_seconds=0):
        if options.from_released:
            take_published(profile)
        if options.jobs:
            make_in_processes(options)
        several = sum("snnlib" in runs[number].notebook.code for number in due) > 1
        with warm_kernels() if several else nullcontext():
            run_due(profile, due, runs, states, options.at_once)
    print(status_table(runs, states, read_timings(profile)))
    return finish(options, [runs[number] for number in within], states)


def check_published(profile: str) -> None:
    """Errors: InputError for a profile whose figures are not for show."""
    from snnlib.companion.sizes import get_profile  # torch comes with it, and seconds

    if not get_profile(profile).published:
        raise InputError(f"--publish with profile {profile!r}; expected a larger one: it shows only that all runs")


def take_published(profile: str) -> None:
    """What `--from-released` asks for, in this process and the kernels that it starts."""
    from snnlib.companion.measure.archive import unpack_published  # every attack comes with it
    from snnlib.companion.measure.networks import FROM_RELEASED
    from snnlib.companion.runner.published_tables import take_tables

    os.environ[FROM_RELEASED] = "1"
    counts = unpack_published(profile)
    told = f"{counts['taken']} taken, {counts['here']} here already, {counts['left out']} left out, which do not fit"
    print(f"published rows of profile {profile}: {told}", flush=True)
    came, left = take_tables(profile)
    print(f"published tables of profile {profile}: {came} taken, {left} here already or damaged", flush=True)


def make_in_processes(options: argparse.Namespace) -> None:
    """What `--jobs` asks for. Errors: InputError for other values, and beside `--only`: the list is the profile's."""
    from snnlib.companion.runner import work  # every network and attack comes with it

    if options.only:
        raise InputError(f"--jobs with --only {options.only}; expected one of them: --jobs makes all of the profile")
    data_dir = str(options.data_dir.resolve()) if options.data_dir else None
    items = work.items_of(options.profile, data_dir=data_dir)
    work.make_all(items, work.read_jobs(options.jobs, options.resources or ""), work.fresh_name(options.profile))


def check_dry_run(options: argparse.Namespace) -> None:
    """Errors: InputError for another option beside `--dry-run` and `--profile`."""
    names = "only", "force", "set", "data_dir", "list", "publish", "time_limit", "from_released"
    names += "jobs", "resources", "at_once"
    for name in names:
        value, option = getattr(options, name), f"--{name.replace('_', '-')}"
        if value not in (None, False, []) and (name, value) != ("at_once", 1):
            shown = option if value is True else f"{option} {', '.join(value) if name == 'set' else str(value)!r}"
            raise InputError(f"--dry-run with {shown}; expected --profile alone beside it; leave {option} out")


def choose(only: str | None, series: dict[str, Notebook]) -> set[str]:
    """Numbers named by `--only`, all without it. Raises InputError on a number that no notebook has."""
    if only is None:
        return set(series)
    numbers = {text.strip().zfill(2) for text in only.split(",") if text.strip()}
    unknown = sorted(numbers - set(series))
    if unknown or not numbers:
        raise InputError(
            f"unknown notebook {', '.join(unknown) or repr(only)}; expected some of: {', '.join(series)}"
        )
    return numbers


def read_settings(options: argparse.Namespace, notebooks: list[Notebook]) -> dict[str, dict[str, Any]]:
    """Number -> parameters to inject. Raises InputError on a setting that no notebook has or takes."""
    settings = {}
    for text in options.set:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise InputError(f"--set {text!r}; expected key=value")
        if key in ("profile", "data_dir"):
            raise InputError(f"--set {text!r}; use --{key.replace('_', '-')} for it")
        settings[key] = value
    if options.data_dir is not None:
        if not options.data_dir.is_dir():
            raise InputError(
                f"data folder {str(options.data_dir)!r} does not exist; expected a folder with data sets"
            )
        settings["data_dir"] = str(options.data_dir.resolve())
    for key in settings:
        if not any(key in notebook.parameters for notebook in notebooks):
            known = sorted(
                {name for notebook in notebooks for name in notebook.parameters} - {"profile", "data_dir"}
            )
            raise InputError(
                f"no chosen notebook has the parameter {key!r}; they have: {', '.join(known) or 'none'}"
            )
    return {
        notebook.number: {"profile": options.profile}
        | {
            key: convert_setting(value, notebook.parameters[key], key)
            for key, value in settings.items()
            if key in notebook.parameters
        }
        for notebook in notebooks
    }


def run_due(profile: str, due: list[str], runs: dict[str, Run], states: dict[str, str], at_once: int = 1) -> None:
    """Run the notebooks `due`, `at_once` at the same time, outcomes into `states`; a failure stops no other.

    See `next_of` for the order.
    """
    for folder in (paths.runs_dir(profile), paths.figures_dir(profile)):
        remove_stale_parts(folder)
    for executed in (paths.runs_dir(profile) / "notebooks").glob("*.ipynb"):
        if executed not in [run.executed for run in runs.values()]:
            executed.unlink()
    waiting, running, call = list(due), {}, Here if at_once == 1 else Processes().call
    alone = {max(runs)} | ({SPEED} if profile != figures.TRIAL else set())  # nobody reads a trial's speeds
    while waiting or running:
        while len(running) < at_once:
            number = next_of(waiting, [begun for begun, _ in running.values()], alone)
            if number is None:
                break
            waiting.remove(number)
            label = f"[{due.index(number) + 1:2}/{len(due)}] {runs[number].notebook.name}"
            if is_out_of_time():
                print(f"{label}  left for another start: the time limit has passed", flush=True)
                states[number] = LEFT
                continue
            left = [*(begun for begun, _ in running.values()), number, *waiting]
            print(f"{label}  started{time_left(read_timings(profile), left, at_once)}", flush=True)
            beside = 1 if number in alone else at_once
            running[call(run_one, runs[number], label, beside)] = number, label
        for call_ended in ended(running):
            number, label = running.pop(call_ended)
            states[number] = note_outcome(runs[number], label, call_ended)
            table = status_table(runs, states, read_timings(profile))
            write_atomic(paths.runs_dir(profile) / "status.md", f"# Profile {profile}\n\n{table}\n")


def next_of(waiting: list[str], running: list[str], alone: Collection[str]) -> str | None:
    """The notebook to start beside those that run, by number; None where the next one has to wait.

    First of a chapter (first digit) that is not running: within one, notebooks wait for each other's networks. Those
    that run `alone` come after the others: `SPEED`, and the last of the series, which reads what all have stored.
    """
    if any(number in alone for number in running):
        return None
    chapters = {number[0] for number in running}
    free = sorted((number for number in waiting if number not in alone), key=lambda number: number[0] in chapters)
    if free or running:
        return free[0] if free else None
    return waiting[0] if waiting else None


def run_one(run: Run, label: str, at_once: int = 1) -> tuple[str, str, float]:
    """Run one notebook, of so many at once, and stamp it; returns outcome, reason of a failure, and seconds."""
    started, since = time.monotonic(), time.time()
    clear_stamp(run)
    try:
        execute(run, label)
    except NotebookFailed as error:
        outcome = LEFT if str(error).startswith(OutOfTime.__name__) else FAILED
        return outcome, str(error), time.monotonic() - started
    seconds = time.monotonic() - started
    figures.record_seconds(run.profile, run.notebook.number, seconds + seconds_saved(run, since), at_once)
    write_stamp(run)
    return RAN, "", seconds


def note_outcome(run: Run, label: str, call: Apart | Here) -> str:
    """Say how a notebook ended, and remember its time where it ran; returns the outcome."""
    try:
        outcome, reason, seconds = call.result()
    except ProcessDied:
        outcome, reason, seconds = FAILED, "its process died; is there enough memory for so many at once?", 0.0
    if outcome == LEFT:
        print(f"{label}  left for another start: {reason}", flush=True)
    elif outcome == FAILED:
        print(f"{label}  FAILED after {clock(seconds)}: {reason}", flush=True)
        print(f"{' ' * 8}what did run: {run.unfinished}", flush=True)
    else:
        timings = read_timings(run.profile) | {run.notebook.number: round(seconds, 1)}
        write_atomic(timings_path(run.profile), json.dumps(timings, indent=1, sort_keys=True) + "\n")
        print(f"{label}  done in {clock(seconds)}", flush=True)
    return outcome


def finish(options: argparse.Namespace, runs: list[Run], states: dict[str, str]) -> int:
    bad = [run.notebook.number for run in runs if states[run.notebook.number] in (FAILED, LEFT)]
    if options.publish:
        from snnlib.companion.runner.publish import publish  # seconds of imports, which few starts need

        publish(options.profile, [run for run in runs if run.notebook.number not in bad])
    if bad:
        print(f"{len(bad)} of {len(runs)} notebooks are not done: {', '.join(bad)}")
        return 1
    where = paths.published_dir(options.profile) if options.publish else paths.figures_dir(options.profile)
    print(f"all {len(runs)} notebooks are done; figures and tables: {where}")
    return 0


def status_table(runs: dict[str, Run], states: dict[str, str], seconds: dict[str, float]) -> str:
    """A Markdown table of the notebooks: number, title, state, results made by earlier code, time of the last run."""
    lines = ["| no. | notebook | state | made by earlier code | time |", "|---|---|---|---|---|"]
    for number, run in runs.items():
        took = clock(seconds[number]) if number in seconds else ""
        changed, results = earlier_code(run)
        earlier = f"{changed} of {results} results" if changed else ""
        cells = [number, run.notebook.title, states[number], earlier, took]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def timings_path(profile: str) -> Path:
    return paths.runs_dir(profile) / "timings.json"


def read_timings(profile: str) -> dict[str, float]:
    """Number -> seconds of the last complete run, as far as known."""
    return read_json(timings_path(profile)) or {}


def time_left(seconds: dict[str, float], numbers: list[str], at_once: int = 1) -> str:
    """What earlier runs say about the time that the given notebooks will take, as the end of a line."""
    known = [seconds[number] for number in numbers if number in seconds]
    if not known:
        return ""
    return f", {'about' if len(known) == len(numbers) else 'at least'} {clock(sum(known) / at_once)} left"

