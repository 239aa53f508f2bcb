"""P4 made a number: how far the input of a deployed spiking network can move before any spike does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.inputs import check_inputs
from snnlib.attacks.prepared import prepared
from snnlib.errors import InputError
from snnlib.neurons import LIF, neurons_of
from snnlib.neurons.reference import membrane_dtype

PASSES = (nn.Identity, nn.Dropout)


class NoRadius(InputError):
    """The path from the input to the first neuron is not affine, or there is no neuron."""


def constancy_radius(model: nn.Module, images: Tensor, labels: Tensor, *, space: str = "image") -> Tensor:
    """L∞ radius around each input within which every spike, and so every logit, stays the same: float64 [N].

    Layers before the first neuron must be linear (convolution, linear, BatchNorm in eval). With W the weights that lead
    to neuron i, h its membrane before firing, θ the threshold and Λ[t] = leak · Λ[t−1] + 1 (Λ[t−1] counted only without
    a hard reset since), a perturbation of size eps moves h_i[t] by at most eps · ‖W_i‖₁ · Λ_i[t]; the radius is the
    least |h − θ| / (‖W‖₁ Λ) over neurons and time. Exact arithmetic is assumed: the last bits of a float are not.
    space "image" needs direct coding. No clipping to [0, 1].
    Errors: NoRadius, an InputError, where the path to the first neuron is not of this form, or there is no neuron.
    **Source:** ours (the quantitative half of P4).
    """
    check_inputs(model, images, labels, Budget(0, space=space), None)
    if space == "image" and "exact" not in getattr(getattr(model, "encoder", None), "gradients", ("exact",)):
        kind = type(model.encoder).__name__
        raise NoRadius(f"{kind} is a step of the image; expected direct coding, or space='encoded'")
    if not neurons_of(model):
        raise NoRadius(f"the {type(model).__name__} has no snnlib neuron; expected a spiking network")
    with torch.no_grad(), prepared(model):
        path, neuron, currents = _path_to_first_neuron(model, images, space)
        reach = torch.ones_like(images[:1])
        for layer in path:
            reach = _reach(layer, reach)
        return _least_distance(neuron, currents, reach.double())


def _path_to_first_neuron(model: nn.Module, images: Tensor, space: str) -> tuple[list[nn.Module], LIF, Tensor]:
    """Leaf modules in forward order up to the first neuron, that neuron, and its currents [T, N, ...]."""
    ran: list[tuple[nn.Module, Tensor, Tensor]] = []
    leaves = [module for module in model.modules() if not any(module.children())]

    def note(module: nn.Module, arguments: tuple, output: object) -> None:
        ran.append((module, arguments[0], output))

    handles = [leaf.register_forward_hook(note) for leaf in leaves]
    try:
        start = images
        if space == "encoded":
            start = model.encoder(images)
            model.body(start)
        else:
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    encoder = getattr(model, "encoder", None)
    path, before = [], start
    for module, given, output in (step for step in ran if step[0] is not encoder):
        if not _same_values(given, before):
            raise NoRadius(
                f"something that is no layer changes the input of {type(module).__name__} before the first neuron; "
                "expected layers alone"
            )
        if isinstance(module, LIF):
            return path, module, given
        path.append(module)
        before = output
    raise NoRadius(f"no neuron of the {type(model).__name__} ran; expected one in its forward pass")


def _same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one, up to folding time into the batch and repeating over time."""
    smaller, larger = sorted((a, b), key=Tensor.numel)
    if larger.numel() % smaller.numel():
        return False
    return bool((larger.reshape(-1, smaller.numel()) == smaller.reshape(1, -1)).all())


def _reach(layer: nn.Module, reach: Tensor) -> Tensor:
    """How far a layer's outputs move when its inputs move by at most `reach` [1, ...]."""
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(
            reach, layer.weight.abs(), None, layer.stride, layer.padding, layer.dilation, layer.groups
        )
    if isinstance(layer, nn.Linear):
        return F.linear(reach, layer.weight.abs())
    if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats:
        scale = (layer.running_var + layer.eps).rsqrt()
        scale = scale if layer.weight is None else scale * layer.weight.abs()
        return reach * scale.view(1, -1, *[1] * (reach.dim() - 2))
    if isinstance(layer, nn.Flatten):
        return reach.flatten(1)
    if isinstance(layer, PASSES):
        return reach
    raise NoRadius(
        f"{type(layer).__name__} lies before the first neuron; expected convolution, linear or BatchNorm layers"
    )


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
