"""A network of this project as a NIR graph, which `wrap.nir` and other tools read."""

from __future__ import annotations

import operator

import numpy as np
import torch
from torch import Tensor, fx, nn

from snnlib import checks
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.models.layers import first_weight
from snnlib.models.tracing import Values, place_of, trace
from snnlib.neurons import IF, LIF
from snnlib.optional import needs

STEPS, SAMPLES = 2, 3
"""Of the example that shapes are read from: [2, 3, ...] with time apart, [6, ...] with time in the batch."""
SAME = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
SHAPE = {"flatten", "unflatten", "view", "reshape", "contiguous", torch.flatten, torch.reshape}
ADD = {operator.add, operator.iadd, torch.add}


def to_nir(model: nn.Module, images: Tensor, *, dt: float = 1.0) -> object:
    """The `nir.NIRGraph` of a network in eval mode; `nir.write(path, graph)` keeps it.

    model: a `Model`, whose graph begins behind its encoder, or a module on `[T, N, ...]`; its neurons are LIF or IF
    with hard reset. images `[N, ...]` in [0, 1]: of the shape that it takes, for the sizes of its layers. dt: length of
    a step in the unit of the graph's time constants: τ = dt / (1 − leak), R = 1 / (1 − leak); for IF, R = 1 / dt.
    BatchNorm becomes a 1x1 convolution; additions become edges that meet. The mean over time at the end is
    the reader's: `wrap.nir(graph, time_steps=..., readout="mean", preprocessing=model.encoder)`. The way back gives the
    same spikes, up to rounding where a membrane comes within it of the threshold; there is none to an encoder.
    Errors: InputError naming the first layer that NIR does not have, such as a max pool or a soft reset.
    """
    library = needs("nir", extra="nir")
    dt = checks.number("dt", dt, above=0)
    body = model.body if isinstance(model, Model) else model
    flags = {module: module.training for module in body.modules()}
    try:
        body.eval()
        with torch.no_grad():
            shape = model.encoder(images[:1]).shape[2:] if isinstance(model, Model) else images.shape[1:]
        example = torch.zeros(STEPS, SAMPLES, *shape).to(first_weight(body))
        values = Values(body, example)
        graph = trace(body, lambda module: isinstance(module, LIF | nn.Conv2d), lambda node: bool(values[node]))
        return _Export(library, body, values, dt).graph_of(graph)
    finally:
        for module, training in flags.items():
            module.training = training


