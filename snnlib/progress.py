"""One progress bar for every long loop, fit for a terminal, a log file and a notebook that is being executed.

`SNNLIB_PROGRESS` overrides the choice: `off`, `bar`, `lines`, or `file:PATH`. The last one appends
lines to PATH, where the notebook runner picks them up, so that the outputs stored in a notebook stay clean.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from snnlib.errors import InputError

LOG_SECONDS = 30.0
FILE_SECONDS = 1.0
NOTEBOOK_COLUMNS = 100
_COUNTED = (
    "{desc}: {n_fmt}/{total_fmt} ({percentage:.0f} %), {elapsed} elapsed, about {remaining} left{postfix}"
)
_OPEN_ENDED = "{desc}: {n_fmt}, {elapsed} elapsed{postfix}"


class _Lines:
    """Stream for tqdm that turns its redrawn bar into whole lines, at most one per interval."""

    def __init__(self, target: TextIO | Path, seconds: float) -> None:
        self.target, self.seconds = target, seconds
        self.last_time, self.pending, self.last_line = time.monotonic(), "", ""

    def write(self, text: str) -> None:
        line_is_due = time.monotonic() - self.last_time >= self.seconds
        bar_is_closing = text == "\n"
        self.pending = text.strip() or self.pending
        if (line_is_due or (bar_is_closing and self.last_line)) and self.pending not in ("", self.last_line):
            self.print_line(self.pending)

    def flush(self) -> None:
        """Lines are flushed as they are written."""

    def print_line(self, line: str) -> None:
        if isinstance(self.target, Path):
            with open(self.target, "a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        else:
            print(line, file=self.target, flush=True)
        self.last_time, self.pending, self.last_line = time.monotonic(), "", line


def progress_mode() -> str:
    """`SNNLIB_PROGRESS`, else off under pytest, bar on a terminal or in a live notebook, else lines."""
    wanted = os.environ.get("SNNLIB_PROGRESS", "")
    if wanted in ("off", "bar", "lines") or wanted.removeprefix("file:") not in (wanted, ""):
        return wanted
    if wanted:
        raise InputError(f"SNNLIB_PROGRESS is {wanted!r}; expected off, bar, lines or file:PATH; unset it")
    if "PYTEST_CURRENT_TEST" in os.environ:
        return "off"
    return "bar" if sys.stderr.isatty() or _in_live_notebook() else "lines"


def say(text: str) -> None:
    """One line about work that takes a while, where progress is shown."""
    mode = progress_mode()
    if mode.startswith("file:"):
        _Lines(Path(mode.removeprefix("file:")), FILE_SECONDS).print_line(text)
    elif mode != "off":
        print(text, file=_screen(), flush=True)


def progress(iterable: Iterable | None = None, *, total: int | None = None, label: str) -> tqdm:
    """Show how far a loop is, under the name `label`, with an estimate of the time left if `total` is known.

    Returns a tqdm: iterate it, or call `update(n)` and `close()`; `set_postfix(loss=...)` adds numbers.
    """
    mode = progress_mode()
    if mode == "off":
        return tqdm(iterable, total=total, desc=label, disable=True)
    if mode == "bar":
        width = {"ncols": NOTEBOOK_COLUMNS} if _in_live_notebook() else {"dynamic_ncols": True}
        return tqdm(iterable, total=total, desc=label, file=_screen(), leave=False, **width)
    to_file = mode.startswith("file:")
    seconds = FILE_SECONDS if to_file else LOG_SECONDS
    bar = tqdm(
        iterable,
        total=total,
        desc=label,
        file=_Lines(Path(mode.removeprefix("file:")) if to_file else sys.stderr, seconds),
        position=0,
        leave=True,
        miniters=1,
        mininterval=min(seconds, 1.0),
        maxinterval=seconds,
    )
    bar.bar_format = _COUNTED if bar.total else _OPEN_ENDED
    return bar


def _in_live_notebook() -> bool:
    return type(sys.stderr).__module__.startswith("ipykernel")


def _screen() -> TextIO:
    """Jupyter puts what comes by stderr into a pink box, as if it were an error."""
    return sys.stdout if _in_live_notebook() else sys.stderr
