"""What an attack accepts; each refusal is one line."""

from __future__ import annotations

import sys
from numbers import Real

import torch
from torch import Tensor, nn

from snnlib import checks
from snnlib.attacks.budget import Budget
from snnlib.attacks.entrance import check_model
from snnlib.errors import InputError

ROUNDING = 1e-6
"""How far a pixel may lie outside of [0, 1], as after a resize or a division: what `Budget.inside` forgives, too."""


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
    _check_layout(model, images)
    _check_labels(labels, len(images))
    _check_values(images, labels)
    check_model(model)


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


def _check_layout(model: nn.Module, images: Tensor) -> None:
    """A batch [N, H, W, C] fits every model that flattens its input, and many a convolution."""
    if images.dim() != 4 or not images.shape[3] <= 4 < min(images.shape[1:3]):
        return
    taken = [module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)][:1]
    if taken != [images.shape[1]]:
        raise InputError(
            f"images have shape {list(images.shape)}, channels last; expected [N, C, H, W]; permute(0, 3, 1, 2)"
        )


def _check_labels(labels: Tensor, count: int) -> None:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise InputError(f"labels are {kind}; expected an integer tensor of class numbers")
    if labels.shape != (count,):
        raise InputError(
            f"labels have shape {list(labels.shape)}; expected [{count}], one class number per image"
        )


def _check_values(images: Tensor, labels: Tensor) -> None:
    """Reads from the device once."""
    ends = [images.amin(), images.amax(), labels.to(images.device, torch.int64).amin()]
    lowest, highest, lowest_label = torch.stack([end.to(images.dtype) for end in ends]).tolist()
    if not (lowest >= -ROUNDING and highest <= 1 + ROUNDING):
        raise InputError(
            f"images span {lowest:.9g}..{highest:.9g}; expected values in [0, 1]; "
            + ("counts of events have no budget: bin with binary=True" if images.dim() == 5
               else "divide bytes by 255, and normalise inside the model")
        )
    if lowest_label < 0:
        raise InputError(f"labels contain {lowest_label:.0f}; expected class numbers from 0")


def check_logits_shape(logits: Tensor, count: int) -> None:
    """Errors: InputError unless `logits` are [count, classes] with two classes or more."""
    if isinstance(logits, tuple | list) or (isinstance(logits, Tensor) and logits.dim() == 3):
        raise InputError(
            f"the model returned {_kind_of(logits)}; expected logits [{count}, classes]; if these are spikes over "
            'time, wrap it: snnlib.wrap.callable(model, readout="count"), or snnlib.wrap.snntorch, spikingjelly, norse'
        )
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != count or logits.shape[1] < 2:
        raise InputError(
            f"the model returned {_kind_of(logits)}; expected logits [{count}, classes] with at least 2 classes"
        )


def _kind_of(output: object) -> str:
    if isinstance(output, tuple | list):
        return f"{type(output).__name__} of {', '.join(map(_kind_of, output[:4]))}{', ...' if output[4:] else ''}"
    return str(list(output.shape)) if isinstance(output, Tensor) else type(output).__name__


def check_logits(logits: Tensor, labels: Tensor, loss: str = "ce", fewest_classes: int = 2) -> None:
    """Errors: InputError for logits that are not finite, labels beyond the classes, or too few classes for `loss`."""
    labels = labels.to(logits.device, torch.int64)
    finite, highest = torch.stack([logits.isfinite().all().to(torch.int64), labels.amax()]).tolist()
    if not finite:
        raise InputError("the model's logits contain NaN or infinity before any step; check its weights")
    if highest >= logits.shape[1]:
        raise InputError(
            f"labels contain {highest}, but the model has classes 0..{logits.shape[1] - 1}"
        )
    if logits.shape[1] < fewest_classes:
        raise InputError(
            f"loss {loss!r} needs at least {fewest_classes} classes and the model has {logits.shape[1]}; "
            "use loss='margin'"
        )


def check_count(name: str, value: int) -> int:
    """`value` as a Python int. Errors: InputError unless it is a whole number of at least 1."""
    return checks.whole(name, value)


def check_length(
    name: str, value: float, at_most: float = sys.float_info.max, unit: str = ", in pixel units"
) -> float:
    """`value` as a Python number. Errors: InputError, naming the unit, unless it is finite and in 0..`at_most`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= at_most:
        raise InputError(f"{name} is {value!r}; expected a number in 0..{at_most:.4g}{unit}")
    return value if isinstance(value, int) else float(value)


def check_flag(name: str, value: bool) -> None:
    """Errors: InputError unless `value` is True or False."""
    checks.flag(name, value)


def check_restarts(restarts: int, batch_norm: str, early_stop: bool = True) -> int:
    """`restarts` as a Python int. Errors: InputError unless it is a count of 1 or more, and 1 where the attack ends at
    its last point."""
    restarts = check_count("restarts", restarts)
    if restarts > 1 and batch_norm != "eval":
        raise InputError(
            f'restarts is {restarts} with batch_norm="{batch_norm}"; that protocol has one start; set 1'
        )
    if restarts > 1 and not early_stop:
        raise InputError(
            f"restarts is {restarts} with early_stop=False, which returns the last point of one start; set restarts=1"
        )
    return restarts
