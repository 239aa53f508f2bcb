"""CUDA graphs: the passes of a training step are recorded once and replayed.

At the batch sizes of both papers a GPU waits for its host, which has hundreds of kernels to launch for one pass; a
recorded pass is one launch. A recording holds for one shape, one set of modes and one way of differentiating spikes,
and is made anew for others. Replayed kernels are those that would have run, in the same order: the same bytes. Every
recording keeps the memory of one pass; where there is none left for another, training goes on without any.
"""

from __future__ import annotations

import gc
import os
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from snnlib.encoding import PoissonEncoder
from snnlib.models import Model
from snnlib.neurons import kernels, neurons_of
from snnlib.training.recipe import Recipe

REPLAYABLE = frozenset({"natural", "adversarial", "trades", "mart", "consistency", "clean_and_adversarial", "score"})
"""Objectives that ask the model for logits alone, and differentiate them once."""
MOST_RECORDINGS = 24
"""A training needs up to a dozen: two batch sizes, pass and attack, with and without gradient."""
WARM_UP_PASSES = 2
"""Before a recording: kernels are compiled and chosen in them."""


class Recording(Protocol):
    """A pass that can be done again on other values of the same shape."""

    lease: Callable[[], Lease | None]

    def forward(self, x: Tensor) -> Tensor: ...

    def backward(self, g_logits: Tensor) -> list[Tensor | None]: ...


class Lease:
    """Held by a pass whose gradient is still to come: until then no other pass may overwrite what it saved."""

    open = True


@contextmanager
def same_memory(model: nn.Module) -> Iterator[dict[Tensor, Tensor]]:
    """Inside, the model's parameters are other leaves over the same memory; yields them by parameter.

    Autograd ties a leaf to the stream on which it was first used, as long as any graph holds it: a recording that met
    one of another stream would have to wait for that stream, which a recording cannot.
    """
    held = [(part, *item) for part in model.modules() for item in part._parameters.items() if item[1] is not None]
    twins = {weight: nn.Parameter(weight.detach(), weight.requires_grad) for _, _, weight in held}
    try:
        for module, name, weight in held:
            module._parameters[name] = twins[weight]
        yield twins
    finally:
        for module, name, weight in held:
            module._parameters[name] = weight


class CudaRecording:
    """Forward and backward of `model` as two CUDA graphs over fixed memory; the weights are those of the model.

    inputs: what the backward pass differentiates by, the points first where they want a gradient; empty: no backward.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], model: nn.Module, x: Tensor, weights: list[Tensor]) -> None:
        self.lease: Callable[[], Lease | None] = lambda: None
        self._x = x.detach().clone().requires_grad_(x.requires_grad)
        buffers = {buffer: buffer.clone() for buffer in model.buffers()}
        random_state = torch.cuda.get_rng_state(x.device)
        gc.collect()  # nothing may be freed while a graph is captured
        try:
            with torch.cuda.device(x.device), same_memory(model) as twins:
                self._inputs = [*([self._x] if x.requires_grad else []), *(twins[weight] for weight in weights)]
                # On leaving, also by an error, the current stream is what it was.
                with torch.cuda.stream(torch.cuda.current_stream()):
                    self._record(forward, torch.cuda.Stream())
        finally:
            for buffer, before in buffers.items():
                buffer.data.copy_(before)  # a graph that saved the buffer saw this very value
            torch.cuda.set_rng_state(random_state, x.device)

    def _record(self, forward: Callable[[Tensor], Tensor], aside: torch.cuda.Stream) -> None:
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP_PASSES):
                logits = forward(self._x)
                if self._inputs:
                    self._g_logits = torch.zeros_like(logits)
                    self._differentiated(logits)
                del logits
        torch.cuda.current_stream().wait_stream(aside)
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._forward, stream=aside):
            logits = forward(self._x)
        if self._inputs:
            with torch.cuda.graph(self._backward, pool=self._forward.pool(), stream=aside):
                self._gradients = self._differentiated(logits)
        self._logits = logits.detach()

    def _differentiated(self, logits: Tensor) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(logits, self._inputs, self._g_logits, allow_unused=True)

    def forward(self, x: Tensor) -> Tensor:
        self._x.detach().copy_(x)
        self._forward.replay()
        return self._logits.clone()

    def backward(self, g_logits: Tensor) -> list[Tensor | None]:
        """Gradients in the order of `inputs`. Those of weights are the recording's own memory until its next pass."""
        self._g_logits.copy_(g_logits)
        self._backward.replay()
        return [None if gradient is None else gradient.detach() for gradient in self._gradients]


