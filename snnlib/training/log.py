"""log.jsonl: one line per epoch, for people and plots.

The checkpoint decides which epochs there are. The file is rewritten whole after every epoch, so the two agree
again at the next write even if the process died between them. Times live here and only here, because a
checkpoint's bytes must not depend on them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from snnlib.errors import InputError
from snnlib.files import write_atomic
from snnlib.progress import progress_mode

TIMES = ("seconds", "images_per_second")


class EpochLog:
    """The log of one run; takes over the times of epochs that an earlier process trained."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            known = read_log(path)
        except InputError as damage:  # the epochs stand in the checkpoint; what is lost are their times
            announce(f"warning: {damage}")
            known = []
        self._times = {line["epoch"]: {key: line[key] for key in TIMES} for line in known}

    def write(self, history: Sequence[dict]) -> None:
        """Make the file hold exactly the epochs of `history`; times that are not known are null."""
        unknown = dict.fromkeys(TIMES)
        lines = [{**record, **self._times.get(record["epoch"], unknown)} for record in history]
        write_atomic(self.path, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))

    def set_times(self, epoch: int, seconds: float, images_per_second: float) -> None:
        """seconds: training and validation. images_per_second: training alone."""
        self._times[epoch] = {"seconds": round(seconds, 3), "images_per_second": round(images_per_second, 1)}


def announce(line: str) -> None:
    """Show a line at once, where `snnlib.progress` shows the progress: above the bar, or in its file."""
    mode = progress_mode()
    if mode.startswith("file:"):
        with open(mode.removeprefix("file:"), "a", encoding="utf-8") as stream:
            stream.write(line + "\n")
    elif mode != "off":
        tqdm.write(line, file=sys.stderr)


def read_log(path: Path | str) -> list[dict]:
    """The lines of a log.jsonl as dicts; an absent file has none. Errors: InputError naming a bad line."""
    path = Path(path)
    lines = []
    content = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for number, text in enumerate(content.splitlines(), start=1):
        try:
            line = json.loads(text)
            line["epoch"], line["seconds"], line["images_per_second"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"line {number} of {path} is no log line; delete the file, training rebuilds it"
            ) from error
        lines.append(line)
    return lines
