"""How dense are weight gradients, and how dense can they be? Layer by layer, for R-4.3 and O3.

A layer z = W s (dense, or a convolution) is used at every time step and for every sample, so that ∂L/∂W = Σ δ sᵀ over
time, samples and positions, with s what arrives and δ = ∂L/∂z what comes back. Which of its entries *can* differ from
zero follows from where s and δ are zero; no number is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.inputs import check_inputs, check_logits, check_logits_shape
from snnlib.attacks.prepared import prepared
from snnlib.errors import InputError
from snnlib.neurons import LIF

CONSUMER_TOLERANCE = 1e-4
"""Relative difference up to which two gradients that are summed in another order count as one."""


@dataclass
class _Layer:
    """What one forward and backward pass left at a layer with weights, and at what follows it."""

    name: str
    module: nn.Conv2d | nn.Linear
    arrived: Tensor | None = None
    sent_back: Tensor | None = None
    norm: nn.Module | None = None
    at_norm: Tensor | None = None
    after_norm: Tensor | None = None
    neuron: LIF | None = None
    at_neuron: Tensor | None = None
    after_neuron: Tensor | None = None
    uses: int = 0
    handles: list = field(default_factory=list)


def weight_gradient_density(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    space: str = "image",
    batch_norm: str = "eval",
    per: str = "batch",
) -> pd.DataFrame:
    """Density of ∂L/∂W and its bounds at every convolution and linear layer: one row per layer, and sample if asked.

    images [N, C, H, W], labels [N]; the loss is the cross-entropy summed over samples. per "batch": one gradient for
    the batch; "sample": one for each image, on its own. batch_norm "train" normalises by batch statistics.

    Columns: layer, kind, sample (−1 for a batch), entries; density: share of non-zeros of ∂L/∂W. Bounds, from the
    sharpest: union: entries that some pair (δ, s) reaches; rows_columns: ρ_R · ρ_C, the rows (outputs, channels) with
    some δ ≠ 0 times the columns (inputs, channels) with some s ≠ 0; architecture_spikes: (1 − S) · r, rows counted
    where the *neuron behind* gets a gradient from its consumers (S = share that gets none); spikes: r = ρ_C alone.
    time_sum: Σ ‖δ‖₀ ‖s‖₀ / entries over time, samples and positions, capped at 1. S, r: the two factors.
    outside_union: non-zeros of ∂L/∂W where theory has none; 0, or the arithmetic is not exact.
    behind_neuron: whether the assumption of (1 − S) · r holds here, `reason` says why not.
    Errors: InputError for inputs that do not fit, a single image with batch_norm="train", or a layer used twice.
    **Source:** R-4.3 (Luu et al. 2025, theorem 4.3, reconstructed) and O3 (ours).
    """
    check_inputs(model, images, labels, Budget(0, space=space), None)
    if per not in ("batch", "sample"):
        raise InputError(f"per is {per!r}; expected 'batch' or 'sample'")
    if batch_norm == "train" and (len(images) < 2 or per == "sample"):
        raise InputError('batch_norm is "train" with one image; expected a batch: its statistics are what is used')
    groups = [(-1, slice(None))] if per == "batch" else [(n, slice(n, n + 1)) for n in range(len(images))]
    parts = []
    for sample, group in groups:
        layers = _one_pass(model, images[group], labels[group], space, batch_norm)
        parts.append(pd.DataFrame([_row(layer) for layer in layers]).assign(sample=sample))
    return pd.concat(parts, ignore_index=True)


def _one_pass(model: nn.Module, images: Tensor, labels: Tensor, space: str, batch_norm: str) -> list[_Layer]:
    layers: list[_Layer] = []
    with torch.inference_mode(False), torch.enable_grad(), prepared(model, batch_norm=batch_norm):
        with torch.no_grad():
            start = model.encoder(images) if space == "encoded" else images
        watcher = _Watcher(model, layers)
        try:
            weights = [module.weight for _, module in watcher.weighted]
            for weight in weights:
                weight.requires_grad_(True)
            logits = model.body(start) if space == "encoded" else model(start)
            check_logits_shape(logits, len(labels))
            check_logits(logits.detach(), labels)
            loss = F.cross_entropy(logits, labels.to(logits.device, torch.int64), reduction="sum")
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        finally:
            watcher.remove()
    found = dict(zip((module for _, module in watcher.weighted), gradients, strict=True))
    for layer in layers:
        if layer.uses > 1:
            raise InputError(f"layer {layer.name!r} runs {layer.uses} times in a forward pass; expected once")
        layer.gradient = found[layer.module]
    return [layer for layer in layers if layer.gradient is not None]


class _Watcher:
    """Hooks that note what passes each weighted layer, the BatchNorm right behind it and the next neuron."""

    def __init__(self, model: nn.Module, layers: list[_Layer]) -> None:
        self._layers = layers
        self._last: nn.Module | None = None
        leaves = [(name, module) for name, module in model.named_modules() if not any(module.children())]
        self.weighted = [(name, module) for name, module in leaves if isinstance(module, nn.Conv2d | nn.Linear)]
        if not self.weighted:
            raise InputError(f"the {type(model).__name__} has no convolution or linear layer; expected at least one")
        self._names = {module: name for name, module in self.weighted}
        self._handles = []
        for _, module in leaves:
            self._handles.append(module.register_forward_pre_hook(self._enter))
            self._handles.append(module.register_forward_hook(self._leave))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: nn.Module, arguments: tuple) -> tuple:
        given = arguments[0]
        if module in self._names:
            self._start(module, given)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            for layer in self._layers:
                if layer.module is self._last:
                    layer.norm = module
                    return self._listen_in(layer, "at_norm", arguments)
        elif isinstance(module, LIF):
            waiting = [layer for layer in self._layers if layer.neuron is None]
            for layer in waiting:
                layer.neuron = module
            if waiting and given.requires_grad:
                alias = given.view_as(given)
                for layer in waiting:
                    alias.register_hook(_setter(layer, "at_neuron"))
                return (alias, *arguments[1:])
        return arguments

    def _start(self, module: nn.Module, given: Tensor) -> None:
        same = [layer for layer in self._layers if layer.module is module]
        layer = same[0] if same else _Layer(self._names[module], module)
        if not same:
            self._layers.append(layer)
        layer.uses += 1
        layer.arrived = given.detach()

    def _listen_in(self, layer: _Layer, name: str, arguments: tuple) -> tuple:
        alias = arguments[0].view_as(arguments[0])
        if alias.requires_grad:
            alias.register_hook(_setter(layer, name))
        return (alias, *arguments[1:])

    def _leave(self, module: nn.Module, arguments: tuple, output: Tensor) -> None:
        self._last = module
        if not (isinstance(output, Tensor) and output.requires_grad):
            return
        for layer in self._layers:
            if layer.module is module:
                output.register_hook(_setter(layer, "sent_back"))
            elif layer.norm is module and layer.after_norm is None:
                output.register_hook(_setter(layer, "after_norm"))
            elif layer.neuron is module and layer.after_neuron is None:
                output.register_hook(_setter(layer, "after_neuron"))


def _setter(layer: _Layer, name: str):
    def note(gradient: Tensor) -> None:
        setattr(layer, name, gradient.detach())

    return note


def _row(layer: _Layer) -> dict[str, object]:
    module, delta, s = layer.module, layer.sent_back, layer.arrived
    entries = layer.gradient.numel()
    rows, columns = _alive(delta, module), _alive(s, module)
    reached, pairs = _reached(module, delta, s)
    reason = _not_behind_neuron(layer)
    alive = float(_behind(layer, rows).double().mean())
    spikes = float(columns.double().mean())
    return {
        "layer": layer.name,
        "kind": type(module).__name__,
        "entries": entries,
        "density": int((layer.gradient != 0).sum()) / entries,
        "union": int(reached.sum()) / entries,
        "rows_columns": float(rows.double().mean()) * spikes,
        "architecture_spikes": alive * spikes,
        "spikes": spikes,
        "time_sum": min(1.0, pairs / entries),
        "S": 1 - alive,
        "r": spikes,
        "outside_union": int(((layer.gradient != 0) & ~reached).sum()),
        "behind_neuron": reason == "",
        "reason": reason,
    }


def _behind(layer: _Layer, rows: Tensor) -> Tensor:
    """Which channels of the neuron behind the layer get a gradient from its consumers; the rows, if there is none."""
    if layer.neuron is None:
        return rows
    if layer.after_neuron is None:
        return torch.zeros_like(rows)
    return layer.after_neuron.movedim(2, 0).flatten(1).ne(0).any(1)


def _alive(x: Tensor, module: nn.Module) -> Tensor:
    """Which channels (convolution) or features (linear) of a layer's input or output are ever non-zero."""
    axis = 1 if isinstance(module, nn.Conv2d) else x.dim() - 1
    return x.ne(0).movedim(axis, 0).flatten(1).any(1)