class _Pass(torch.autograd.Function):
    """One replayed pass as autograd sees it."""

    @staticmethod
    def forward(ctx, recording: Recording, lease: Lease, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.recording, ctx.lease, ctx.wants_slope = recording, lease, x.requires_grad
        return recording.forward(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_logits: Tensor):
        if not ctx.lease.open:
            raise RuntimeError("a replayed pass was differentiated twice; its memory may hold another pass by now")
        gradients = ctx.recording.backward(g_logits)
        ctx.lease.open = False
        if not ctx.wants_slope:
            return None, None, None, *gradients
        slope, *others = gradients
        # An attack may keep the slopes of earlier steps; weights' gradients are used up before the next pass.
        return None, None, None if slope is None else slope.clone(), *others


class Situation(NamedTuple):
    """All that decides which kernels a pass launches."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    differentiated: bool
    wants_slope: bool
    training: tuple[bool, ...]
    trainable: tuple[bool, ...]
    surrogates: tuple[Hashable, ...]


class ReplayedPasses:
    """`model(x)` by recordings, inside `active()`; without them where a hook or an attacker's rule wants to look in.

    Batches of a size that does not train, such as what is left of one in an attack, are not worth a recording.
    record: makes a `Recording` from `(forward, model, x, weights)`; where it fails, none is made from then on.
    sizes: of batches that come again, beside those that train.
    """

    def __init__(
        self, model: nn.Module, record: Callable[..., Recording] = CudaRecording, sizes: Iterable[int] = ()
    ) -> None:
        self._model, self._record = model, record
        self._modules, self._weights = list(model.modules()), list(model.parameters())
        self._buffers = [(module._buffers, *item) for module in self._modules for item in module._buffers.items()]
        self._neurons = neurons_of(model)
        self._sizes = set(sizes)
        self._room = MOST_RECORDINGS
        self.recordings: dict[Situation, list[Recording]] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        before = vars(self._model).get("forward")
        self._plain = self._model.forward
        self._model.forward = self._replayed
        try:
            yield
        finally:
            del self._model.forward
            if before is not None:
                self._model.forward = before

    def _replayed(self, x: Tensor) -> Tensor:
        if self._model.training:
            self._sizes.add(len(x))
        if self._is_watched() or len(x) not in self._sizes:
            return self._plain(x)
        wanted = self._situation(x)
        recording = self._free(wanted) or self._new(wanted, x)
        if recording is None:
            return self._plain(x)
        if not wanted.differentiated:
            return recording.forward(x)
        lease = Lease()
        recording.lease = weakref.ref(lease)
        return _Pass.apply(recording, lease, x, *self._differentiated_weights(wanted))

    def _new(self, wanted: Situation, x: Tensor) -> Recording | None:
        if self._room == 0:
            return None
        try:
            with torch.set_grad_enabled(wanted.differentiated):
                recording = self._record(self._plain, self._model, x, self._differentiated_weights(wanted))
        except RuntimeError as error:  # no memory, or what cannot be recorded: the plain pass does it, or tells
            self._room = 0
            self.recordings.clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f"snnlib: training goes on without CUDA graphs: {reason}", stacklevel=2)
            return None
        self._room -= 1
        self.recordings.setdefault(wanted, []).append(recording)
        return recording

    def _is_watched(self) -> bool:
        """Whether something wants to see, or has changed, what a recording would not show, or does not know."""
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        if torch.is_anomaly_enabled() or any(getattr(module, name) for module in self._modules for name in hooks):
            return True
        if any(held[name] is not buffer for held, name, buffer in self._buffers):
            return True
        return any(neuron.rule is not None for neuron in self._neurons)

    def _situation(self, x: Tensor) -> Situation:
        trainable = tuple(weight.requires_grad for weight in self._weights)
        differentiated = torch.is_grad_enabled() and (x.requires_grad or any(trainable))
        return Situation(
            x.shape, x.stride(), x.dtype, differentiated, differentiated and x.requires_grad,
            tuple(module.training for module in self._modules), trainable,
            tuple(neuron.surrogate for neuron in self._neurons) if differentiated else (),
        )  # fmt: skip

    def _differentiated_weights(self, wanted: Situation) -> list[Tensor]:
        if not wanted.differentiated:
            return []
        return [weight for weight in self._weights if weight.requires_grad]

    def _free(self, wanted: Situation) -> Recording | None:
        for recording in self.recordings.get(wanted, ()):
            lease = recording.lease()
            if lease is None or not lease.open:
                return recording
        return None


class PlainPasses:
    """The model as it is."""

    @contextmanager
    def active(self) -> Iterator[None]:
        yield


def passes_of(model: nn.Module, recipe: Recipe, device: torch.device) -> ReplayedPasses | PlainPasses:
    """Replayed passes on CUDA, for trainings of which they compute the same; `SNNLIB_CUDA_GRAPHS=0` switches them off.

    Networks of our own layers and PyTorch's alone: others may decide in Python what they compute. Not for Poisson
    coding, whose seed changes from pass to pass, BatchNorm that averages over all batches (it asks the device how
    many), neurons that run as a plain loop (a trainable threshold's gradient is then summed otherwise), objectives
    outside `REPLAYABLE`, curricula (the number of time steps changes) and autocast.
    """
    wanted = device.type == "cuda" and os.environ.get("SNNLIB_CUDA_GRAPHS") != "0" and recipe.objective in REPLAYABLE
    plain = recipe.curriculum is None and recipe.precision == "float32"
    return ReplayedPasses(model) if wanted and plain and _is_fixed(model) else PlainPasses()


def _is_fixed(model: nn.Module) -> bool:
    """Whether a pass of `model` launches the same kernels every time."""
    if not isinstance(model, Model) or model.config.get("time_steps", 1) > kernels.LONGEST_UNROLLED_LOOP:
        return False
    known = all(type(part).__module__.split(".")[0] in ("snnlib", "torch") for part in model.modules())
    drawn = any(isinstance(part, PoissonEncoder) for part in model.modules())
    asks = any(isinstance(part, _BatchNorm) and part.momentum is None for part in model.modules())
    return known and not drawn and not asks and kernels.kernel_name("cuda") == "compiled"
