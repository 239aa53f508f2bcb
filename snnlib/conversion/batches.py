"""Training images for calibration and for BatchNorm statistics: shuffled and augmented by a seed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from snnlib import checks
from snnlib.data.image_set import ImageSet
from snnlib.errors import InputError
from snnlib.training.augmentation import AUGMENTATIONS, build_augmentation
from snnlib.training.randomness import generator_at


def shuffled_batches(
    image_set: ImageSet | Tensor,
    purpose: str,
    *,
    batches: int,
    batch_size: int,
    seed: int,
    augmentation: str,
    like: Tensor | None = None,
) -> Iterator[Tensor]:
    """`batches` mini-batches `[batch_size, C, H, W]` in [0, 1]; the whole set is used up before an image comes again.

    image_set: labels are not looked at; or a tensor `[n, C, H, W]` in [0, 1]. `purpose` keeps the draws of different
    uses apart. The images have device and dtype of `like` (None: float32 on the CPU).
    Errors: InputError for counts below 1, a batch larger than the set, other images, or an unknown augmentation.
    """
    batches, batch_size = checks.whole("batches", batches), checks.whole("batch_size", batch_size)
    if augmentation not in AUGMENTATIONS:
        raise InputError(f"augmentation is {augmentation!r}; expected one of {', '.join(AUGMENTATIONS)}; choose one")
    if not isinstance(image_set, ImageSet):
        _check_tensor(image_set, augmentation)
    if batch_size > len(image_set):
        raise InputError(f"batch_size is {batch_size}, but there are {len(image_set)} images; lower it or pass more")
    rounds = -(-batches * batch_size // len(image_set))
    orders = [torch.randperm(len(image_set), generator=generator_at(purpose, seed, r)) for r in range(rounds)]
    indices = torch.cat(orders)[: batches * batch_size].split(batch_size)

    augment = build_augmentation(augmentation, image_set)
    like = torch.empty(0, dtype=torch.float32, device="cpu") if like is None else like

    def draw(number: int, index: Tensor) -> Tensor:
        taken = image_set.batch(index, like.device) if isinstance(image_set, ImageSet) else image_set[index]
        images = augment(taken.to(like.device), generator_at(f"{purpose}, augmentation", seed, number))
        return images.to(like.dtype)

    return (draw(number, index) for number, index in enumerate(indices))


def _check_tensor(images: object, augmentation: str) -> None:
    if not (isinstance(images, Tensor) and images.is_floating_point() and images.dim() == 4 and len(images)):
        kind = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"the images are {kind}; expected an ImageSet, or floats [n, C, H, W] in [0, 1]")
    if not (images.amin() >= 0 and images.amax() <= 1):
        span = f"{images.amin():.4g}..{images.amax():.4g}"
        raise InputError(f"the images span {span}; expected 0..1; divide bytes by 255")
    if augmentation == "crop-flip-cutout":
        raise InputError("augmentation is 'crop-flip-cutout', whose squares need an ImageSet; expected another one")
