"""P4 made a number: how far the input of a deployed spiking network can move before any spike does."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from snnlib.attacks.budget import Budget
from snnlib.attacks.inputs import check_inputs
from snnlib.attacks.prepared import prepared
from snnlib.errors import InputError
from snnlib.neurons import LIF, neurons_of, use_kernel
from snnlib.neurons.reference import membrane_dtype

PASSES = (nn.Identity, nn.Dropout)
LAYERS = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.Flatten, *PASSES)
MOVES = {
    *("view", "_unsafe_view", "_reshape_alias", "alias", "detach", "clone", "contiguous", "_to_copy", "copy_"),
    *("expand", "repeat", "squeeze", "unsqueeze", "select", "slice", "unbind", "transpose", "t", "permute"),
}
"""Operations of PyTorch that move values about and change none."""
BYPASS = "{what} carries the input past the first neuron; expected logits that read its spikes alone"


class NoRadius(InputError):
    """The path from the input to the first neuron is not affine, there is no neuron, or something goes around it."""


def constancy_radius(model: nn.Module, images: Tensor, labels: Tensor, *, space: str = "image") -> Tensor:
    """L∞ radius around each input within which every spike, and so every logit, stays the same: float64 [N].

    Layers before the first neuron must be linear (convolution, linear, BatchNorm in eval), and the logits may depend on
    the input through that neuron's spikes alone; both are checked by following a random input through the network, one
    operation at a time. With W the weights that lead to neuron i, h its membrane before firing, θ the threshold and
    Λ[t] = leak · Λ[t−1] + 1 (Λ[t−1] counted only without a hard reset since), a perturbation of size eps moves h_i[t]
    by at most eps · ‖W_i‖₁ · Λ_i[t]; the radius is the least |h − θ| / (‖W‖₁ Λ) over neurons and time. Exact arithmetic
    is assumed: the last bits of a float are not. space "image" needs direct coding. No clipping to [0, 1].
    Errors: NoRadius, an InputError, where the path to the first neuron is not of this form, there is no neuron, or a
    shortcut, a second layer of neurons or anything else reads the input beside it.
    **Source:** ours (the quantitative half of P4).
    """
    radius, bypass = front_radius(model, images, labels, space=space)
    if bypass:
        raise NoRadius(bypass)
    return radius


def front_radius(model: nn.Module, images: Tensor, labels: Tensor, *, space: str = "image") -> tuple[Tensor, str]:
    """`constancy_radius` of the spikes of the first neuron alone, and what goes around that neuron ("" for nothing)."""
    check_inputs(model, images, labels, Budget(0, space=space), None)
    if space == "image" and "exact" not in getattr(getattr(model, "encoder", None), "gradients", ("exact",)):
        kind = type(model.encoder).__name__
        raise NoRadius(f"{kind} is a step of the image; expected direct coding, or space='encoded'")
    if not neurons_of(model):
        raise NoRadius(f"the {type(model).__name__} has no snnlib neuron; expected a spiking network")
    with torch.no_grad(), prepared(model), use_kernel("reference"):
        follower = _followed(model, images, space)
        reach = torch.ones_like(images[:1])
        for step in follower.before.steps:
            reach = _image(step.layer, _shaped_like(step.given, reach), size=True)
        currents = _currents(model, follower.neuron, model.encoder(images) if space == "encoded" else images, space)
        reach = _shaped_like(currents, reach)
        return _least_distance(follower.neuron, currents, reach.double()), follower.bypass


@dataclass(frozen=True)
class _Step:
    """One layer that the input ran through, with what went in and what came out."""

    layer: nn.Module
    given: Tensor
    output: Tensor


@dataclass(frozen=True)
class _Trace:
    """How a tensor came from the input: by layers alone, or also by an operation that is none ("" if not).

    The memory is kept, so that no other tensor is given its address.
    """

    memory: torch.UntypedStorage
    steps: tuple[_Step, ...] = ()
    odd: str = ""


@dataclass
class _Follower(TorchDispatchMode):
    """Knows every tensor that was made of the input without passing the first neuron, whatever it was made by."""

    neuron: LIF | None = None
    end: _Step | None = None
    before: _Trace | None = None
    bypass: str = ""
    traces: dict[int, _Trace] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        traces = self.of((args, kwargs))
        if traces:
            name = func.overloadpacket.__name__
            odd = next((trace.odd for trace in traces if trace.odd), "" if name in MOVES else name)
            self.mark(out, traces[0].steps, odd)
            if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):
                self.note(f"{name}, on which the program branches,")
        return out

    def mark(self, tensors: object, steps: tuple[_Step, ...] = (), odd: str = "") -> None:
        for tensor in (leaf for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor)):
            memory = tensor.untyped_storage()
            self.traces[memory._cdata] = _Trace(memory, steps, odd)

    def note(self, what: str) -> None:
        self.bypass = self.bypass or BYPASS.format(what=what)

    def leave(self, module: nn.Module, arguments: tuple, named: dict, output: Tensor) -> None:
        """After a layer: it was one step of the path, whatever it is made of. After the first neuron: a new start."""
        arguments = (*arguments, *named.values())
        traces = self.of(arguments)
        if not traces:
            return
        given, trace = arguments[0], traces[0]
        if not isinstance(module, LIF):
            self.mark(output, (*trace.steps, _Step(module, given, output)), trace.odd)
        elif self.neuron is None:
            self.neuron, self.before, self.end = module, trace, _Step(module, given, output)
            del self.traces[output.untyped_storage()._cdata]

    def of(self, values: object) -> list[_Trace]:
        leaves = (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
        found = (self.traces.get(leaf.untyped_storage()._cdata) for leaf in leaves)
        return [trace for trace in found if trace is not None]


def _followed(model: nn.Module, images: Tensor, space: str) -> _Follower:
    """Send two random inputs through the model and see what becomes of them, operation by operation."""
    generator = torch.Generator().manual_seed(0)
    start = images[:1].expand(2, *images.shape[1:])
    if space == "encoded":
        start = model.encoder(start)
    # Random numbers: on bits, or on an image that is all zeros, maps that are not affine may look so.
    start = torch.rand(start.shape, generator=generator, dtype=torch.float64).to(start)
    follower = _Follower()
    parts = [part for part in model.modules() if isinstance(part, (*LAYERS, LIF))]
    handles = [part.register_forward_hook(follower.leave, with_kwargs=True) for part in parts]
    follower.mark(start)
    try:
        with follower:
            logits = model.body(start) if space == "encoded" else model(start)
    finally:
        for handle in handles:
            handle.remove()
    if follower.neuron is None:
        raise NoRadius(f"no neuron of the {type(model).__name__} ran on the input; expected one in its forward pass")
    _check_path(follower, start)
    for trace in follower.of(logits):
        follower.note(trace.odd or "a layer")
    return follower


def _check_path(follower: _Follower, start: Tensor) -> None:
    """Errors: NoRadius where something other than the layers changed the values before the first neuron."""
    if follower.neuron.rule is not None:
        raise NoRadius("a rule stands in for the neuron's step; expected a deployed network")
    if follower.before.odd:
        raise NoRadius(
            f"{follower.before.odd}, which is no layer, changes the input of {type(follower.neuron).__name__} before "
            "the first neuron; expected layers alone"
        )
    came = start
    for step in follower.before.steps:
        expected = _image(step.layer, step.given)
        if not _same_values(came, step.given):
            raise NoRadius(f"the input of {type(step.layer).__name__} is rearranged before the first neuron")
        if not torch.allclose(step.output, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().amax())):
            raise NoRadius(f"{type(step.layer).__name__} does not compute what its weights say; remove its hooks")
        came = step.output
    if not _same_values(came, follower.end.given):
        raise NoRadius(f"the input of {type(follower.neuron).__name__} is rearranged before it arrives")
    if not torch.equal(follower.end.output, follower.neuron.forward(follower.end.given)):
        raise NoRadius(f"{type(follower.neuron).__name__} does not send what it computes; remove its hooks")


def _currents(model: nn.Module, neuron: LIF, start: Tensor, space: str) -> Tensor:
    """What the neuron gets [T, N, ...] when it runs for the first time."""
    seen: list[Tensor] = []
    handle = neuron.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        model.body(start) if space == "encoded" else model(start)
    finally:
        handle.remove()
    return seen[0]


def _same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one, up to folding time into the batch and repeating over time."""
    smaller, larger = sorted((a, b), key=Tensor.numel)
    if larger.numel() % smaller.numel():
        return False
    return bool((larger.reshape(-1, smaller.numel()) == smaller.reshape(1, -1)).all())


