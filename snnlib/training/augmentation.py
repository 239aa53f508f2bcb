"""Random flips, crops, cutouts and movements; each draws from the generator that it is given and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from snnlib.data.image_set import ImageSet
from snnlib.errors import InputError
from snnlib.runtime import sent

PADDING = 4
CUTOUT_SHARE = 1 / 4
AREA, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10
"""Of a resized crop: share of the image's area, width over height, and draws before the whole image is taken."""
MOST_TURN, MOST_SCALE, MOST_SHEAR, MOST_SHIFT = math.radians(15), 0.15, 0.1, 0.08

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def unchanged(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images as they are."""
    return images


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image `[N, C, H, W]` left to right with probability ½."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(sent(mirrored, images.device).view(-1, 1, 1, 1), images.flip(-1), images)


def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pad each image by 4 black pixels, cut a window of the old size at a random place, then `flip`."""
    count, _, height, width = images.shape
    corners = sent(torch.randint(0, 2 * PADDING + 1, (2, count, 1), generator=generator), images.device)
    rows = corners[0] + torch.arange(height, device=images.device)
    columns = corners[1] + torch.arange(width, device=images.device)
    padded = F.pad(images, (PADDING,) * 4).permute(0, 2, 3, 1)
    sample = torch.arange(count, device=images.device).view(-1, 1, 1)
    windows = padded[sample, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)
    return flip(windows.contiguous(), generator)


def cutout(images: Tensor, generator: torch.Generator, *, fill: Tensor) -> Tensor:
    """Fill one square per image with `fill` `[C]`: centre drawn from all pixels, what lies outside is cut off.

    The side is a quarter of the image's: 8 pixels of 32, 16 of 64. Around the centre (y, x) the square covers the rows
    y − side/2 .. y + side/2 − 1, and so for the columns.
    **Source:** DeVries & Taylor 2017; side and fill as in Özdenizci & Legenstein's code.
    """
    count, _, height, width = images.shape
    rows, columns = (sent(_in_square(count, length, generator), images.device) for length in (height, width))
    covered = rows.view(count, 1, height, 1) & columns.view(count, 1, 1, width)
    return torch.where(covered, sent(fill, images.device).to(images.dtype).view(1, -1, 1, 1), images)


def crop_flip_cutout(images: Tensor, generator: torch.Generator, *, fill: Tensor) -> Tensor:
    """`crop_flip`, then `cutout`."""
    return cutout(crop_flip(images, generator), generator, fill=fill)


def resized_crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Cut a window of random area and shape from each image, scale it back to the image's size, then `flip`.

    The area is uniform in 8 to 100 % of the image's, the logarithm of width / height uniform within ±log(4/3); a window
    that does not fit is drawn again, ten times at most, then the whole image is taken. Scaling is bilinear. These are
    the numbers of torchvision's `RandomResizedCrop`, for square images; the draws are our own.
    **Source:** Szegedy et al. 2015; for TinyImageNet as in Özdenizci & Legenstein's code.
    """
    size = images.shape[-2:]
    windows = [_window(*size, generator) for _ in images]
    cut = [
        F.interpolate(image[None, :, top : top + height, left : left + width], size, mode="bilinear")
        for image, (top, left, height, width) in zip(images, windows, strict=True)
    ]
    return flip(torch.cat(cut) if cut else images, generator)


def event_affine(recordings: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, scale, shear and shift each recording `[N, T, 2, H, W]` as a whole, by nearest pixel: counts stay counts.

    Uniform draws: 15 degrees to either side, 15 % larger or smaller, a shear of 0.1, 8 % of the side along and across.
    **Source:** geometric augmentation of event data as in Li et al. 2022 (NDA); the ranges are ours, usual for digits.
    """
    count, bins, polarities, height, width = recordings.shape
    turn, scale, shear, across, along = 2 * torch.rand(5, count, generator=generator) - 1
    angle, size = turn * MOST_TURN, 1 + scale * MOST_SCALE
    cosine, sine, lean = angle.cos() / size, angle.sin() / size, shear * MOST_SHEAR
    first = torch.stack([cosine, lean - sine, 2 * MOST_SHIFT * across], 1)  # in halves of the side
    second = torch.stack([sine, cosine, 2 * MOST_SHIFT * along], 1)
    frames = recordings.reshape(count, bins * polarities, height, width)
    grid = F.affine_grid(torch.stack([first, second], 1), list(frames.shape), align_corners=False)
    moved = F.grid_sample(frames, sent(grid, frames.device).to(frames.dtype), mode="nearest", align_corners=False)
    return moved.reshape(recordings.shape)


AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "none": unchanged,
    "flip": flip,
    "crop-flip": crop_flip,
    "crop-flip-cutout": crop_flip_cutout,
    "resized-crop-flip": resized_crop_flip,
    "event-affine": event_affine,
}


def build_augmentation(name: str, image_set: ImageSet) -> Augmentation:
    """The augmentation called `name`; cutout is filled with the mean colour of `image_set`."""
    function = AUGMENTATIONS[name]
    if name != "none" and (image_set.images.ndim == 5) != (function is event_affine):
        shape = tuple(image_set.images.shape)
        right = "'none' or 'event-affine'" if len(shape) == 5 else "any other"
        raise InputError(f"augmentation is {name!r}, the data have shape {shape}; expected {right}")
    return partial(function, fill=mean_colour(image_set)) if function is crop_flip_cutout else function


def mean_colour(image_set: ImageSet) -> Tensor:
    """`[C]` float32: mean of each channel over all pixels of all images, in [0, 1]; exact sums of bytes."""
    count = image_set.images.numel() // image_set.images.shape[1]
    return (image_set.images.sum((0, 2, 3), dtype=torch.int64).double() / (255 * count)).float()


def _in_square(count: int, length: int, generator: torch.Generator) -> Tensor:
    """`[count, length]` bool: which positions of an axis lie in each image's square."""
    half = round(length * CUTOUT_SHARE / 2)
    centre = torch.randint(0, length, (count, 1), generator=generator)
    distance = torch.arange(length) - centre
    return (distance >= -half) & (distance < half)


def _window(height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """A random window as (top, left, height, width)."""
    for _ in range(ATTEMPTS):
        area, shape = torch.rand(2, generator=generator).tolist()
        pixels = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area)
        ratio = math.exp(math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * shape)
        rows, columns = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            top = int(torch.randint(0, height - rows + 1, (1,), generator=generator))
            return top, int(torch.randint(0, width - columns + 1, (1,), generator=generator)), rows, columns
    return 0, 0, height, width