def _reached(module: nn.Module, delta: Tensor, s: Tensor) -> tuple[Tensor, float]:
    """Entries of W that some pair of non-zeros meets (bool, like W), and how many pairs meet at all."""
    d, p = (x.ne(0).to(torch.float32) for x in (delta, s))
    if isinstance(module, nn.Linear):
        d, p = d.flatten(0, -2), p.flatten(0, -2)
        return (d.t() @ p) > 0, float((d.sum(1).double() * p.sum(1).double()).sum())
    if module.groups != 1:
        raise InputError(f"the convolution has {module.groups} groups; expected 1")
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise InputError(f"the convolution pads {module.padding!r}, {module.padding_mode}; expected a number of zeros")
    geometry = (module.stride, module.padding, module.dilation)
    # Counts, not products of floats: a kernel entry is reached where any position pairs two non-zeros under it.
    # In NCHW: in channels-last, weight gradients of strided 1x1 kernels can be wrong (`snnlib.models.convolution`).
    d, p = (x.contiguous(memory_format=torch.contiguous_format) for x in (d, p))
    counts = torch.nn.grad.conv2d_weight(p, module.weight.shape, d, *geometry)
    footprint = torch.ones(1, 1, *module.kernel_size, device=s.device)
    patch = F.conv2d(p.sum(1, keepdim=True), footprint, None, *geometry)
    return counts > 0.5, float((d.sum(1, keepdim=True).double() * patch.double()).sum())


