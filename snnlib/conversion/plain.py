"""A plain PyTorch network as a `Model`: direct coding in front, and every activation a module of its own, over time.

Time is folded into the batch, `[T·N, ...]`, for all operations but the neurons, so that they stay what they are.
"""

from __future__ import annotations

import copy
import operator

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.padding import _ConstantPadNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AvgPoolNd, _MaxPoolNd

from snnlib.encoding import DirectEncoder
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.models.layers import is_static
from snnlib.models.tracing import place_of, trace
from snnlib.neurons import LIF, neurons_of
from snnlib.runtime import running_sum

LAYERS = (
    _ConvNd, nn.Linear, _BatchNorm, _MaxPoolNd, _AvgPoolNd, _AdaptiveAvgPoolNd, nn.Flatten, nn.Unflatten, _DropoutNd,
    nn.Identity, _ConstantPadNd,
)  # fmt: skip
RELU = {F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"}
DROPOUT = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout}
MAX_POOL = {F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d}
ADD = {operator.add, operator.iadd, torch.add, "add", "add_"}
SUBTRACT = {operator.sub, operator.isub, torch.sub, "sub", "sub_"}
SCALE = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
LINEAR = {F.linear, F.conv1d, F.conv2d, F.conv3d}
DIVIDE = {operator.truediv, operator.itruediv, torch.div, "div", "div_"}
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
POOL = MAX_POOL | {
    F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
}  # fmt: skip
RESHAPE = {torch.reshape, "view", "reshape", "contiguous"}
ALONG = {torch.flatten: 0, "flatten": 0, torch.mean: None, "mean": None, torch.cat: 0}
"""Operations along axes, with the axis that they take unless told; the batch must not be among them."""
SHAPE = {"size", "dim", getattr, len}
EXPECTED = (
    "expected ReLU, convolutions, linear layers, BatchNorm, max and average pools, flatten, dropout and additions; "
    "replace it and train again"
)


class AtEveryStep(nn.Module):
    """An activation `[B, ...]`; a neuron sees its samples over time, `[T, N, ...]`."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor, steps: torch.Size) -> Tensor:
        if not isinstance(self.activation, LIF):
            return self.activation(x)
        currents = x.expand(steps[0], *x.shape) if x.shape[0] == steps[1] else x.unflatten(0, steps)
        return self.activation(currents).flatten(0, 1)


class MaxOfRates(nn.Module):
    """A max pool whose output has, up to every step, the highest rate of its window: what its largest sum so far gains.

    On spikes it gives spikes. A max pool of every step on its own would fire whenever any of its pixels does, which is
    more often than the busiest of them.

    **Source:** the max pool of Rueckauer et al. 2017, which passes the unit with the highest rate so far.
    """

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor, steps: torch.Size) -> Tensor:
        if x.shape[0] == steps[1]:
            return self.pool(x)
        highest = self.pool(running_sum(x.unflatten(0, steps)).flatten(0, 1)).unflatten(0, steps)
        return torch.cat([highest[:1], highest.diff(dim=0)]).flatten(0, 1)


def repeated(x: Tensor, steps: torch.Size) -> Tensor:
    """`[N, ...]`, the same at every step, as `[T·N, ...]`; what is so already stays."""
    return x if x.shape[0] == steps.numel() else x.expand(steps[0], *x.shape).flatten(0, 1)


class PlainBody(nn.Module):
    """Encoded images `[T, N, C, H, W]` to the mean of the logits over time `[N, classes]`.

    What comes before the first neuron runs once for a static input (direct coding), not T times.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__()
        self.network = network

    def forward(self, encoded: Tensor) -> Tensor:
        steps = encoded.shape[:2]
        logits = self.network(encoded[0] if is_static(encoded) else encoded.flatten(0, 1), steps)
        return logits if logits.shape[0] == steps[1] else logits.unflatten(0, steps).mean(0)


def plain_model(ann: nn.Module) -> Model:
    """A copy of an ANN as a `Model` with direct coding of one step, which computes the same logits.

    Every use of ReLU, as a module or a function, becomes an `nn.ReLU` of its own, ready to be replaced by a neuron, and
    every max pool a `MaxOfRates`.
    Errors: InputError naming layer and line of the first operation that spikes do not pass, or of a branch in the
    forward.
    """
    if not isinstance(ann, nn.Module):
        raise InputError(f"the ANN is a {type(ann).__name__}; expected a torch.nn.Module from images to logits")
    if neurons_of(ann):
        raise InputError(f"{type(ann).__name__} has spiking layers already; expected an ANN with ReLU")
    root = copy.deepcopy(ann)
    graph = trace(root, lambda module: isinstance(module, (*LAYERS, nn.ReLU)))
    network = fx.GraphModule(root, graph, type(ann).__name__)
    _check(network)
    _as_modules(network)
    _thread_steps(network)
    graph.eliminate_dead_code()
    graph.lint()
    network.recompile()
    network.delete_all_unused_submodules()
    network.train(ann.training)
    for name, module in ann.named_modules():
        if name in dict(network.named_modules()):
            network.get_submodule(name).training = module.training
    model = Model(DirectEncoder(1), PlainBody(network), {})
    model.original_name = type(ann).__name__
    return model


def as_model(ann: nn.Module) -> Model:
    """`ann` itself where it is a `Model`, else its `plain_model`."""
    return ann if isinstance(ann, Model) else plain_model(ann)


