"""What single nodes of a NIR graph are here; the equations stand in `snnlib.wrap.nir`."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.neurons import LIF, Surrogate

KNOWN = (
    "Conv1d, Conv2d, Linear, Affine, Scale, SumPool2d, AvgPool2d, Flatten, IF, LIF, CubaLIF, I, LI, CubaLI, Input or "
    "Output"
)


class Integrator(nn.Module):
    """v[t] = λ v[t-1] + gain · x[t] + bias over `[T, N, ...]`, elementwise, from v = 0."""

    def __init__(self, leak: Tensor, gain: Tensor, bias: Tensor) -> None:
        super().__init__()
        for name, value in (("leak", leak), ("gain", gain), ("bias", bias)):
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        v, values = torch.zeros_like(x[0]), []
        for current in self.gain * x + self.bias:
            v = self.leak * v + current
            values.append(v)
        return torch.stack(values)


class Scaled(nn.Module):
    """gain · x + bias, elementwise."""

    def __init__(self, gain: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("gain", gain)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x + self.bias


class UnevenLIF(nn.Module):
    """LIF over `[T, N, ...]` whose leak, threshold and reset differ from neuron to neuron; the reset is detached.

    Its surrogate is where attackers look for those of other frameworks (`snnlib.neurons.foreign`).
    """

    def __init__(self, leak: Tensor, threshold: Tensor, reset: Tensor, surrogate: Surrogate) -> None:
        super().__init__()
        for name, value in (("leak", leak), ("threshold", threshold), ("reset", reset)):
            self.register_buffer(name, value)
        self.spike_grad = surrogate.spike

    def forward(self, currents: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(currents[0]), []
        for current in currents:
            h = self.leak * v + current
            fired = self.spike_grad(h - self.threshold)
            kept = fired.detach()
            v = h * (1 - kept) + self.reset * kept
            spikes.append(fired)
        return torch.stack(spikes)


class Neuron(nn.Sequential):
    """What reaches the membrane, then the membrane."""


class SumPool2d(nn.AvgPool2d):
    """The sum over each window."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * math.prod(self.kernel_size)


class Reshape(nn.Module):
    """`[B, ...]` to `[B, *shape]`."""

    def __init__(self, shape: list[int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.shape)


NEURONS = Neuron | Integrator
"""Layers that see time; all others take `[B, ...]`."""


def layer_of(name: str, node: object, dt: float, surrogate: Surrogate) -> nn.Module:
    """The layer of a node, in float64 where NIR has arrays. Errors: InputError naming the node."""
    kind = type(node).__name__
    if kind in ("IF", "LIF", "CubaLIF"):
        return _spiking(name, node, dt, surrogate)
    if kind in ("I", "LI", "CubaLI"):
        parts = [] if kind != "CubaLI" else [_synapse(name, node, dt)]
        return Neuron(*parts, Integrator(*_membrane(name, node, dt)))
    if kind in ("Conv1d", "Conv2d"):
        return _convolution(node, nn.Conv1d if kind == "Conv1d" else nn.Conv2d)
    if kind in ("Linear", "Affine"):
        return _linear(node)
    if kind == "Scale":
        return Scaled(_array(node.scale), torch.zeros((), dtype=torch.float64))
    if kind in ("SumPool2d", "AvgPool2d"):
        pool = SumPool2d if kind == "SumPool2d" else nn.AvgPool2d
        return pool(_pair(node.kernel_size), _pair(node.stride), _pair(node.padding))
    if kind == "Flatten":
        shape = node.output_type["output"]
        if shape is not None:
            return Reshape([int(size) for size in shape])
        start, end = int(node.start_dim), int(node.end_dim)
        return nn.Flatten(start + 1, end if end < 0 else end + 1)
    raise InputError(f"node {name} is a {kind}; expected one of {KNOWN}; replace it before exporting")


def _spiking(name: str, node: object, dt: float, surrogate: Surrogate) -> Neuron:
    leak, gain, bias = _membrane(name, node, dt)
    threshold, reset = _array(node.v_threshold), _array(node.v_reset)
    parts: list[nn.Module] = [_synapse(name, node, dt)] if type(node).__name__ == "CubaLIF" else []
    if (gain != 1).any() or (bias != 0).any():
        parts.append(Scaled(gain, bias))
    if _is_even(leak) and _is_even(threshold) and (reset == 0).all():
        options = {"leak": leak.flatten()[0].item(), "threshold": threshold.flatten()[0].item()}
        return Neuron(*parts, LIF(**options, surrogate=surrogate))
    return Neuron(*parts, UnevenLIF(leak, threshold, reset, surrogate))


def _membrane(name: str, node: object, dt: float) -> tuple[Tensor, Tensor, Tensor]:
    """Leak, gain on the current and constant current of each step."""
    resistance = _array(node.r)
    if type(node).__name__ in ("I", "IF"):
        return torch.ones_like(resistance), _unit(dt * resistance), torch.zeros_like(resistance)
    share = _share(name, "tau_mem" if hasattr(node, "tau_mem") else "tau", node, dt)
    return 1 - share, _unit(share * resistance), share * _array(node.v_leak)


def _synapse(name: str, node: object, dt: float) -> Integrator:
    share = _share(name, "tau_syn", node, dt)
    return Integrator(1 - share, _unit(share * _array(node.w_in)), torch.zeros_like(share))


def _share(name: str, constant: str, node: object, dt: float) -> Tensor:
    """dt / τ. Errors: InputError outside of 0..1, where the Euler rule would swing."""
    tau = _array(getattr(node, constant))
    share = dt / tau
    if not ((share > 0) & (share <= 1)).all():
        raise InputError(
            f"node {name} has {constant} = {float(tau.min()):.4g} and dt is {dt:g}; expected dt of at most {constant}, "
            "in the same unit; pass e.g. dt=1e-4 for a graph in seconds"
        )
    return share


def _unit(gain: Tensor) -> Tensor:
    """1 where rounding alone has made something else of it."""
    return torch.where((gain - 1).abs() < 1e-6, torch.ones_like(gain), gain)


def _convolution(node: object, kind: type[nn.Conv1d] | type[nn.Conv2d]) -> nn.Module:
    weight = _array(node.weight)
    padding = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
    options = {
        "stride": _pair(node.stride),
        "padding": padding if isinstance(padding, str) else _pair(padding),
        "dilation": _pair(node.dilation),
        "groups": int(node.groups),
    }
    layer = kind(weight.shape[1] * int(node.groups), len(weight), tuple(weight.shape[2:]), **options)
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(_array(node.bias))
    return layer


def _linear(node: object) -> nn.Linear:
    weight = _array(node.weight)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=hasattr(node, "bias"))
    layer.weight = nn.Parameter(weight)
    if hasattr(node, "bias"):
        layer.bias = nn.Parameter(_array(node.bias))
    return layer


def _pair(value: object) -> tuple[int, ...] | int:
    values = np.asarray(value).reshape(-1)
    return int(values[0]) if len(values) == 1 else tuple(int(each) for each in values)


def _array(value: object) -> Tensor:
    return torch.from_numpy(np.array(value, dtype=np.float64))


def _is_even(values: Tensor) -> bool:
    return bool((values == values.flatten()[0]).all())