def _not_behind_neuron(layer: _Layer) -> str:
    """Why the rows of W cannot be told from the neuron behind it; "" where they can.

    Needed: from the layer's output on there is nothing but BatchNorm and the neuron, and nobody else listens. Then all
    that comes back at one stage is what the next stage sends.
    """
    if layer.neuron is None:
        return ""
    if layer.after_neuron is None or layer.at_neuron is None:
        return "the neuron behind the layer gets no gradient"
    stages = [("sent_back", layer.sent_back)]
    stages += [("at_norm", layer.at_norm), ("after_norm", layer.after_norm)] if layer.norm is not None else []
    stages.append(("at_neuron", layer.at_neuron))
    for (_, total), (_, part) in zip(stages[::2], stages[1::2], strict=True):
        if total is None or part is None:
            return "the output reaches the neuron on another way"
        if not _same(total, part):
            return "the output of the layer is used elsewhere too, or changed on its way to the neuron"
    return ""


def _same(total: Tensor, part: Tensor) -> bool:
    """Whether two gradients are one, up to folding time into the batch, repeating over time, and rounding."""
    if part.numel() != total.numel() and part.dim() == total.dim() + 1:
        part = part.sum(0)
    if part.numel() != total.numel():
        return False
    difference = (part.reshape(total.shape) - total).abs().amax()
    return bool(difference <= CONSUMER_TOLERANCE * total.abs().amax())
