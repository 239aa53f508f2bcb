"""Call functions in processes apart from this one, which end with it."""

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


class Processes:
    """Processes that take one call after the other: a new one starts only where all others are at work."""

    def __init__(self) -> None:
        self.idle: list[Connection] = []

    def call(self, function: Callable, *arguments: object) -> Apart:
        connection = self.idle.pop() if self.idle else _new_process()
        try:
            connection.send((function, arguments))
        except ConnectionError:  # it has died since its last answer
            connection = _new_process()
            connection.send((function, arguments))
        return Apart(connection, self.idle)


class Apart:
    """A call that runs in another process."""

    def __init__(self, connection: Connection, idle: list[Connection]) -> None:
        self.connection, self.idle = connection, idle

    def result(self) -> Any:
        """What the function returned, once it has. Raises ProcessDied."""
        try:
            value = self.connection.recv()
        except (EOFError, ConnectionError):  # the second where it died before it had read the call
            raise ProcessDied from None
        self.idle.append(self.connection)
        return value


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


def _new_process() -> Connection:
    # spawn: a forked child of a process that has used OpenMP is broken
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_answer, args=(theirs, os.getpid()), daemon=True).start()  # daemon: our exit ends it
    theirs.close()
    return ours


def _answer(connection: Connection, parent: int) -> None:
    set_environment()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:  # nobody will ask any more
            return
        connection.send(function(*arguments))


def _end_with(parent: int) -> None:
    """A start that was killed must not leave notebooks behind that the next start runs as well."""
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
