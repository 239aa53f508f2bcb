"""Sweeps of functions that note what they do, so that a test sees who made what."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from snnlib.companion.runner.items import Item

NOTING = '''
import os, signal, time
from pathlib import Path

def note(name, folder):
    with open(Path(folder) / "made", "a", encoding="utf-8") as stream:
        stream.write(f"{name}\\n")
    return "made"

def slow(name, folder, seconds):
    (Path(folder) / f"at-{os.getpid()}").touch()
    time.sleep(seconds)
    return note(name, folder)

def fail(name, folder):
    raise ValueError("no")

def die(name, folder, times):
    """Killed while it works, so many times."""
    died = Path(folder) / "died"
    before = len(died.read_text()) if died.exists() else 0
    if before < times:
        died.write_text("x" * (before + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return note(name, folder)

def out_of_time(name, folder):
    from snnlib.companion.measure.networks import OutOfTime
    raise OutOfTime("the time limit has passed")
'''


@pytest.fixture
def noting(home: Path) -> Callable[..., Item]:
    """`noting(name, *after, do="note", **more)`: an item that writes its name into `home`/made."""
    path = home / "noting.py"
    path.write_text(NOTING, encoding="utf-8")

    def item(name: str, *after: str, do: str = "note", **more: object) -> Item:
        return Item(name, f"{path}:{do}", {"name": name, "folder": str(home), **more}, after)

    return item


@pytest.fixture
def made(home: Path) -> Callable[[], list[str]]:
    """What has been made, in order."""
    path = home / "made"
    return lambda: path.read_text(encoding="utf-8").split() if path.exists() else []


@pytest.fixture
def environment_kept() -> None:
    """What a worker in this process puts into the environment is taken out again."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
