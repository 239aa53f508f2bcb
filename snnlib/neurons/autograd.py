"""`lif_multi_step`: one autograd node over the compiled loops, with the reference behind it."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from snnlib.errors import InputError
from snnlib.neurons import kernels
from snnlib.neurons.reference import as_floats, lif_reference, membrane_dtype
from snnlib.neurons.surrogates import Surrogate, atan


def _is_dense(frame: Tensor) -> bool:
    """Whether the frame fills one block of memory in some order of its axes (contiguous, channels-last, ...)."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(frame.stride(), frame.shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _dense_over_time(x: Tensor) -> Tensor:
    """`x` itself when each time step is one dense block and the blocks follow each other, else a contiguous copy."""
    if (x.shape[0] == 1 or x.stride(0) == x[0].numel()) and _is_dense(x[0]):
        return x
    return x.contiguous()


def _flat(x: Tensor, like: Tensor) -> Tensor:
    """`x` as `[T, M]` in the memory order of `like`; copies only when the layouts differ.

    The result shares storage but is no view in autograd's sense: torch.compile guards on the base of a view, and
    would compile again for every shape that a base can have.
    """
    x = x.detach()
    if x.stride() != like.stride():
        x = torch.empty_like(like, dtype=x.dtype).copy_(x)
    width = like[0].numel()
    alias = torch.empty(0, dtype=x.dtype, device=x.device)
    return alias.set_(x.untyped_storage(), x.storage_offset(), (like.shape[0], width), (width, 1))


def _flat_frame(frame: Tensor, like: Tensor) -> Tensor:
    flat = _flat(frame.unsqueeze(0), like[:1])
    return flat.set_(flat.untyped_storage(), flat.storage_offset(), (flat.shape[1],), (1,))


def _shaped(flat: Tensor | None, like: Tensor) -> Tensor | None:
    return None if flat is None else flat.as_strided(like.shape, like.stride())


class _MultiStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, currents, v0, leak, threshold, surrogate, reset, detach_reset, want_v_last):
        time_steps, device = currents.shape[0], currents.device.type
        run = kernels.forward_kernel(time_steps, reset, currents.dtype, device, v0 is not None, want_v_last)
        v_start = None if v0 is None else _flat_frame(v0, currents)
        spikes, v_last = run(_flat(currents, currents), v_start, leak, threshold.detach())
        ctx.save_for_backward(currents, v0, leak, threshold)
        ctx.options = (surrogate, reset, detach_reset)
        ctx.set_materialize_grads(False)
        return _shaped(spikes, currents), _shaped(v_last, currents[0])

    @staticmethod
    def backward(ctx, g_spikes, g_v_last):
        if g_spikes is None and g_v_last is None:
            return (None,) * 8
        saved = ctx.saved_tensors  # once: activation checkpointing gives them away when they are unpacked
        if g_spikes is None:
            g_spikes = torch.zeros_like(saved[0])
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled():
            gradients = _reference_backward(ctx, saved, g_spikes, g_v_last, create_graph=True)
        else:
            gradients = _first_order_backward(ctx, saved, g_spikes, g_v_last)
        g_currents, g_v0, g_threshold = gradients
        return (g_currents, g_v0 if needs[1] else None, None, g_threshold if needs[3] else None, *(None,) * 4)


def _first_order_backward(ctx, saved, g_spikes, g_v_last):
    if not kernels.is_transformed(g_spikes, g_v_last):
        try:
            return _compiled_backward(ctx, saved, g_spikes, g_v_last)
        except torch._dynamo.exc.TorchDynamoException as error:
            kernels.give_up_compiling(error)
    leaves = [
        None if tensor is None else tensor.detach().requires_grad_(needed)
        for tensor, needed in zip(saved, ctx.needs_input_grad[:4], strict=True)
    ]
    with torch.enable_grad():
        return _reference_backward(ctx, leaves, g_spikes, g_v_last, create_graph=False)


def _compiled_backward(ctx, saved, g_spikes, g_v_last):
    currents, v0, leak, threshold = saved
    surrogate, reset, detach_reset = ctx.options
    run = kernels.backward_kernel(
        currents.shape[0], surrogate.formula, reset, detach_reset, ctx.needs_input_grad[3],
        currents.dtype, currents.device.type, v0 is not None, g_v_last is not None,
    )  # fmt: skip
    g_currents, g_v0, g_threshold = run(
        _flat(g_spikes, currents),
        None if g_v_last is None else _flat_frame(g_v_last, currents),
        _flat(currents, currents),
        None if v0 is None else _flat_frame(v0, currents),
        leak,
        threshold.detach(),
        *kernels.coefficient_tensors(surrogate, leak.dtype, currents.device),
    )
    g_threshold = None if g_threshold is None else g_threshold.sum()
    return _shaped(g_currents, currents), _shaped(g_v0, currents[0]), g_threshold


