"""Spikes and synaptic operations: what a spiking network does for one image, counted.

Only counts and their ratios. A joule for an accumulation, and with it a comparison of SNN and ANN, would be an
assumption about hardware that nothing here supports; the follow-up of the conversion paper declines it as well.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib import checks
from snnlib.data.image_set import ImageSet
from snnlib.errors import InputError
from snnlib.models.layers import first_weight
from snnlib.neurons import LIF, use_kernel
from snnlib.neurons.modules import call_name
from snnlib.training.accuracy import evaluating

SYNAPTIC = (nn.Conv2d, nn.Linear)
POOLS = (nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True)
class Connection:
    """The synapses from one spiking layer to one convolution or linear layer that its spikes reach.

    synapses: int64 [C, H, W] (or [features]) on the CPU, how many non-zero synapses one spike of each neuron drives.
    approximate: the same per neuron by the formula of `followup_operations`.
    """

    layer: str
    target: str
    synapses: Tensor
    approximate: float


def count_spikes(model: nn.Module, image_set: ImageSet, *, batch_size: int = 64) -> pd.DataFrame:
    """Spikes at every spiking layer, at its output and before any pooling: one row per call, in forward order.

    A layer that is used at several places has a row for each, "name (call 2)" and so on.

    Columns: layer; neurons (per image); time_steps; spikes (mean per image, summed over time); firing_rate (spikes per
    neuron and time step, 0..1). The model is in eval mode and comes back as it was.

    **Source:** the follow-up (Schmolli et al. 2025) counts so; 8 time steps of a VGG-11 allow 2,293,760 spikes.
    Errors: InputError for a model without spiking layers.
    """
    seen = _spikes(model, image_set, batch_size)
    return pd.DataFrame([_spike_row(name, of_layer, len(image_set)) for name, of_layer in seen])


def synaptic_operations(model: nn.Module, image_set: ImageSet, *, batch_size: int = 64) -> pd.DataFrame:
    """Accumulations that spikes drive in convolutions and linear layers: Σ_i ψ_i s_i, one row per connection.

    A spike costs one operation for each non-zero synapse that it reaches (ψ_i): borders, strides, pooling and pruned
    weights are accounted for neuron by neuron. See `outgoing_synapses` for what counts as a synapse.

    Columns: layer, target; those of `count_spikes`; synapses_per_neuron (mean of ψ); approximate_synapses (ψ by the
    follow-up's formula); operations (mean per image, summed over time). Not included: the first layer, which works on
    pixels; adding spikes of identity shortcuts; BatchNorm and the neurons themselves.

    Errors: InputError as in `count_spikes` and `outgoing_synapses`.
    """
    spikes = dict(_spikes(model, image_set, batch_size))
    rows = []
    for connection in outgoing_synapses(model, image_set.images.shape[1:]):
        seen = spikes[connection.layer]
        operations = int((connection.synapses * seen.total).sum()) / len(image_set)
        rows.append(
            {
                "layer": connection.layer,
                "target": connection.target,
                **_spike_row(connection.layer, seen, len(image_set)),
                "synapses_per_neuron": connection.synapses.double().mean().item(),
                "approximate_synapses": connection.approximate,
                "operations": operations,
            }
        )
    return pd.DataFrame(rows)


def followup_operations(table: pd.DataFrame, *, factor_t: bool = True) -> float:
    """T · Σ_l ψ̃_l s_l of the follow-up, in units of the energy of one accumulation; `table` of `synaptic_operations`.

    ψ̃ of a neuron: c' before a linear layer; (w'h' / wh) c' k'² before a convolution with c' channels, kernel k' and
    output w'h', where wh is the neuron's own map. Borders and pruned weights are not seen, and a pooled spike counts by
    the area of its window: 2x2 average pooling makes it a quarter of a spike, where ψ counts all its synapses.

    The factor T counts time twice if s is summed over time, as it is here and in the follow-up's spike counts; between
    networks with the same T it cancels. `factor_t=False` leaves it out.

    **Source:** Schmolli et al. 2025 (CPAL), energy formula.
    """
    steps = table["time_steps"] if factor_t else 1
    return float((steps * table["approximate_synapses"] * table["spikes"]).sum())


def dense_macs(model: nn.Module, image_shape: Sequence[int]) -> pd.DataFrame:
    """Multiply-accumulates of one dense pass over one image: a row per call of a convolution or linear layer, in order.

    image_shape `[C, H, W]`. Columns: layer, macs. An ANN does this once; taps on padding are counted, as usual.
    """
    rows = []

    def see(name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        size = module.weight[0].numel()
        frame = output[0] if isinstance(module, nn.Conv2d) else output.flatten(0, -2)[0]
        rows.append({"layer": name, "macs": frame.numel() * size})

    with _hooked(model, {SYNAPTIC: see}), evaluating(model), use_kernel("reference"):
        model(_blank(model, image_shape))
    return pd.DataFrame(rows)


def outgoing_synapses(model: nn.Module, image_shape: Sequence[int]) -> list[Connection]:
    """How many non-zero synapses each neuron drives, exactly, per layer that its spikes reach; image_shape `[C, H, W]`.

    Weights are replaced by 1 where they are not 0 and a pool passes on every spike of its window (an average pool is
    so linear; a max pool forwards one spike per window and step, so behind it ψ is an upper bound). The count is then
    the gradient of a layer's summed output with respect to the spikes. Windows that overlap make several paths, and
    each counts. Spikes that reach a layer through additions (SEW connection ADD) count like any others; what a layer
    computes from analog values is no synaptic operation.

    Counts are exact in any dtype of the weights. Errors: InputError for a model without spiking layers, or an adaptive
    pool to more than one position.
    """
    if first_weight(model).dtype.itemsize < 4:
        model = copy.deepcopy(model).to(torch.float32)
    spikes: dict[str, Tensor] = {}
    arrivals: list[tuple[str, nn.Module, Tensor, Tensor]] = []

    def fire(name: str, layer: LIF, currents: Tensor, output: Tensor) -> Tensor:
        spikes[name] = torch.ones_like(output, requires_grad=True)
        return spikes[name]

    def pool(name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> Tensor:
        return _summed(name, module, inputs)

    def connect(name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> Tensor:
        if inputs.requires_grad:
            arrivals.append((name, module, inputs, output))
        return output.detach()

    hooks = {(LIF,): fire, POOLS: pool, SYNAPTIC: connect}
    with _hooked(model, hooks), evaluating(model), torch.enable_grad(), use_kernel("reference"):
        model(_blank(model, image_shape))
        _check_spiking(spikes, model)
        return [connection for arrival in arrivals for connection in _connections(spikes, *arrival)]


def _connections(
    spikes: dict[str, Tensor], name: str, module: nn.Module, inputs: Tensor, output: Tensor
) -> Iterator[Connection]:
    present = (module.weight != 0).to(inputs.dtype)
    if isinstance(module, nn.Conv2d):
        paths, area = module._conv_forward(inputs, present, None), math.prod(output.shape[-2:])
    else:
        paths, area = F.linear(inputs, present), None
    gradients = torch.autograd.grad(paths.sum(), list(spikes.values()), allow_unused=True)
    for layer, gradient in zip(spikes, gradients, strict=True):
        if gradient is not None:
            synapses = gradient[0, 0].round().to("cpu", torch.int64)
            approximate = float(len(module.weight))
            if area is not None:
                approximate *= area / math.prod(synapses.shape[-2:]) * math.prod(module.kernel_size)
            yield Connection(layer, name, synapses, approximate)


def _summed(name: str, pool: nn.Module, inputs: Tensor) -> Tensor:
    """The pool with all weights 1."""
    if isinstance(pool, nn.AdaptiveAvgPool2d):
        if pool.output_size not in (1, (1, 1)):
            raise InputError(f"{name} pools to {pool.output_size}; expected 1 position; synapses are counted for that")
        return inputs.sum((-2, -1), keepdim=True)
    return F.avg_pool2d(
        inputs, pool.kernel_size, pool.stride, pool.padding, ceil_mode=pool.ceil_mode, divisor_override=1
    )


@dataclass
class _Seen:
    """Spikes of one layer per neuron, summed over images and time steps."""

    total: Tensor
    time_steps: int


def _spikes(model: nn.Module, image_set: ImageSet, batch_size: int) -> list[tuple[str, _Seen]]:
    batch_size = checks.whole("batch_size", batch_size)
    seen: dict[str, _Seen] = {}

    def see(name: str, layer: LIF, currents: Tensor, spikes: Tensor) -> None:
        total = spikes.ne(0).sum((0, 1)).cpu()
        if name in seen:
            seen[name].total += total
        else:
            seen[name] = _Seen(total, len(spikes))

    like = first_weight(model)
    with _hooked(model, {(LIF,): see}), evaluating(model):
        for index in torch.arange(len(image_set)).split(batch_size):
            model(image_set.batch(index, like.device).to(like.dtype))
    _check_spiking(seen, model)
    return list(seen.items())


def _spike_row(name: str, seen: _Seen, images: int) -> dict[str, object]:
    neurons, spikes = seen.total.numel(), int(seen.total.sum()) / images
    return {
        "layer": name,
        "neurons": neurons,
        "time_steps": seen.time_steps,
        "spikes": spikes,
        "firing_rate": spikes / (neurons * seen.time_steps),
    }


def _check_spiking(found: dict, model: nn.Module) -> None:
    if not found:
        raise InputError(f"{type(model).__name__} has no spiking layer; expected an SNN; an ANN has dense_macs only")


def _blank(model: nn.Module, image_shape: Sequence[int]) -> Tensor:
    like = first_weight(model)
    return torch.zeros((1, *image_shape), dtype=like.dtype, device=like.device)


@contextmanager
def _hooked(model: nn.Module, hooks: dict[tuple[type, ...], Callable]) -> Iterator[None]:
    """Inside, `hook(name, module, input, output)` runs after each call of its kinds; what it returns is the output.

    `name` counts the calls of a module within one pass of `model`, see `call_name`.
    """
    calls: Counter[str] = Counter()
    handles = [model.register_forward_pre_hook(lambda module, inputs: calls.clear())]
    for name, module in model.named_modules():
        for kinds, hook in hooks.items():
            if isinstance(module, kinds):
                handles.append(module.register_forward_hook(_with_name(hook, name, calls)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_name(hook: Callable, name: str, calls: Counter[str]) -> Callable:
    def see(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor | None:
        calls[name] += 1
        return hook(call_name(name, calls[name]), module, inputs[0], output)

    return see
