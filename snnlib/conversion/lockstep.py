"""Several forward passes that halt in front of every layer of a kind, so that each layer can be set before it acts.

A threshold depends on the currents of all calibration batches, and the currents of the next layer on that threshold.
Running the batches side by side computes each layer once per batch. Starting over for every layer, as the authors' code
does, computes those in front of it each time: about L/2 times as much for L layers, with one batch in memory.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Value = TypeVar("Value")


class _Abandoned(BaseException):
    """Unwinds a forward pass that nobody waits for; not an Exception, so that no model catches it."""


class _Walk(threading.Thread):
    """One forward pass in a thread of its own. It runs only while `advance` waits for it: never two at once."""

    def __init__(self, run: Callable[[int], object], batch: int) -> None:
        super().__init__(daemon=True)
        self.batch = batch
        self._run = run
        self._turn, self._answer = threading.Semaphore(0), threading.Semaphore(0)
        self._abandoned = False
        self._error: Exception | None = None
        self.layer: nn.Module | None = None
        self.currents: Tensor | None = None

    def advance(self) -> None:
        """Go on to the next halt: `layer` and the `currents` it is about to receive; both None at the end."""
        self.layer = self.currents = None
        if self.is_alive():
            self._turn.release()
        else:
            self.start()
        self._answer.acquire()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """End the pass where it stands; its memory is free when this returns."""
        self._abandoned = True
        self._turn.release()
        if self.is_alive():
            self.join()
        self.layer = self.currents = None

    def halt(self, layer: nn.Module, currents: Tensor) -> None:
        """Called by the pass itself: hand over, and wait for the next turn."""
        self.layer, self.currents = layer, currents
        self._answer.release()
        self._turn.acquire()
        if self._abandoned:
            raise _Abandoned

    def run(self) -> None:
        try:
            with torch.inference_mode():  # belongs to a thread, not to the process
                self._run(self.batch)
        except _Abandoned:
            return
        except Exception as error:
            self._error = error
        self._answer.release()


def layer_by_layer(
    run: Callable[[int], object],
    count: int,
    layers: Iterable[nn.Module],
    measure: Callable[[Tensor], Value],
    memory_budget: int,
) -> Iterator[tuple[nn.Module, list[Value]]]:
    """Yield each of `layers` in forward order with `measure(its input)` for every batch, before it acts on any.

    `run(i)` is the forward pass of batch i = 0..count−1, made without gradients; what the caller changes on the layer
    before asking for the next one is what all batches go on with. Passes that meet no layer yield nothing.

    memory_budget: bytes for passes that wait while others are measured; one that would exceed it is given up and
    starts over for the next layer. Results do not depend on it. A waiting pass counts as twice the layer's input: that,
    and the tensor it was computed from. Beside the budget: the pass at work, and what networks keep for shortcuts.
    """
    walks: list[_Walk | None] = [None] * count
    try:
        with _halting_at(layers):
            for number in itertools.count():
                values = []
                for batch in range(count):
                    walks[batch] = walk = _advanced(walks[batch], run, batch, number)
                    if walk.layer is not None:
                        layer = walk.layer
                        values.append(measure(walk.currents))
                    if sum(map(_held_bytes, walks)) > memory_budget:
                        walk.abandon()
                        walks[batch] = None
                if not values:
                    return
                yield layer, values
    finally:
        for walk in walks:
            if walk is not None:
                walk.abandon()


def _advanced(walk: _Walk | None, run: Callable[[int], object], batch: int, number: int) -> _Walk:
    """The pass of a batch in front of layer `number`, from the layer before it or from the beginning."""
    steps = 1
    if walk is None:
        walk, steps = _Walk(run, batch), number + 1
    for _ in range(steps):
        walk.advance()
    return walk


def current_batch() -> int:
    """For hooks that run inside a pass of `layer_by_layer`: the number of its batch."""
    return threading.current_thread().batch


def _held_bytes(walk: _Walk | None) -> int:
    """A static input takes the memory of one time step, however often it is repeated."""
    return 0 if walk is None or walk.currents is None else 2 * walk.currents.untyped_storage().nbytes()


@contextmanager
def _halting_at(layers: Iterable[nn.Module]) -> Iterator[None]:
    def halt(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        threading.current_thread().halt(layer, arguments[0])

    hooks = [layer.register_forward_pre_hook(halt) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
