"""Make the networks and attack rows of a profile in several processes; the notebooks then only read them.

`python -m snnlib.companion.runner.work --profile night --jobs local:4 --data-dir DIR --time-limit 100m --release`.
What is stored is skipped, what was cut short goes on, and a dead worker loses at most the step in progress.
`--release` puts finished networks into the package.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context

from snnlib.commands import OneLineParser, exit_code
from snnlib.companion.measure.attacked import attacked
from snnlib.companion.measure.networks import (
    Network,
    OutOfTime,
    TrainedNetwork,
    attacked_images,
    seconds_left,
    trained,
)
from snnlib.companion.measure.release import release, released_keys
from snnlib.companion.ozdenizci2024 import networks as conversion
from snnlib.companion.runner.cost import work_of
from snnlib.companion.runner.time_limit import is_out_of_time, set_time_limit
from snnlib.companion.sizes import conversion_size
from snnlib.errors import InputError
from snnlib.runtime import apply_process_settings

SECONDS_BETWEEN_REPORTS = 20
DEATHS = 3
"""Workers that may die (out of memory, killed) before the rest is left."""


@dataclass(frozen=True)
class Item:
    """One result to make: a network, or one attack at one eps on it.

    place: in the lists of `work_of`: (trainings or attacks, number, eps). after: names of the items it needs.
    """

    name: str
    place: tuple[str, int, int]
    seed: int
    after: tuple[str, ...] = ()


def items_of(profile_name: str) -> list[Item]:
    """All items, those first that others wait for: trainings seed by seed, then attacks seed by seed."""
    trainings, attacks = work_of(profile_name)
    made = {_name(training.network, seed) for training in trainings for seed in training.profile.seeds}
    found = []
    for number, training in enumerate(trainings):
        for seed in training.profile.seeds:
            start = () if training.ann is None else (_name(training.ann, seed),)
            found.append(Item(_name(training.network, seed), ("training", number, 0), seed, start))
    for number, work in enumerate(attacks):
        for seed in work.training.profile.seeds:
            needs = _name(work.training.network, seed)
            assert needs in made, f"{work.label} attacks a network that nobody trains"
            for level, attack in enumerate(work.attacks):
                label = f"{needs}: {work.label.partition(', eps')[0]}, eps {255 * attack.eps:g}"
                found.append(Item(label, ("attack", number, level), seed, (needs,)))
    return sorted(found, key=lambda item: (item.place[0] != "training", item.seed, bool(item.after), item.place))


def _name(network: Network, seed: int) -> str:
    return f"{network.label}, seed {seed}"


def make(item: Item, profile_name: str, data_dir: str | None, releases: bool = False) -> str:
    """Make the item, or find it stored; returns a few words on it. Raises OutOfTime."""
    seconds_left()
    kind, number, level = item.place
    trainings, attacks = _work_of(profile_name)
    if kind == "training":
        network = network_of(number, profile_name, item.seed, data_dir)
        best = network.history.epochs[network.history.best_epoch - 1]["validation_accuracy"]
        named = release(network, profile_name) if releases and network.key not in released_keys() else ""
        return f"validation {best:.1%} {named}".rstrip()
    work = attacks[number]
    profile, number = work.training.profile, trainings.index(work.training)
    network = network_of(number, profile_name, item.seed, data_dir)
    images = attacked_images(profile, network.splits)
    rows = attacked(network, [work.attacks[level]], images, profile.attack_batch_size)
    broken = rows.groupby("sample").success.any().mean()
    return f"{100 * (1 - broken):.1f} % of {len(images)} left"


@functools.lru_cache(maxsize=8)
def network_of(number: int, profile_name: str, seed: int, data_dir: str | None) -> TrainedNetwork:
    """The network that this training of `work_of` makes, or what is stored of it."""
    training = _work_of(profile_name)[0][number]
    if training.ann is None:
        return trained(training.network, training.profile, seed, data_dir)
    return conversion.finetuned(training.objective, conversion_size(profile_name), seed, data_dir, training.how)


_work_of = functools.cache(work_of)


@dataclass
class Progress:
    """What has happened to the items, by name."""

    total: int
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    running: dict[Future, Item] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def told(self) -> str:
        """One line: done, running, failed, left, and an estimate once a tenth is done."""
        gone, count = time.monotonic() - self.started, len(self.done)
        left = self.total - count - len(self.failed) - len(self.running)
        estimate = f", about {gone * (self.total - count) / count / 60:.0f} min left" if count > self.total / 10 else ""
        failed = f"{len(self.failed)} failed, " * bool(self.failed)
        return f"{count} of {self.total} done, {len(self.running)} running, {failed}{left} wait{estimate}"


def run_items(
    items: Iterable[Item], workers: int, make_one: Callable[[Item], str], stop: Callable[[], bool]
) -> Progress:
    """Run `make_one` on every item in `workers` processes (0: in this one), each after what it needs.

    An item that fails takes those along that wait for it; a worker that dies is replaced. stop: asked before an item
    starts.
    """
    waiting = {item.name: item for item in items}
    progress, deaths = Progress(len(waiting)), 0
    while waiting and not stop() and deaths < DEATHS:
        try:
            with _executor(workers) as executor:
                _drain(waiting, progress, executor, max(workers, 1), make_one, stop)
                break
        except BrokenProcessPool:
            deaths += 1
            waiting |= {item.name: item for item in progress.running.values()}
            progress.running.clear()
            print(f"a worker died; what it was doing starts again (death {deaths} of {DEATHS})", flush=True)
    progress.failed |= dict.fromkeys(waiting.keys() & _blocked(waiting, progress.failed), "what it needs failed")
    return progress


def _drain(
    waiting: dict[str, Item],
    progress: Progress,
    executor: ProcessPoolExecutor | Inline,
    width: int,
    make_one: Callable[[Item], str],
    stop: Callable[[], bool],
) -> None:
    """Submit what is ready until nothing is, or `stop` says so; raises BrokenProcessPool when a worker dies."""
    reported = time.monotonic()
    while True:
        for item in list(_ready(waiting, progress.done)):
            if len(progress.running) >= width or stop():
                break
            progress.running[executor.submit(make_one, waiting.pop(item.name))] = item
        if not progress.running:
            return
        finished, _ = wait(progress.running, timeout=SECONDS_BETWEEN_REPORTS, return_when=FIRST_COMPLETED)
        for future in finished:
            if isinstance(error := future.exception(), BrokenProcessPool):
                raise error
            _settle(progress, progress.running.pop(future), future)
        if time.monotonic() - reported > SECONDS_BETWEEN_REPORTS:
            reported = time.monotonic()
            print(progress.told(), flush=True)


def _settle(progress: Progress, item: Item, future: Future) -> None:
    error = future.exception()
    place = f"[{len(progress.done) + 1}/{progress.total}]"
    if error is None:
        progress.done.add(item.name)
        print(f"{place} {item.name}: {future.result()}", flush=True)
    elif isinstance(error, OutOfTime):
        print(f"{item.name}: left for another start ({error})", flush=True)
    else:
        progress.failed[item.name] = f"{type(error).__name__}: {error}"
        print(f"FAILED {item.name}: {progress.failed[item.name]}", flush=True)


def _ready(waiting: dict[str, Item], done: set[str]) -> Iterator[Item]:
    return (item for item in waiting.values() if done.issuperset(item.after))


def _blocked(waiting: dict[str, Item], failed: Iterable[str]) -> set[str]:
    """Names of waiting items that need a failed one, or one that needs one."""
    blocked = set(failed)
    while more := {name for name, item in waiting.items() if blocked & set(item.after)} - blocked:
        blocked |= more
    return blocked


class Inline:
    """An executor that does the work at once, in this process."""

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Callable, *arguments: object) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # handed on: whoever asks for the result gets it
            future.set_exception(error)
        return future


def _executor(workers: int) -> ProcessPoolExecutor | Inline:
    if workers == 0:
        return Inline()
    # spawn: a forked child of a process that has used CUDA or OpenMP is broken
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=apply_process_settings)


def workers_of(jobs: str) -> int:
    """"1" is this process alone (0 workers), "local:N" N of them. Errors: InputError."""
    kind, _, count = jobs.partition(":")
    if jobs == "1":
        return 0
    if kind != "local" or not count.isdecimal() or int(count) < 1:
        raise InputError(f"--jobs is {jobs!r}; expected 1 or local:N, such as local:4")
    return int(count)


def make_all(
    profile_name: str, jobs: str, data_dir: str | None, only: str | None = None, releases: bool = False
) -> Progress:
    """Make what the profile lacks, until all is done or the time limit has passed. only: "training" or "attack"."""
    workers = workers_of(jobs)
    items = [item for item in items_of(profile_name) if only in (None, item.place[0])]
    if only == "attack":
        items = [replace(item, after=()) for item in items]
    make_one = functools.partial(make, profile_name=profile_name, data_dir=data_dir, releases=releases)
    progress = run_items(items, workers, make_one, is_out_of_time)
    print(progress.told(), flush=True)
    return progress


def main(arguments: list[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m snnlib.companion.runner.work", description=__doc__, allow_abbrev=False)
    parser.add_argument("--profile", default="night", help="whose networks and rows")
    parser.add_argument("--jobs", default="1", metavar="local:N", help="processes; each takes two threads")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with whole CIFAR-10")
    parser.add_argument("--time-limit", metavar="100m", help="start nothing that would end later")
    parser.add_argument("--only", choices=("training", "attack"), help="networks alone, or rows alone")
    parser.add_argument("--release", action="store_true", help="put finished networks into the package")

    def command() -> int:
        options = parser.parse_args(arguments)
        if options.time_limit:
            set_time_limit(options.time_limit)
        progress = make_all(options.profile, options.jobs, options.data_dir, options.only, options.release)
        return 1 if progress.failed else 0 if len(progress.done) == progress.total else 3

    return exit_code(command, interrupted="interrupted; the next start continues here")


if __name__ == "__main__":
    sys.exit(main())
