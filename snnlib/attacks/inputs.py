"""What an attack accepts; each refusal is one line."""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.errors import InputError


def check_inputs(
    model: nn.Module, images: Tensor, labels: Tensor, budget: Budget, generator: torch.Generator | None
) -> None:
    """Check everything that can be checked before the first forward pass. Errors: InputError."""
    if not isinstance(budget, Budget):
        raise InputError(f"budget is {budget!r}; expected a Budget such as Budget(eps=8/255)")
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model is a {type(model).__name__}; expected a torch.nn.Module from images to logits"
        )
    for part in ("encoder", "body") if budget.space == "encoded" else ():
        if not hasattr(model, part):
            raise InputError(
                f'{type(model).__name__} has no .{part}; Budget(space="encoded") needs it, or use "image"'
            )
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputError(f"generator is {generator!r}; expected None or torch.Generator().manual_seed(...)")
    _check_images(images)
    _check_labels(labels, len(images))


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.dtype not in (torch.float32, torch.float64):
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"images are {kind}; expected a float32 or float64 tensor; convert them first")
    if images.dim() < 2:
        raise InputError(f"images have shape {list(images.shape)}; expected [N, C, H, W]; add the batch axis")
    if images.numel() == 0:
        raise InputError(
            f"images have shape {list(images.shape)}: an empty batch; expected at least one sample"
        )
    if not (images.amin() >= 0 and images.amax() <= 1):
        raise InputError(
            f"images span {images.amin():.4g}..{images.amax():.4g}; expected values in [0, 1]; "
            "divide bytes by 255, and normalise inside the model"
        )


def _check_labels(labels: Tensor, count: int) -> None:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise InputError(f"labels are {kind}; expected an integer tensor of class numbers")
    if labels.shape != (count,):
        raise InputError(
            f"labels have shape {list(labels.shape)}; expected [{count}], one class number per image"
        )
    if labels.amin() < 0:
        raise InputError(f"labels contain {int(labels.amin())}; expected class numbers from 0")


def check_logits_shape(logits: Tensor, count: int) -> None:
    """Errors: InputError unless `logits` are [count, classes] with two classes or more."""
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != count or logits.shape[1] < 2:
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"the model returned {shape}; expected logits [{count}, classes] with at least 2 classes"
        )


def check_logits(logits: Tensor, labels: Tensor, loss: str = "ce", fewest_classes: int = 2) -> None:
    """Errors: InputError for logits that are not finite, labels beyond the classes, or too few classes for `loss`."""
    if not logits.isfinite().all():
        raise InputError("the model's logits contain NaN or infinity before any step; check its weights")
    if labels.amax() >= logits.shape[1]:
        raise InputError(
            f"labels contain {int(labels.amax())}, but the model has classes 0..{logits.shape[1] - 1}"
        )
    if logits.shape[1] < fewest_classes:
        raise InputError(
            f"loss {loss!r} needs at least {fewest_classes} classes and the model has {logits.shape[1]}; "
            "use loss='margin'"
        )


def check_count(name: str, value: int) -> None:
    """Errors: InputError unless `value` is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}; expected a whole number of 1 or more")


def check_length(
    name: str, value: float, at_most: float = sys.float_info.max, unit: str = ", in pixel units"
) -> None:
    """Errors: InputError, naming the unit, unless `value` is a finite number in 0..`at_most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= at_most:
        raise InputError(f"{name} is {value!r}; expected a number in 0..{at_most:.4g}{unit}")


def check_flag(name: str, value: bool) -> None:
    """Errors: InputError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}; expected True or False")


def check_restarts(restarts: int, batch_norm: str, early_stop: bool = True) -> None:
    """Errors: InputError unless `restarts` is a count of 1 or more, and 1 where the attack ends at its last point."""
    check_count("restarts", restarts)
    if restarts > 1 and batch_norm != "eval":
        raise InputError(
            f'restarts is {restarts} with batch_norm="{batch_norm}"; that protocol has one start; set 1'
        )
    if restarts > 1 and not early_stop:
        raise InputError(
            f"restarts is {restarts} with early_stop=False, which returns the last point of one start; set restarts=1"
        )
