"""A sweep in a shared folder: any number of workers, on any number of machines, make its items until none is left.

Nobody hands out work. Every worker reads the same list, takes a lease on an item that is ready, makes it, and appends
what happened to a log of its own, which the others read. So a worker may start late, or die at any moment: its lease
runs out and the next one takes the item, a training from its last epoch.

**What is assumed of the shared folder.** Creating a file exclusively is atomic, and a file that was closed is seen
whole by whoever opens it afterwards: local disks, NFS from version 3 on, Lustre, BeeGFS and GPFS do that; object stores
mounted as folders do not. No lock of the system is needed (`flock` is absent or local on some clusters), and clocks
need not agree: a lease is over when a waiting worker has seen no sign of life for `LEASE_SECONDS` of its own clock, or
at once where the holder ran on the same machine and is gone. Should two workers make one item all the same (a holder
that slept through its lease), both write the same bytes, whole files at a time: a lease saves work, it guards nothing.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from pathlib import Path

from filelock import SoftFileLease, Timeout

import snnlib
from snnlib.companion import paths
from snnlib.companion.measure.provenance import package_digest
from snnlib.companion.measure.store import name_of, read_json
from snnlib.companion.measure.time_limit import OutOfTime
from snnlib.companion.runner.items import Item
from snnlib.errors import InputError
from snnlib.files import write_atomic

LEASE_SECONDS = 90.0
DEATHS = 5
"""Workers that may die at one item (out of memory, killed) before it counts as failed."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 2.0
STARTED, DONE, FAILED, LEFT = "started", "done", "failed", "left"


@dataclass
class State:
    """What has happened to one item."""

    outcome: str = ""
    words: str = ""
    seconds: float = 0.0
    worker: str = ""
    since: float = 0.0
    starts: int = 0
    ends: int = 0

    @property
    def settled(self) -> bool:
        return self.outcome in (DONE, FAILED)


@dataclass
class Sweep:
    """The items of a folder, and what all workers have noted of them."""

    folder: Path
    items: list[Item]
    state: list[State] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.number = {item.name: place for place, item in enumerate(self.items)}
        if len(self.number) != len(self.items):
            raise InputError("two items have the same name; expected a name for each")
        self.state = [State() for _ in self.items]
        self.left, self.counts = len(self.items), {DONE: 0, FAILED: 0}
        self.running: dict[int, None] = {}
        self._needs = [sum(name in self.number for name in item.after) for item in self.items]
        self._waiting: dict[int, list[int]] = defaultdict(list)
        for place, item in enumerate(self.items):
            for name in item.after:
                if name in self.number:
                    self._waiting[self.number[name]].append(place)
        self._ready = [place for place, needs in enumerate(self._needs) if not needs]
        self._read: dict[Path, int] = {}
        self._leases: dict[int, SoftFileLease] = {}

    @classmethod
    def open(cls, folder: Path) -> Sweep:
        """The sweep in a folder. Errors: InputError where there is none, or one that other code has begun."""
        found = read_json(folder / "items.json")
        if found is None:
            raise InputError(f"{folder} holds no sweep; expected a folder with items.json")
        if found["code"] != package_digest():
            raise InputError(
                f"this worker's snnlib ({Path(snnlib.__file__).parent}) is not the one that began the sweep {folder}; "
                "expected the same code; start the command again, it goes on from what is stored"
            )
        return cls(folder, [Item(**{**one, "after": tuple(one["after"])}) for one in found["items"]])

    @classmethod
    def create(cls, folder: Path, items: list[Item]) -> Sweep:
        """A sweep of these items in a folder; one that is there already is joined, if it has the same items."""
        sweep = cls(folder, items)
        content = {"code": package_digest(), "items": [asdict(item) for item in items]}
        if (there := read_json(folder / "items.json")) is None:
            write_atomic(folder / "items.json", json.dumps(content) + "\n")
        elif name_of(there) != name_of(content):
            raise InputError(f"{folder} holds a sweep of other items or code; expected the same; give another name")
        for needed in (folder / "logs", leases()):
            needed.mkdir(parents=True, exist_ok=True)
        return sweep

    def refresh(self) -> None:
        """Read what the workers have noted since the last time."""
        with os.scandir(self.folder / "logs") as entries:
            grown = [(entry.path, entry.stat().st_size) for entry in entries if entry.name.endswith(".jsonl")]
        for path, size in grown:
            if size > (start := self._read.get(path, 0)):
                with open(path, "rb") as stream:
                    stream.seek(start)
                    whole = stream.read().rpartition(b"\n")[0]  # a line that a kill has cut is none
                for line in whole.splitlines():
                    self._take_note(**json.loads(line), worker=Path(path).stem)
                self._read[path] = start + len(whole) + bool(whole)

    def _take_note(self, item: int, event: str, at: float, worker: str, words: str = "", seconds: float = 0.0) -> None:
        state = self.state[item]
        if event == STARTED:
            state.starts += 1
        else:
            state.ends += 1
        if state.settled:
            return
        state.outcome, state.words, state.seconds, state.worker, state.since = event, words, seconds, worker, at
        if event == STARTED:
            self.running[item] = None
        else:
            self.running.pop(item, None)
        if event == LEFT:
            heappush(self._ready, item)
        elif event in (DONE, FAILED):
            self._settle(item, event)

    def _settle(self, place: int, event: str) -> None:
        self.left -= 1
        self.counts[event] += 1
        self.state[place].outcome = event
        self._leases.pop(place, None)
        for waiting in self._waiting.pop(place, []):
            self._needs[waiting] -= 1
            if event == FAILED and not self.state[waiting].settled:
                self.state[waiting].words = "what it needs failed"
                self._settle(waiting, FAILED)
            elif self._needs[waiting] == 0:
                heappush(self._ready, waiting)

    @contextmanager
    def taken(self, but: Collection[int] = ()) -> Iterator[int | None]:
        """Lease an item that is ready; None where all that is left is under way elsewhere, or waits for that."""
        self.refresh()
        for place in self._candidates(but):
            # kept while another worker has it: a lease is over when this very object has watched it long enough
            if place not in self._leases:
                path = leases() / self.items[place].key
                self._leases[place] = SoftFileLease(path, lease_duration=LEASE_SECONDS)
            lease = self._leases[place]
            try:
                lease.acquire(timeout=0)
            except Timeout:
                continue
            try:
                self.refresh()  # it may have been made while the lease was asked for
                if not self.state[place].settled:
                    yield place
                    return
            finally:
                lease.release()
                self._leases.pop(place, None)
        yield None

    def _candidates(self, but: Collection[int]) -> Iterator[int]:
        """Items that nobody has begun, in order; then those under way: their worker may have died."""
        passed = []
        try:
            while self._ready:
                place = heappop(self._ready)
                if self.state[place].settled or place in self.running:
                    continue
                passed.append(place)
                if place not in but:
                    yield place
        finally:
            for place in passed:
                heappush(self._ready, place)
        yield from [place for place in self.running if place not in but]

    def rows(self) -> Iterator[tuple[Item, State]]:
        return zip(self.items, self.state, strict=True)


