"""Reading gradients out of a model: operation by operation (Luu et al. 2025, figs. 3 and 5), and at the
input.

The loss is the cross-entropy summed over samples, so that in eval mode a sample's gradient does not depend on
the batch it came in; with the mean, shares stay and norms shrink by the batch size. Every probe hands the
model back as it was: modes, BatchNorm statistics, `requires_grad`, `.grad`, surrogate; also after an
exception.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib import checks
from snnlib.attacks.budget import Budget
from snnlib.attacks.inputs import check_inputs, check_logits, check_logits_shape
from snnlib.attacks.prepared import prepared
from snnlib.attacks.session import NO_GRADIENT
from snnlib.errors import InputError
from snnlib.models.layers import first_weight
from snnlib.neurons import Surrogate
from snnlib.sparsity.measures import MEASURES
from snnlib.sparsity.operations import Listener

TARGETS = ("loss", "true_class_probability")


def gradient_by_operation(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    batch_norm: str = "eval",
    space: str = "image",
    gradient: Surrogate | None = None,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Sparsity and norm of the loss gradient at each operation: one row per leaf module, in forward order.

    A neuron layer that is used at several places has a row for each, "name (call 2)" and so on; a module of
    another kind has one row over all its calls.
    images [N, C, H, W] in [0, 1], in the model's dtype or made so; labels [N]. `space="encoded"` starts at the
    encoded tensor and leaves the encoder out. `batch_norm="train"` normalises by batch statistics, which depend
    on `batch_size` and couple the samples. `gradient`: the surrogate by which spikes are differentiated (None:
    the model's own).

    Columns: operation (the module's name); kind (its class); block, inside_residual_block (the module with
    `is_residual_block = True` around it); zero_share_* and small_share_* of the gradient at the operation's
    input and output, over all entries ("small": relative to the largest entry of the same sample and call);
    l2_grad_input (over all entries and time steps of a sample, mean over samples); elements (entries of the
    input gradient per sample, time included); dead_share (share of a neuron layer's channels that never fired
    on these images, NaN for other operations). Where no gradient arrives: NaN and 0 elements.

    "Input gradient" is the part that flows back through this operation alone; the output gradient is the sum
    over all consumers. Identity and flatten are left out: they compute nothing.

    **Source:** the inspection behind figs. 3 and 5 of Luu et al. 2025 (their code, utils.py: full backward
    hooks on leaf modules; exact zeros of both gradients, L2 norm of the input's). We differ: they print one
    value per call, whole batch and mean loss, with the model in train mode, and see a neuron as its surrogate
    at one time step; here all is averaged, norms are per sample, and a neuron is one operation over all time
    steps.
    Errors: InputError for inputs that do not fit, or a gradient that is not finite.
    """
    _check(model, images, labels, batch_norm, space)
    batch_size = checks.whole("batch_size", batch_size)
    listener = Listener(model, image_axes=min(4, images.dim()))  # events have time among their five
    with _borrowed(model, gradient, batch_norm):
        for start, batch_labels in _starts(model, images, labels, space, batch_size):
            with listener.batch(samples=len(batch_labels)):
                _objective(model, start, batch_labels, space, "loss").backward()
    return pd.DataFrame([operation.row() for operation in listener.operations])


def input_gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    space: str = "image",
    batch_norm: str = "eval",
    gradient: Surrogate | None = None,
    target: str = "loss",
    batch_size: int = 64,
) -> Tensor:
    """Gradient at the input, sample-first: [N, C, H, W], or [N, T, C, H, W] for `space="encoded"`.

    `target="loss"`: cross-entropy. `target="true_class_probability"`: f_y(x) = softmax(logits)[y], the
    function of Theorem 4.1. Where the softmax of a sure network rounds to 1 both are exactly 0: confidence,
    not sparsity.

    **Source:** Luu et al. 2025, Theorem 4.1 (Liu et al. 2024): its ‖g‖₀ counts this gradient and no inner
    one.
    Errors: InputError for inputs that do not fit, or an encoder that passes no gradient to the image.
    """
    _check(model, images, labels, batch_norm, space)
    batch_size = checks.whole("batch_size", batch_size)
    if target not in TARGETS:
        raise InputError(f"target is {target!r}; expected one of {', '.join(TARGETS)}")
    gradients = []
    with _borrowed(model, gradient, batch_norm):
        for start, batch_labels in _starts(model, images, labels, space, batch_size):
            objective = _objective(model, start, batch_labels, space, target)
            (grad,) = torch.autograd.grad(objective, start, allow_unused=True)
            if grad is None:
                raise InputError(_no_gradient(space))
            gradients.append(grad if space == "image" else grad.transpose(0, 1))
    return torch.cat(gradients)


def input_gradient_measures(model: nn.Module, images: Tensor, labels: Tensor, **options) -> pd.DataFrame:
    """Every measure of `snnlib.sparsity.measures` on the input gradient: one row per sample, in their order.

    Options are those of `input_gradient`. Columns: sample (position in `images`), label, then one per
    measure.

    >>> from snnlib import data, models, sparsity
    >>> test = data.load_images("cifar10").test.first_per_class(1)
    >>> model = models.released("snn-conversion-from-trades-night-0")
    >>> table = sparsity.input_gradient_measures(model, test.batch(slice(None)), test.labels)
    >>> len(table), bool(table.zero_share.between(0, 1).all())
    (10, True)
    """
    grad = input_gradient(model, images, labels, **options)
    columns = {name: measure(grad).cpu().numpy() for name, measure in MEASURES.items()}
    return pd.DataFrame({"sample": range(len(grad)), "label": labels.cpu().numpy(), **columns})


@contextmanager
def _borrowed(model: nn.Module, gradient: Surrogate | None, batch_norm: str) -> Iterator[None]:
    lent = prepared(model, gradient=gradient, batch_norm=batch_norm)
    with torch.inference_mode(False), torch.enable_grad(), lent:
        yield


def _starts(
    model: nn.Module, images: Tensor, labels: Tensor, space: str, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of what to differentiate by, `[N, ...]` or `[T, N, ...]`, with their labels."""
    labels, dtype = labels.to(images.device, torch.int64), first_weight(model, otherwise=images).dtype
    for batch, batch_labels in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        start = batch.clone().detach().to(dtype)
        if space == "encoded":
            with torch.no_grad():
                start = model.encoder(start)
        # Direct coding repeats one image as a view; only a copy has a gradient of its own at each time step.
        yield start.clone(memory_format=torch.contiguous_format).requires_grad_(True), batch_labels.clone()


def _objective(model: nn.Module, start: Tensor, labels: Tensor, space: str, target: str) -> Tensor:
    logits = model(start) if space == "image" else model.body(start)
    check_logits_shape(logits, len(labels))
    check_logits(logits.detach(), labels)
    if not logits.requires_grad:
        raise InputError(_no_gradient(space))
    if target == "loss":
        return F.cross_entropy(logits, labels, reduction="sum")
    return logits.softmax(1).gather(1, labels[:, None]).sum()


def _no_gradient(space: str) -> str:
    return NO_GRADIENT.format(space="images" if space == "image" else "encoded input")


def _check(model: nn.Module, images: Tensor, labels: Tensor, batch_norm: str, space: str) -> None:
    check_inputs(model, images, labels, Budget(eps=0, space=space), None)
    if batch_norm not in ("eval", "train"):
        raise InputError(f"batch_norm is {batch_norm!r}; expected one of eval, train")
