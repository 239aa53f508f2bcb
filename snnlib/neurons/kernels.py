"""The neuron as two fused loops under torch.compile: a forward, and a closed-form backward.

Only these pure loops are compiled, never the autograd around them, so that second-order gradients stay possible.
Both work on `[T, M]` with T unrolled and M dynamic: a batch that shrinks during an attack reuses the same code.

The backward saves the *input* and recomputes the charged membrane in registers. That costs T multiply-adds and
spares writing and reading one more tensor of the input's size; memory saved is one tensor either way.
"""

from __future__ import annotations

import os
import shutil
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache

import torch
from torch import Tensor

from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate
from snnlib.progress import say

LONGEST_UNROLLED_LOOP = 64
SMALLEST_COMPILED_WIDTH = 2  # torch.compile specialises sizes 0 and 1
GPU_OPTIONS = {
    "emulate_precision_casts": True,
    "realize_opcount_threshold": 0,
    "realize_reads_threshold": 0,
    "max_fusion_size": 4096,
}
"""Of Inductor. The first switches the contraction of a * b + c off, which rounds once where the reference rounds twice
and flips spikes at the threshold. The others keep one kernel however many the time steps, and name every intermediate
result, so that a stack of time steps is written where it is computed: else each of up to 8 frames is computed anew from
the first on (T = 4: 17 loads, not 6)."""

KERNEL = "SNNLIB_KERNEL"
"""Environment variable: "reference" compiles nothing, which saves some seconds where networks are small."""
_choice: str | None = None
_compilations = 0
_failed = False


def _charge(x: Tensor, v: Tensor | None, leak: Tensor) -> Tensor:
    return x if v is None else leak * v + x


def _forward_loop(reset: str, out_dtype: torch.dtype, want_v_last: bool) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def lif_forward(currents, v0, leak, threshold):
        v, spikes = v0, []
        for x in currents.unbind(0):
            h = _charge(x.to(leak.dtype), v, leak)
            s = (h - threshold >= 0).to(h.dtype)
            v = h * (1 - s) if reset == "hard" else h - threshold * s
            spikes.append(s.to(out_dtype))
        return torch.stack(spikes), v if want_v_last else None

    return lif_forward


def _backward_loop(
    formula: Callable[..., Tensor], reset: str, detach_reset: bool, threshold_gradient: bool
) -> Callable[..., tuple[Tensor, ...]]:
    """Reverse sweep of `lif_reference`; g_ marks a derivative of the loss."""

    def lif_backward(g_spikes, g_v_last, currents, v0, leak, threshold, *coefficients):
        v, charged = v0, []
        for x in currents.unbind(0):
            h = _charge(x.to(leak.dtype), v, leak)
            s = (h - threshold >= 0).to(h.dtype)
            v = h * (1 - s) if reset == "hard" else h - threshold * s
            charged.append(h)

        g_v = g_v_last if g_v_last is not None else torch.zeros_like(v)
        g_threshold = torch.zeros_like(v) if threshold_gradient else None
        g_currents = []
        for h, g_s in zip(reversed(charged), reversed(g_spikes.unbind(0)), strict=True):
            u = h - threshold
            s = (u >= 0).to(h.dtype)
            g_s = g_s.to(h.dtype)
            if not detach_reset:
                g_s = g_s - g_v * (h if reset == "hard" else threshold)
            through_spike = g_s * formula(u, *coefficients)
            if threshold_gradient:
                g_threshold = g_threshold - through_spike - (0 if reset == "hard" else g_v * s)
            g_h = g_v * (1 - s) + through_spike if reset == "hard" else g_v + through_spike
            g_currents.append(g_h.to(currents.dtype))
            g_v = leak * g_h
        return torch.stack(g_currents[::-1]), None if v0 is None else g_v, g_threshold

    return lif_backward


def _counting_inductor(graph, example_inputs):
    global _compilations
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx

    if _compilations == 0:
        say("snnlib compiles its neurons on first use: up to half a minute, and seconds from then on")
    _compilations += 1
    on_gpu = any(isinstance(value, Tensor) and value.is_cuda for value in example_inputs)
    known = {name: value for name, value in GPU_OPTIONS.items() if on_gpu and hasattr(config, name)}
    return compile_fx(graph, example_inputs, config_patches=known)


def compilations() -> int:
    """How many graphs this process has compiled for neurons so far."""
    return _compilations


