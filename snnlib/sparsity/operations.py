"""Listening to the leaf modules of a model: the gradients on both sides of each, averaged as they pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from snnlib.encoding import EventEncoder
from snnlib.errors import InputError
from snnlib.neurons import LIF
from snnlib.neurons.modules import call_name
from snnlib.sparsity.measures import l2, small_share, zero_share

COMPUTES_NOTHING = (nn.Identity, nn.Flatten, nn.Sequential, EventEncoder)
KNOWS_NO_TIME = (_ConvNd, _NormBase, _MaxPoolNd, _AvgPoolNd, _AdaptiveMaxPoolNd, _AdaptiveAvgPoolNd)
"""Layers whose leading axis is the batch, N or T·N, whatever the sizes of the other axes."""


@dataclass
class GradientTally:
    """Running averages over time, calls, samples and batches of the gradients on one side of an operation."""

    zeros: float = 0.0
    small: float = 0.0
    entries: int = 0
    norms: float = 0.0
    samples: int = 0
    _squares: Tensor | None = None

    def add(self, grad: Tensor) -> None:
        """One call's gradient `[N, ...]`; an operation that is called once per time step adds T of them."""
        self.zeros += float(zero_share(grad).sum()) * grad[0].numel()
        self.small += float(small_share(grad).sum()) * grad[0].numel()
        self.entries += grad.numel()
        squares = l2(grad).square()
        self._squares = squares if self._squares is None else self._squares + squares

    def close_batch(self) -> None:
        """A sample's norm runs over all its calls: the root is taken once its batch is complete."""
        if self._squares is not None:
            self.norms += float(self._squares.sqrt().sum())
            self.samples += len(self._squares)
            self._squares = None

    def averages(self) -> tuple[float, float, float]:
        """Zero share and small share over all entries, norm over all samples; NaN if nothing arrived."""
        if self.samples == 0:
            return math.nan, math.nan, math.nan
        return self.zeros / self.entries, self.small / self.entries, self.norms / self.samples


@dataclass
class Operation:
    """One leaf module that ran, with what was seen on both of its sides."""

    name: str
    kind: str
    block: str
    grad_input: GradientTally = field(default_factory=GradientTally)
    grad_output: GradientTally = field(default_factory=GradientTally)
    fired: Tensor | None = None

    def see_spikes(self, spikes: Tensor) -> None:
        """Remember which channels (axis 2 of `[T, N, C, ...]`) fired at least once."""
        fired = spikes.detach().ne(0).movedim(2, 0).flatten(1).any(1)
        self.fired = fired if self.fired is None else self.fired | fired

    def row(self) -> dict[str, object]:
        zero_input, small_input, norm = self.grad_input.averages()
        zero_output, small_output, _ = self.grad_output.averages()
        return {
            "operation": self.name,
            "kind": self.kind,
            "block": self.block,
            "inside_residual_block": self.block != "",
            "zero_share_grad_input": zero_input,
            "zero_share_grad_output": zero_output,
            "small_share_grad_input": small_input,
            "small_share_grad_output": small_output,
            "l2_grad_input": norm,
            "elements": self.grad_input.entries // max(self.grad_input.samples, 1),
            "dead_share": math.nan if self.fired is None else 1 - float(self.fired.double().mean()),
        }


