"""What a sweep will take: an estimate for each item, and when how many machines would be done."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush

import pandas as pd

from snnlib.companion.measure.networks import attacked_images
from snnlib.companion.report.figures import table_markdown
from snnlib.companion.runner.cost import NOT_COUNTED, Meter, Training, Work, images_of
from snnlib.companion.runner.execute import clock
from snnlib.companion.runner.items import Item, items_of, work_behind
from snnlib.companion.runner.rates import read_rates
from snnlib.errors import InputError

MOST_MACHINES = 10_000


def estimated_seconds(items: list[Item], meter: Meter) -> list[float]:
    """Seconds of every item of a profile, at most: images that fall leave an attack early."""
    found, seconds = {}, []
    for item in items:
        work, level = work_behind(item)
        if (id(work), level) not in found:  # the seeds of a training take the same time
            found[id(work), level] = _seconds(work, level, meter)
        seconds.append(found[id(work), level])
    return seconds


def _seconds(work: Training | Work, level: int | None, meter: Meter) -> float:
    if isinstance(work, Training):
        return work.recipe().epochs * meter.epoch(work)
    images = len(attacked_images(work.training.profile, images_of(work.training.profile)))
    return meter.under(Work(work.notebook, work.training, (work.attacks[level],)), images)


class Remembered(Meter):
    """Rates of another machine: nothing is measured. Errors: InputError for a network that has no rate."""

    def __init__(self, profile: str, machine: str, rates: dict) -> None:
        super().__init__("cpu", 1, rates)
        self.said = f"--machines with profile {profile}; {{}} has no rate for {machine}; expected profile paper"

    def _once(self, training: Training, work: dict, measure: Callable) -> float | tuple[float, float]:
        def refuse() -> None:
            raise InputError(self.said.format(training.network.label))

        return super()._once(training, work, refuse)


@dataclass(frozen=True)
class Plan:
    """When everything is done. ends, hours: of each machine, busy hours alone. path: items that nothing can shorten."""

    end: float
    busy: list[float]
    path: list[Item]
    path_seconds: float


def planned(items: list[Item], seconds: list[float], machines: int) -> Plan:
    """What `machines` workers would do: each takes the first item of the list that is ready, as a sweep's workers do.

    The critical path is the longest chain of items that wait for each other: no number of machines is faster.
    """
    number = {item.name: place for place, item in enumerate(items)}
    before = [[number[name] for name in item.after if name in number] for item in items]
    needs, after = [len(those) for those in before], [[] for _ in items]
    for place, those in enumerate(before):
        for needed in those:
            after[needed].append(place)
    ready, running = [place for place, count in enumerate(needs) if count == 0], []
    free, busy, order, now = list(range(machines)), [0.0] * machines, [], 0.0
    while ready or running:
        while ready and free:
            place, machine = heappop(ready), heappop(free)
            busy[machine] += seconds[place]
            heappush(running, (now + seconds[place], place, machine))
        now, place, machine = heappop(running)
        heappush(free, machine)
        order.append(place)
        for waiting in after[place]:
            needs[waiting] -= 1
            if needs[waiting] == 0:
                heappush(ready, waiting)
    chain: dict[int, tuple[float, int | None]] = {}
    for place in order:
        longest = max(((chain[needed][0], needed) for needed in before[place]), default=(0.0, None))
        chain[place] = longest[0] + seconds[place], longest[1]
    last, path = max(chain, key=lambda place: chain[place][0]), []
    path_seconds, step = chain[last][0], last
    while step is not None:
        path.insert(0, items[step])
        step = chain[step][1]
    return Plan(now, busy, path, path_seconds)


def read_machines(text: str) -> tuple[int, str]:
    """"8xH100": how many of which. Errors: InputError."""
    found = re.fullmatch(r"(\d{1,5})x([A-Za-z0-9-]+)", text)
    if not found or not 0 < int(found[1]) <= MOST_MACHINES:
        raise InputError(f"--machines is {text!r}; expected a number and a machine, such as 8xH100")
    return int(found[1]), found[2]


def machines_report(profile: str, text: str) -> str:
    """Hours per machine and the critical path of a profile, from the rates of such a machine. Errors: InputError."""
    count, name = read_machines(text)
    rates, origin = read_rates(name)
    items = items_of(profile)
    seconds = estimated_seconds(items, Remembered(profile, name, rates))
    plan = planned(items, seconds, count)
    hours = pd.Series(plan.busy) / 3600
    table = pd.DataFrame({"machine": range(1, count + 1), "hours": hours.round(1)})
    alone = f"{plan.path_seconds / 3600:,.1f} h, which no number of machines shortens"
    lines = [
        f"Profile {profile} on {count} x {name}: {len(items)} items, one at a time on each machine. Rates: {origin}.",
        "Attacks take at most this long: images that fall leave early.",
        NOT_COUNTED,
        f"\n{table_markdown(table)}" if count <= 64 else f"\n{hours.min():.1f} to {hours.max():.1f} hours a machine",
        f"Done after {plan.end / 3600:,.1f} h; {sum(plan.busy) / 3600:,.1f} machine-hours "
        f"({100 * sum(plan.busy) / (count * plan.end):.0f} % busy).",
        f"Critical path: {alone}:",
        *(f"  {seconds[items.index(item)] / 3600:6.2f} h  {item.name}" for item in plan.path),
    ]
    return "\n".join(lines)


def item_list(items: list[Item], meter: Meter | None) -> str:
    """A line per item: an estimate where there is one, its name, and what it waits for."""
    times = estimated_seconds(items, meter) if meter else [None] * len(items)
    lines = [f"{len(items)} items"]
    for item, seconds in zip(items, times, strict=True):
        about = "" if seconds is None else clock(seconds)
        lines.append(f"{about:>10}  {item.name}{'  after: ' * bool(item.after)}{'; '.join(item.after)}")
    if meter:
        lines.append(f"{clock(sum(times)):>10}  all of it, one after the other")
    return "\n".join(lines)
