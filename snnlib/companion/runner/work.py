"""Make the networks and attack rows of a profile, or a sweep of one's own, by as many workers as there are.

`python -m snnlib.companion.runner.work --profile night --jobs local:4 --data-dir DIR --time-limit 100m --release`, or
`... work --call mine.py:measure --set seed=0..9 --grid lr=0.1,0.01 --jobs slurm:8 --resources partition=gpu,time=4h`.
What is stored is skipped, what was cut short goes on, and a dead worker loses at most the step in progress.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from snnlib.commands import OneLineParser, exit_code
from snnlib.companion import paths
from snnlib.companion.measure.time_limit import is_out_of_time, set_time_limit
from snnlib.companion.runner import executors
from snnlib.companion.runner.dry_run import meter_of
from snnlib.companion.runner.executors import CREWS, Jobs, read_jobs, supervise
from snnlib.companion.runner.items import Item, items_of, own_items, own_table, read_axes, swept_items
from snnlib.companion.runner.plan import item_list
from snnlib.companion.runner.sweep import FAILED, Sweep, work
from snnlib.companion.runner.watch import Watch
from snnlib.errors import InputError
from snnlib.files import write_atomic
from snnlib.runtime import apply_process_settings, default_device


def make_all(items: list[Item], jobs: Jobs, name: str) -> Sweep:
    """Make what the items lack, until all is done or the time limit has passed; returns what has become of them.

    name: of the sweep, and of its folder; whoever gives the same name and items works on the same sweep.
    """
    sweep = Sweep.create(paths.ARTIFACTS / "sweeps" / name, items)
    watch = Watch(sweep)
    if jobs.kind == "here":
        apply_process_settings()
        work(sweep, is_out_of_time, tell=lambda line: print(line, flush=True))
    else:
        crew = CREWS[jobs.kind](sweep.folder, jobs)
        print(f"{len(items)} items by {jobs.count} workers; {watch.page} shows them", flush=True)
        supervise(crew, jobs.count, lambda: sum(state.starts for state in sweep.state), lambda: sweep.left, watch)
    sweep.refresh()
    watch.write_page()
    for item, state in sweep.rows():
        if state.outcome == FAILED:
            print(f"FAILED {item.name}: {state.words}", flush=True)
    print(watch.summary(), flush=True)
    return sweep


def without_trainings(items: list[Item]) -> list[Item]:
    """Attacks alone; what they need is then found, or made by whoever needs it first."""
    return [replace(item, after=()) for item in items if item.call.endswith(":make_rows")]


def fresh_name(what: str) -> str:
    return f"{what}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06}"


def parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m snnlib.companion.runner.work", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--profile", default="night", help="whose networks and rows")
    add("--call", metavar="FILE.py:FUNCTION", help="call this function instead; it returns plain values by name")
    add("--set", metavar="KEY=VALUE", action="append", default=[], help="an argument or a size; seed=0..9 is a range")
    add("--grid", metavar="KEY=A,B,C", action="append", default=[], help="several values of an argument or a size")
    add("--jobs", default="1", metavar="1|local:N|slurm:N|ray:N", help="who works; each takes two threads")
    add("--resources", default="", metavar="KEY=VALUE,...", help="of a worker: cpus, gpus (a fraction shares one), "
        "memory (GB), time, partition, account; address of a Ray cluster")
    add("--sweep", metavar="NAME", help="work on the sweep of that name, together with whoever does the same")
    add("--data-dir", metavar="DIR", help="folder with whole CIFAR-10")
    add("--time-limit", metavar="100m", help="start nothing that would end later")
    add("--only", choices=("training", "attack"), help="networks alone, or rows alone")
    add("--release", action="store_true", help="put finished networks into the package")
    add("--print-sbatch", action="store_true", help="print a script for SLURM's sbatch, run nothing")
    add("--dry-run", action="store_true", help="list the items, what they wait for and about how long they take")
    return parser


def listed(options) -> list[Item]:
    """The items that the options ask for. Errors: InputError."""
    axes = read_axes(options.set, options.grid)
    if options.call:
        if options.only or options.release:
            raise InputError("--only or --release with --call; expected neither: they are of a profile's networks")
        return own_items(options.call, axes)
    how = {"data_dir": str(Path(options.data_dir).resolve()) if options.data_dir else None, "releases": options.release}
    items = swept_items(options.profile, axes, **how) if axes else items_of(options.profile, **how)
    if options.only == "attack":
        return without_trainings(items)
    return items if options.only is None else [item for item in items if item.call.endswith(":make_network")]


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        options = parser().parse_args(given)
        jobs = read_jobs(options.jobs, options.resources)
        if not options.call:
            paths.check_profile(options.profile)
        items, what = listed(options), "own" if options.call else options.profile
        name = options.sweep or fresh_name(what)
        if options.dry_run:
            print(item_list(items, None if options.call else meter_of(options.profile, default_device())[0]))
            return 0
        if options.print_sbatch:
            kept = [word for word in given if word != "--print-sbatch"]
            line = [sys.executable, "-m", "snnlib.companion.runner.work", *_without(kept, "--jobs", "--sweep",
                    "--resources", "--time-limit"), "--sweep", name]  # fmt: skip
            sweep = Sweep.create(paths.ARTIFACTS / "sweeps" / name, items)
            print(executors.sbatch_script(line, jobs, name, sweep.folder))
            return 0
        if options.time_limit:
            set_time_limit(options.time_limit)
        sweep = make_all(items, jobs, name)
        if options.call and not sweep.left and not sweep.counts[FAILED]:
            table = write_atomic(sweep.folder / "results.csv", own_table(items).to_csv(index=False))
            print(f"results: {table}")
        return 1 if sweep.counts[FAILED] else 3 if sweep.left else 0

    return exit_code(command, interrupted="interrupted; the next start continues here")


def _without(words: list[str], *options: str) -> list[str]:
    """The command line without these options and their values."""
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in options:
            skip = True
        elif not any(word.startswith(f"{option}=") for option in options):
            kept.append(word)
    return kept


if __name__ == "__main__":
    sys.exit(main())