class Listener:
    """Hooks on every leaf module of `model`; `operations` fills in the order in which they first run.

    image_axes: number of axes of the images, or of frames of events, batch included. Neurons hold no state, so each
    call of one within a pass is an operation of its own; all calls of another module are one, as it may run once per
    time step.

    An operation's input is replaced by an alias that it alone consumes, and the hook sits on that tensor:
    what is read is the operation's own part of the gradient, without the part of a shortcut that shares the
    input. A layer that works in place gets a copy instead, because it would overwrite the alias.
    """

    def __init__(self, model: nn.Module, image_axes: int) -> None:
        self._leaves = list(leaf_modules(model))
        self._image_axes = image_axes
        self._own_steps = getattr(getattr(model, "encoder", None), "time_steps", None)
        self._time_steps: set[int | None] = set()
        self._calls: Counter[nn.Module] = Counter()
        self._running: dict[str, Operation] = {}

    @property
    def operations(self) -> list[Operation]:
        return list(self._running.values())

    @contextmanager
    def batch(self, samples: int) -> Iterator[None]:
        """Listen to one forward and backward pass over `samples` samples."""
        handles = []
        self._time_steps = {self._own_steps}
        self._calls.clear()
        try:
            for name, module, block in self._leaves:
                enter, leave = self._hooks(name, block, samples)
                handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
            yield
        finally:
            for handle in handles:
                handle.remove()
        for operation in self.operations:
            operation.grad_input.close_batch()
            operation.grad_output.close_batch()

    def _hooks(self, name: str, block: str, samples: int):
        def operation(module: nn.Module) -> Operation:
            own = call_name(name, self._calls[module] if isinstance(module, LIF) else 1)
            return self._running.setdefault(own, Operation(own, type(module).__name__, block))

        def listen(tensor: Tensor, tally: GradientTally, module: nn.Module) -> None:
            def read(grad: Tensor) -> None:
                tally.add(samples_first(grad, samples, self._has_time_first(module, grad, samples)))

            tensor.register_hook(read)

        def enter(module: nn.Module, arguments: tuple) -> tuple:
            self._calls[module] += 1
            entered = operation(module)
            shared = arguments[0] if arguments else None
            if isinstance(module, LIF):
                self._time_steps.add(len(shared))
            if not (isinstance(shared, Tensor) and shared.is_floating_point() and torch.is_grad_enabled()):
                return arguments
            tracked = shared if shared.requires_grad else shared.detach().requires_grad_(True)
            alias = tracked.clone() if getattr(module, "inplace", False) else tracked.view_as(tracked)
            listen(alias, entered.grad_input, module)
            return (alias, *arguments[1:])

        def leave(module: nn.Module, arguments: tuple, output: object) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                listen(tensor, operation(module).grad_output, module)
            if isinstance(module, LIF) and tensor.dim() > 2:
                operation(module).see_spikes(tensor)

        return enter, leave

    def _has_time_first(self, module: nn.Module, grad: Tensor, samples: int) -> bool:
        """Whether `grad` is `[T, N, ...]`: at a neuron always; else by its axes, and by how many steps the neurons ran.

        One axis more than the images is time. Three axes are `[T, N, features]` of a flattened map, unless as many
        samples as there are steps leave it open and nothing ran for that many.
        """
        if isinstance(module, LIF):
            return True
        if isinstance(module, KNOWS_NO_TIME) or grad.dim() < 3 or grad.shape[1] != samples:
            return False
        if grad.dim() == self._image_axes + 1:
            return True
        return grad.dim() == 3 and (len(grad) in self._time_steps or len(grad) % samples != 0)


def leaf_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name, module and residual block of every operation: the innermost block around it, or ""."""
    blocks = {name for name, module in model.named_modules() if getattr(module, "is_residual_block", False)}
    for name, module in model.named_modules():
        if any(module.children()) or isinstance(module, COMPUTES_NOTHING):
            continue
        parents = (name[:end] for end, character in enumerate(name) if character == ".")
        yield name, module, max((parent for parent in parents if parent in blocks), key=len, default="")


def samples_first(tensor: Tensor, samples: int, time_first: bool) -> Tensor:
    """`[T, N, ...]`, or `[T·N, ...]` of a layer without time, to `[N, T, ...]`.

    Errors: InputError if the leading axis is no multiple of the number of samples.
    """
    if time_first:
        return tensor.transpose(0, 1)
    if len(tensor) % samples:
        shape = list(tensor.shape)
        raise InputError(f"a layer saw {shape} for {samples} samples; expected [N, ...] or [T*N, ...]")
    return tensor.reshape(-1, samples, *tensor.shape[1:]).transpose(0, 1)