def _check(network: fx.GraphModule) -> None:
    carriers = _carriers(network)
    for node in network.graph.nodes:
        if node in carriers and not (node.op in ("placeholder", "output") or _passes_spikes(network, node, carriers)):
            raise InputError(f"{place_of(node)} cannot be converted; {EXPECTED}")
    if not any(_is_relu(network, node) for node in network.graph.nodes):
        raise InputError(f"{type(network).__name__} has no ReLU; expected some: they become the spiking neurons")
    inputs = [node for node in network.graph.nodes if node.op == "placeholder" and node.users]
    (output,) = (node for node in network.graph.nodes if node.op == "output")
    if len(inputs) != 1 or not isinstance(output.args[0], fx.Node):
        found = f"{len(inputs)} inputs, and an output of {type(output.args[0]).__name__}"
        raise InputError(f"{type(network).__name__} has {found}; expected one tensor of images, and the logits alone")


def _carriers(network: fx.GraphModule) -> set[fx.Node]:
    """Nodes whose value depends on the images, not on their shape alone."""
    found: set[fx.Node] = set()
    for node in network.graph.nodes:
        of_shape = node.target in SHAPE and node.op != "call_module"
        if node.op == "placeholder" or (not of_shape and any(each in found for each in node.all_input_nodes)):
            found.add(node)
    return found


def _passes_spikes(network: fx.GraphModule, node: fx.Node, carriers: set[fx.Node]) -> bool:
    if node.op == "call_module":
        layer = network.get_submodule(node.target)
        return _is_relu(network, node) or (isinstance(layer, LAYERS) and _keeps_batch(layer))
    carrying = [argument in carriers for argument in node.args if not isinstance(argument, tuple | list)]
    if node.target in SCALE:
        return sum(carrying) == 1
    if node.target in DIVIDE | LINEAR:
        return carrying[0] and not any(carrying[1:])
    if node.target in ALONG:
        told = node.args[1:2] or [node.kwargs[name] for name in ("dim", "start_dim") if name in node.kwargs]
        axes = told[0] if told else ALONG[node.target]
        axes = axes if isinstance(axes, tuple | list) else (axes,)
        return all(isinstance(axis, int) and axis != 0 for axis in axes)
    return node.target in RELU | DROPOUT | ADD | SUBTRACT | POOL | RESHAPE


def _keeps_batch(layer: nn.Module) -> bool:
    return layer.start_dim > 0 if isinstance(layer, nn.Flatten) else True


def _is_relu(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(network.get_submodule(node.target), nn.ReLU)
    return node.op in ("call_function", "call_method") and node.target in RELU


def _is_max_pool(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(network.get_submodule(node.target), _MaxPoolNd)
    return node.op == "call_function" and node.target in MAX_POOL


def _as_modules(network: fx.GraphModule) -> None:
    """A module for each use of ReLU, max pool and functional dropout; nothing in place: static maps are shared."""
    for node in list(network.graph.nodes):
        if _is_relu(network, node):
            _call(network, node, AtEveryStep(nn.ReLU()))
        elif _is_max_pool(network, node):
            _call(network, node, MaxOfRates(_max_pool(network, node)))
        elif node.op == "call_function" and node.target in DROPOUT:
            rate = node.args[1] if len(node.args) > 1 else node.kwargs.get("p", 0.5)
            _call(network, node, nn.Dropout(rate))
        elif node.target in ADD | SUBTRACT and "alpha" not in node.kwargs:
            node.op, node.target = "call_function", operator.add if node.target in ADD else operator.sub
        elif node.target in SCALE | DIVIDE:
            node.op, node.target = "call_function", operator.mul if node.target in SCALE else operator.truediv


def _call(network: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    """Let the node call a new module on its first argument."""
    name = node.name
    while hasattr(network, name):
        name = f"{name}_"
    network.add_submodule(name, module)
    node.op, node.target, node.args, node.kwargs = "call_module", name, node.args[:1] or (node.kwargs["input"],), {}


def _max_pool(network: fx.GraphModule, node: fx.Node) -> nn.Module:
    """The pool as a module."""
    if node.op == "call_module":
        return network.get_submodule(node.target)
    given = dict(zip(("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"), node.args, strict=False))
    given = {name: value for name, value in (given | node.kwargs).items() if name != "input" and value != []}
    (kind,) = (each for number, each in enumerate(MAX_POOLS, 1) if f"{number}d" in node.target.__name__)
    return kind(**given)


def _sees_time(network: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(network.get_submodule(node.target), AtEveryStep | MaxOfRates)


def _thread_steps(network: fx.GraphModule) -> None:
    """Hand T and N to every activation, and repeat what is the same at every step where it meets what is not."""
    graph = network.graph
    (images,) = (node for node in graph.nodes if node.op == "placeholder" and node.users)
    with graph.inserting_after(images):
        steps = graph.placeholder("steps")
    changing: set[fx.Node] = set()
    for node in list(graph.nodes):
        if _sees_time(network, node):
            node.args = (node.args[0], steps)
            if node.args[0] in changing or isinstance(network.get_submodule(node.target), AtEveryStep):
                changing.add(node)
        elif any(each in changing for each in node.all_input_nodes):
            changing.add(node)
            for still in _static_images(node, changing, network):
                with graph.inserting_before(node):
                    node.replace_input_with(still, graph.call_function(repeated, (still, steps)))


def _static_images(node: fx.Node, changing: set[fx.Node], network: fx.GraphModule) -> list[fx.Node]:
    carriers = _carriers(network)
    return [each for each in node.all_input_nodes if each in carriers and each not in changing]