def _reference_backward(ctx, inputs_and_constants, g_spikes, g_v_last, *, create_graph):
    """Differentiate the reference; with `create_graph=True` the gradient has a graph of its own."""
    currents, v0, leak, threshold = inputs_and_constants
    surrogate, reset, detach_reset = ctx.options
    start = v0 if v0 is not None else torch.zeros_like(currents[0], dtype=leak.dtype)
    spikes, v_last = lif_reference(
        currents, start, leak, threshold, surrogate=surrogate, reset=reset, detach_reset=detach_reset
    )
    inputs = [t for t, needed in ((currents, 0), (v0, 1), (threshold, 3)) if ctx.needs_input_grad[needed]]
    outputs, gradients = [spikes], [g_spikes]
    if g_v_last is not None:
        outputs, gradients = [spikes, v_last], [g_spikes, g_v_last]
    found = iter(torch.autograd.grad(outputs, inputs, gradients, create_graph=create_graph, allow_unused=True))
    return tuple(next(found) if ctx.needs_input_grad[needed] else None for needed in (0, 1, 3))


def _as_scalar(name: str, value: float | Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    if isinstance(value, Tensor):
        if value.dim() != 0:
            raise InputError(f"{name} has shape {list(value.shape)}; expected a number or a 0-d tensor; index it")
        return value.to(device=device, dtype=dtype)
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not (is_number and (0 <= value <= 1 if name == "leak" else value > 0)):
        wanted = "a number in [0, 1]" if name == "leak" else "a finite number above 0"
        raise InputError(f"{name} is {value!r}; expected {wanted}; IF neurons have leak 1.0, thresholds usually 1.0")
    return kernels.scalar(name, float(value), dtype, device)


def lif_multi_step(
    currents: Tensor,
    *,
    leak: float | Tensor = 1.0,
    threshold: float | Tensor = 1.0,
    surrogate: Surrogate | None = None,
    reset: str = "hard",
    detach_reset: bool = True,
    v0: Tensor | None = None,
    want_v_last: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Run leaky integrate-and-fire neurons over all time steps; state goes in as `v0` and comes out as `v_last`.

    `currents` `[T, ...]` and the returned spikes `[T, ...]` share dtype and memory layout; `v0`, `v_last` `[...]` are
    membranes after reset (float32 for half-precision currents). Integers and booleans, such as event frames, count as
    float32. Fires at membrane >= threshold. Equations, source: `snnlib.neurons.reference.lif_reference`.
    The compiled path equals the reference bit for bit in float32 on a CPU. A trainable `threshold` (0-dimensional
    tensor) gets its gradient. The reference runs where `leak` is a tensor that requires grad, and inside the transforms
    of `torch.func` (vmap, grad, jacrev, jacfwd). `want_v_last=False` spares writing the last membrane, None then.
    Raises `InputError` for numbers that do not fit (leak outside [0, 1], threshold <= 0; tensors are not looked into),
    an unknown reset, complex currents or an empty time axis.

    >>> import torch
    >>> spikes, v_last = lif_multi_step(torch.tensor([[0.75], [0.75], [0.75]]))
    >>> spikes.flatten().tolist(), v_last.tolist()
    ([0.0, 1.0, 0.0], [0.75])
    """
    if reset not in ("hard", "soft"):
        raise InputError(f"reset is {reset!r}; expected 'hard' or 'soft'; hard sets the membrane to 0")
    if currents.dim() < 1 or currents.shape[0] == 0:
        raise InputError(f"currents have shape {list(currents.shape)}; expected [T, ...] with T >= 1; add a time axis")
    if v0 is not None and v0.shape != currents.shape[1:]:
        wanted = list(currents.shape[1:])
        raise InputError(f"v0 has shape {list(v0.shape)}; expected {wanted}; pass one membrane per neuron")
    currents = as_floats(currents)
    surrogate = atan() if surrogate is None else surrogate
    dtype = membrane_dtype(currents)
    leak = _as_scalar("leak", leak, dtype, currents.device)
    threshold = _as_scalar("threshold", threshold, dtype, currents.device)
    v0 = None if v0 is None else v0.to(dtype)

    if kernels.kernel_for(currents) == "compiled" and not leak.requires_grad:
        try:
            # Made dense out here, where autograd sees it: the second-order path differentiates what is saved.
            currents = _dense_over_time(currents)
            return _MultiStep.apply(currents, v0, leak, threshold, surrogate, reset, detach_reset, want_v_last)
        except torch._dynamo.exc.TorchDynamoException as error:
            kernels.give_up_compiling(error)
    start = torch.zeros_like(currents[0], dtype=dtype) if v0 is None else v0
    spikes, v_last = lif_reference(
        currents, start, leak, threshold, surrogate=surrogate, reset=reset, detach_reset=detach_reset
    )
    return spikes, v_last if want_v_last else None
