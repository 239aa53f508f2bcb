"""What a sweep is doing: lines or a live table in the terminal, and a web page that refreshes itself."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from snnlib.companion.runner.execute import clock
from snnlib.companion.runner.sweep import DONE, FAILED, LEFT, STARTED, Sweep
from snnlib.files import write_atomic
from snnlib.optional import needs
from snnlib.progress import progress_mode

TEMPLATE = Path(__file__).with_name("sweep.html.jinja")
PAGE = "sweep.html"
PAGE_SECONDS, LINE_SECONDS = 5.0, 20.0
SHOWN = 500
"""Rows of the page, those that matter most."""
ORDER = {STARTED: 0, FAILED: 1, LEFT: 2, "": 3, DONE: 4}
NAMES = {STARTED: "running", FAILED: "failed", LEFT: "left", "": "waiting", DONE: "done"}


@dataclass
class Watch:
    """Shows a sweep for as long as somebody calls it. lines: tell each item that ends."""

    sweep: Sweep
    lines: bool = False
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.told, self.paged, self.drawn = time.monotonic(), 0.0, 0
        self.mode = progress_mode()
        self.first = self.sweep.counts[DONE]

    @property
    def page(self) -> Path:
        return self.sweep.folder / PAGE

    def __call__(self) -> None:
        self.sweep.refresh()
        now = time.monotonic()
        if now - self.paged > PAGE_SECONDS:
            self.paged = now
            self.write_page()
        if self.mode == "bar":
            self.draw()
        elif self.mode != "off" and now - self.told > LINE_SECONDS:
            self.told = now
            print(self.summary(), flush=True)

    def seconds_left(self) -> float | None:
        """From the pace so far; None before a twentieth of the items is done here."""
        here = self.sweep.counts[DONE] - self.first
        if not here or here < len(self.sweep.items) / 20:
            return None
        return (time.monotonic() - self.started) / here * self.sweep.left

    def summary(self) -> str:
        """One line: done, running, failed, left, estimate."""
        sweep, left = self.sweep, self.seconds_left()
        waiting = sweep.left - len(sweep.running)
        failed = f", {sweep.counts[FAILED]} failed" * bool(sweep.counts[FAILED])
        about = "" if left is None or not sweep.left else f", about {clock(left)} left"
        done = f"{sweep.counts[DONE]} of {len(sweep.items)} done"
        return f"{done}, {len(sweep.running)} running{failed}, {waiting} wait{about}"

    def draw(self) -> None:
        """The summary and what runs, in place of what was drawn before."""
        width, now = shutil.get_terminal_size().columns - 1, time.time()
        sweep = self.sweep
        rows = [f"  {clock(now - sweep.state[place].since):>8}  {sweep.items[place].name}" for place in sweep.running]
        height = max(shutil.get_terminal_size().lines - 3, 1)
        lines = [self.summary(), *rows[:height]]
        text = f"\x1b[{self.drawn}A" * bool(self.drawn)
        text += "".join(f"\r\x1b[K{line[:width]}\n" for line in lines) + "\x1b[J"
        print(text, end="", file=sys.stderr, flush=True)
        self.drawn = len(lines)

    def write_page(self) -> None:
        """The page, at `page`; it refreshes itself while items are left. Errors: InputError without jinja2."""
        jinja2 = needs("jinja2", extra="report")
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
        template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
        rows = sorted(self.sweep.rows(), key=lambda row: ORDER[row[1].outcome])[:SHOWN]
        now = time.time()
        shown = [
            {
                "name": item.name,
                "state": NAMES[state.outcome],
                "time": clock(now - state.since if state.outcome == STARTED else state.seconds) * bool(state.outcome),
                "words": state.words,
                "worker": state.worker.rpartition("-")[0],
            }
            for item, state in rows
        ]
        content = template.render(
            title=self.sweep.folder.name,
            summary=self.summary(),
            share=100 * self.sweep.counts[DONE] / max(len(self.sweep.items), 1),
            rows=shown,
            more=len(self.sweep.items) - len(shown),
            refresh=int(PAGE_SECONDS) if self.sweep.left else 0,
            written=time.strftime("%Y-%m-%d %H:%M:%S"),
        )
        write_atomic(self.page, content)