def _compile(loop: Callable, name: str) -> Callable:
    """Compile a copy of `loop` with a code object of its own: torch.compile counts recompilations per code object."""
    own = types.FunctionType(
        loop.__code__.replace(co_name=name), loop.__globals__, name, loop.__defaults__, loop.__closure__
    )
    return torch.compile(own, backend=_counting_inductor, dynamic=True)


@cache
def forward_kernel(
    time_steps: int, reset: str, out_dtype: torch.dtype, device: str, has_v0: bool, want_v_last: bool
) -> Callable:
    """Compiled forward `(currents [T, M], v0 [M] | None, leak, threshold) -> (spikes [T, M], v_last [M] | None)`."""
    return _compile(_forward_loop(reset, out_dtype, want_v_last), f"lif_forward_{time_steps}")


@cache
def backward_kernel(
    time_steps: int,
    formula: Callable[..., Tensor],
    reset: str,
    detach_reset: bool,
    threshold_gradient: bool,
    dtype: torch.dtype,
    device: str,
    has_v0: bool,
    has_g_v: bool,
) -> Callable:
    """Compiled backward: derivatives of currents `[T, M]`, v0 (`[M]` or None), threshold (`[M]`, summed later)."""
    return _compile(_backward_loop(formula, reset, detach_reset, threshold_gradient), f"lif_backward_{time_steps}")


@lru_cache(maxsize=256)
def scalar(role: str, value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A 0-dimensional tensor, shared between calls: a number baked into a kernel would recompile it when it changes.

    `role` keeps equal numbers apart: torch.compile guards on which arguments are one and the same tensor.
    """
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=dtype, device=device)


def coefficient_tensors(surrogate: Surrogate, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """The surrogate's coefficients as kernel arguments."""
    return tuple(scalar(f"coefficient {i}", value, dtype, device) for i, value in enumerate(surrogate.coefficients))


@cache
def compiler_missing(device_type: str) -> str | None:
    """Why no kernel can be compiled for this device, or None where one can. Warns once."""
    reason = None
    if device_type == "cpu":
        compiler = os.environ.get("CXX") or ("cl" if os.name == "nt" else "g++")
        if not (shutil.which(compiler) or shutil.which("clang++")):
            reason = f"no C++ compiler ({compiler}) on the PATH"
    elif device_type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            reason = "no working Triton"
    else:
        reason = f"no kernel for device type {device_type}"
    if reason:
        warnings.warn(f"snnlib: neurons run as a plain loop on {device_type}, much slower: {reason}", stacklevel=2)
    return reason


def is_transformed(*tensors: Tensor | None) -> bool:
    """Whether `torch.func` or a batched backward pass is at work: tensors then have no memory of their own."""
    batched = torch._C._functorch.is_legacy_batchedtensor
    return torch._C._are_functorch_transforms_active() or any(t is not None and batched(t) for t in tensors)


def _checked(name: str, choice: str) -> str:
    if choice not in ("auto", "reference"):
        raise InputError(f"{name} is {choice!r}; expected 'auto' or 'reference'; choose one of these")
    return choice


def _wanted() -> str:
    return _choice or _checked(KERNEL, os.environ.get(KERNEL, "auto"))


def kernel_for(currents: Tensor) -> str:
    """Which path `lif_multi_step` takes for these currents `[T, ...]`: "compiled" or "reference"."""
    if _failed or torch.compiler.is_compiling() or is_transformed(currents) or _wanted() == "reference":
        return "reference"
    time_steps, width = currents.shape[0], currents[0].numel()
    if time_steps > LONGEST_UNROLLED_LOOP or width < SMALLEST_COMPILED_WIDTH or not currents.is_floating_point():
        return "reference"
    return "reference" if compiler_missing(currents.device.type) else "compiled"


def kernel_name(device_type: str = "cpu") -> str:
    """The path in use on a device, as result rows and `repr` show it."""
    return "reference" if _wanted() == "reference" or _failed or compiler_missing(device_type) else "compiled"


def give_up_compiling(error: Exception) -> None:
    """Fall back to the reference for the rest of the process, and say why, once."""
    global _failed
    _failed = True
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    warnings.warn(f"snnlib: torch.compile failed, neurons run as a plain loop from here on: {first_line}", stacklevel=2)


@contextmanager
def use_kernel(choice: str) -> Iterator[None]:
    """Inside, `lif_multi_step` takes the "reference" path, or the "auto"matic choice."""
    global _choice
    previous, _choice = _choice, _checked("kernel", choice)
    try:
        yield
    finally:
        _choice = previous
