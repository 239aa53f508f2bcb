"""Call functions in processes of their own, which end with this one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from snnlib.runtime import set_environment

SECONDS_BETWEEN_LOOKS = 1.0


class ProcessDied(Exception):
    """The process ended before it gave a result."""


class Apart:
    """A call that runs in a new process."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        # spawn: a forked child of a process that has used OpenMP is broken
        context = get_context("spawn")
        self.connection, theirs = context.Pipe(duplex=False)
        call = (theirs, os.getpid(), function, arguments)
        context.Process(target=_answer, args=call, daemon=True).start()  # daemon: this process's exit ends it
        theirs.close()

    def result(self) -> Any:
        """What the function returned, once it has. Raises ProcessDied."""
        try:
            return self.connection.recv()
        except EOFError:
            raise ProcessDied from None


class Here:
    """The same in this process, at once."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.connection, self.value = None, function(*arguments)

    def result(self) -> Any:
        return self.value


def ended(calls: Iterable[Apart | Here]) -> list[Apart | Here]:
    """Those of `calls` that have a result or have died; waits until one has."""
    calls = list(calls)
    here = [call for call in calls if call.connection is None]
    if here or not calls:
        return here
    ready = wait([call.connection for call in calls])
    return [call for call in calls if call.connection in ready]


def _answer(connection: Connection, parent: int, function: Callable, arguments: tuple) -> None:
    set_environment()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    connection.send(function(*arguments))


def _end_with(parent: int) -> None:
    """A start that was killed must not leave notebooks behind that the next start runs as well."""
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