def leases() -> Path:
    """Of all sweeps: two that want the same item do not make it twice."""
    return paths.ARTIFACTS / "locks" / "items"


class Log:
    """What one worker notes; nobody else writes there."""

    def __init__(self, folder: Path) -> None:
        name = f"{platform.node()}-{os.getpid()}-{time.time_ns() % 10**9:09}"
        self.path = folder / "logs" / f"{name}.jsonl"

    def note(self, item: int, event: str, **more: object) -> None:
        line = json.dumps({"item": item, "event": event, "at": round(time.time(), 3), **more})
        with open(self.path, "a", encoding="utf-8") as stream:  # closed each time: then other machines see it
            stream.write(line + "\n")


def work(sweep: Sweep, stop: Callable[[], bool], tell: Callable[[str], None] = lambda line: None) -> None:
    """Make items of the sweep until none is left or `stop` says so. tell: gets a line for every item."""
    log, pause, given_back = Log(sweep.folder), SHORTEST_PAUSE, set()
    with _ending_as_an_exit():
        while sweep.left and not stop():
            with sweep.taken(but=given_back) as place:
                if place is not None:
                    if _make(sweep, place, log, tell) == LEFT:
                        given_back.add(place)
                    pause = SHORTEST_PAUSE
                    continue
            if given_back and not sweep.running:
                return
            if sweep.left:
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)


def _make(sweep: Sweep, place: int, log: Log, tell: Callable[[str], None]) -> str:
    """Make one item; returns what became of it."""
    item, state = sweep.items[place], sweep.state[place]
    if state.starts - state.ends >= DEATHS:
        log.note(place, FAILED, words=f"{DEATHS} workers died at it; start again to try once more")
        return FAILED
    started = time.monotonic()
    log.note(place, STARTED)
    try:
        words = item.make()
    except OutOfTime as error:
        log.note(place, LEFT, words=str(error))
        tell(f"{item.name}: left for another start ({error})")
        return LEFT
    except (KeyboardInterrupt, SystemExit):
        log.note(place, LEFT, words="interrupted")
        raise
    except Exception as error:  # told in the table; the other items do not depend on it
        words = " ".join(f"{type(error).__name__}: {error}".split())
        log.note(place, FAILED, words=words, seconds=round(time.monotonic() - started, 3))
        tell(f"FAILED {item.name}: {words}")
        return FAILED
    else:
        log.note(place, DONE, words=words, seconds=round(time.monotonic() - started, 3))
        tell(f"[{sweep.counts[DONE] + 1}/{len(sweep.items)}] {item.name}: {words}")
        return DONE


@contextmanager
def _ending_as_an_exit() -> Iterator[None]:
    """SIGTERM, which a scheduler sends before it takes the machine, ends the worker as `sys.exit` does: it gives the
    item back. Only where this is the main thread, and nobody else has a say in that signal.
    """
    try:
        ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if ours:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    except ValueError:  # another thread than the main one
        ours = False
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