def _shaped_like(given: Tensor, reach: Tensor) -> Tensor:
    """`reach` [1, ...] in the shape of one sample of `given`, which may lead with axes of time and batch."""
    shape = given.shape
    while math.prod(shape) > reach.numel():
        shape = shape[1:]
    return reach.reshape(1, *shape)


def _image(layer: nn.Module, x: Tensor, *, size: bool = False) -> Tensor:
    """What a layer's weights make of `x`; with `size`, how far outputs move when inputs move by at most `x`."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        weight, bias = (layer.weight.abs(), None) if size else (layer.weight, layer.bias)
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        if not layer.track_running_stats:
            raise NoRadius("BatchNorm without running statistics lies before the first neuron; it is not affine")
        shape = (1, -1, *[1] * (x.dim() - 2))
        scale = (layer.running_var + layer.eps).rsqrt()
        scale = scale if layer.weight is None else scale * layer.weight
        if size:
            return x * scale.abs().view(shape)
        shift = 0 if layer.bias is None else layer.bias.view(shape)
        return (x - layer.running_mean.view(shape)) * scale.view(shape) + shift
    return x.flatten(layer.start_dim, layer.end_dim) if isinstance(layer, nn.Flatten) and not size else x


def _least_distance(neuron: LIF, currents: Tensor, reach: Tensor) -> Tensor:
    dtype = membrane_dtype(currents)
    threshold = torch.as_tensor(neuron.effective_threshold, dtype=dtype, device=currents.device)
    v = torch.zeros_like(currents[0], dtype=dtype)
    memory = torch.zeros_like(v, dtype=torch.float64)
    radius = torch.full((currents.shape[1],), torch.inf, dtype=torch.float64, device=currents.device)
    for x in currents.unbind(0):
        h = neuron.leak * v + x.to(dtype)
        memory = neuron.leak * memory + 1
        movable = reach * memory
        distance = (h - threshold).abs().double() / torch.where(movable > 0, movable, 1)
        distance = torch.where(movable > 0, distance, torch.inf)
        radius = torch.minimum(radius, distance.flatten(1).amin(1))
        spikes = (h >= threshold).to(dtype)
        if neuron.reset == "hard":
            v, memory = h * (1 - spikes), memory * (1 - spikes.double())
        else:
            v = h - threshold * spikes
    return radius