class _Export:
    """Nodes and edges so far; `sources[node]`: names of the NIR nodes whose sum is this value."""

    def __init__(self, library: object, body: nn.Module, values: Values, dt: float) -> None:
        self.nir, self.body, self.values, self.dt = library, body, values, dt
        self.nodes: dict[str, object] = {}
        self.edges: list[tuple[str, str]] = []
        self.sources: dict[fx.Node, list[str]] = {}

    def graph_of(self, graph: fx.Graph) -> object:
        for node in graph.nodes:
            if node.op == "placeholder":
                self.sources[node] = [self._add("input", self.nir.Input(np.array(_features(self.values[node]))), [])]
            elif node.op == "output":
                self._add("output", self.nir.Output(np.array(_features(self.values[node.args[0]]))), self._of(node))
            elif isinstance(self.values[node], Tensor) and any(each in self.sources for each in node.all_input_nodes):
                self.sources[node] = self._sources_of(node)
        grouped = any(getattr(node, "groups", 1) > 1 for node in self.nodes.values())
        return self.nir.NIRGraph(self.nodes, self.edges, type_check=not grouped)

    def _of(self, node: fx.Node) -> list[str]:
        """Where the first input comes from."""
        return self.sources[next(each for each in node.all_input_nodes if each in self.sources)]

    def _add(self, name: str, node: object, sources: list[str]) -> str:
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def _sources_of(self, node: fx.Node) -> list[str]:
        carrying = [each for each in node.all_input_nodes if each in self.sources]
        before, after = (_features(self.values[each]) for each in (carrying[0], node))
        if node.op == "call_module":
            layer = self.body.get_submodule(node.target)
            if isinstance(layer, SAME):
                return self._of(node)
            return [self._add(node.name, self._layer(node, layer, before, after), self._of(node))]
        if node.target in ADD and len(node.all_input_nodes) == 2 == len(carrying):
            together = [source for each in carrying for source in self.sources[each]]
            if len(set(together)) == len(together):
                return together
        elif node.target in SHAPE and before == after:
            return self._of(node)
        elif node.target in SHAPE and len(after) == 1:
            return [self._add(node.name, self.nir.Flatten({"input": np.array(before)}, 0, -1), self._of(node))]
        elif node.target in ("mean", torch.mean) and before == after and {user.op for user in node.users} == {"output"}:
            return self._of(node)
        elif len(node.args) == 2 and len(carrying) == 1 and (made := self._with_constant(node, carrying[0], before)):
            return [self._add(node.name, made, self._of(node))]
        raise self._unknown(node)

    def _with_constant(self, node: fx.Node, data: fx.Node, shape: list[int]) -> object | None:
        """A value times, or minus, something that does not depend on the images."""
        first, second = node.args
        other = second if first is data else first
        constant = np.broadcast_to(_numbers(self.values[other] if isinstance(other, fx.Node) else other), shape)
        if node.target in (operator.mul, torch.mul):
            return self.nir.Scale(constant.copy())
        if node.target in (operator.truediv, torch.div) and first is data:
            return self.nir.Scale(1 / constant)
        if node.target not in (operator.sub, torch.sub) or first is not data or len(shape) != 3:
            return None
        even = (constant == constant[:, :1, :1]).all()
        return self._per_channel(np.ones(shape[0]), -constant[:, 0, 0], shape) if even else None

    def _layer(self, node: fx.Node, layer: nn.Module, before: list[int], after: list[int]) -> object:
        if type(layer) in (LIF, IF) and layer.reset == "hard":
            return self._neuron(layer, before)
        if isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.padding_mode == "zeros":
            kind = self.nir.Conv2d if isinstance(layer, nn.Conv2d) else self.nir.Conv1d
            bias = np.zeros(len(layer.weight)) if layer.bias is None else _numbers(layer.bias)
            size = tuple(before[1:]) if isinstance(layer, nn.Conv2d) else before[1]
            options = (layer.stride, layer.padding, layer.dilation)
            if isinstance(layer, nn.Conv1d):
                options = tuple(each if isinstance(each, str) else each[0] for each in options)
            return kind(size, _numbers(layer.weight), *options, layer.groups, bias)
        if isinstance(layer, nn.Linear) and len(before) == 1:
            weight = _numbers(layer.weight)
            return self.nir.Linear(weight) if layer.bias is None else self.nir.Affine(weight, _numbers(layer.bias))
        if isinstance(layer, nn.BatchNorm2d) and layer.running_var is not None:
            gain = 1 / np.sqrt(_numbers(layer.running_var) + layer.eps)
            gain = gain if layer.weight is None else gain * _numbers(layer.weight)
            shift = 0 if layer.bias is None else _numbers(layer.bias)
            return self._per_channel(gain, shift - _numbers(layer.running_mean) * gain, before)
        if isinstance(layer, nn.Flatten) and len(after) == 1:
            return self.nir.Flatten({"input": np.array(before)}, 0, -1)
        if (window := _average_window(layer, before, after)) is not None:
            return self.nir.AvgPool2d(*map(np.array, window))
        raise self._unknown(node)

    def _neuron(self, layer: LIF, shape: list[int]) -> object:
        lost, threshold = 1 - layer.leak, float(torch.as_tensor(layer.effective_threshold).detach())
        if lost == 0:
            return self.nir.IF(*(np.full(shape, value) for value in (1 / self.dt, threshold)))
        return self.nir.LIF(*(np.full(shape, value) for value in (self.dt / lost, 1 / lost, 0.0, threshold)))

    def _per_channel(self, gain: np.ndarray, shift: np.ndarray, shape: list[int]) -> object:
        # Dense and diagonal: `nir` 1.0 takes the channels of a grouped convolution for those of one group.
        weight = np.diag(gain)[:, :, None, None]
        return self.nir.Conv2d(tuple(shape[1:]), weight, (1, 1), (0, 0), (1, 1), 1, shift)

    def _unknown(self, node: fx.Node) -> InputError:
        layer = self.body.get_submodule(node.target) if node.op == "call_module" else None
        reset = f" with {layer.reset} reset" if isinstance(layer, LIF) else ""
        what = place_of(node) if layer is None else f"{node.target} ({type(layer).__name__}{reset})"
        return InputError(
            f"{what} has no node in NIR; expected convolutions, linear layers, BatchNorm2d, average pools, LIF or IF "
            "with hard reset, and additions; build the network with those"
        )


def _features(value: Tensor) -> list[int]:
    """The shape without time and samples."""
    leading = 2 if tuple(value.shape[:2]) == (STEPS, SAMPLES) else 1
    return list(value.shape[leading:])


def _average_window(layer: nn.Module, before: list[int], after: list[int]) -> tuple[tuple[int, int], ...] | None:
    """Kernel, stride and padding of an average pool that NIR can say."""
    if isinstance(layer, nn.AvgPool2d):
        window = tuple(_pair(each) for each in (layer.kernel_size, layer.stride, layer.padding))
        plain = not layer.ceil_mode and layer.divisor_override is None
        return window if plain and (layer.count_include_pad or window[2] == (0, 0)) else None
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        sizes = list(zip(before[1:], after[1:], strict=True))
        kernel = tuple(size // out for size, out in sizes)
        return None if any(size % out for size, out in sizes) else (kernel, kernel, (0, 0))
    return None


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _numbers(value: Tensor | float) -> np.ndarray:
    return torch.as_tensor(value).detach().cpu().double().numpy()
