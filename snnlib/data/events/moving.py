"""Events of still images that are moved before a simulated camera, as N-MNIST was made before a real one."""

from __future__ import annotations

import numpy as np
import torch

from snnlib.data.events.event_set import EventSet
from snnlib.data.events.pixel import Pixel, simulate
from snnlib.data.events.recording import to_bins
from snnlib.data.image_set import ImageSet
from snnlib.progress import progress

LUMINANCE = (0.299, 0.587, 0.114)
FILMS = 250
"""Images simulated at once; no number depends on it."""


def saccades(amplitude: float = 3.0, frames: int = 8, milliseconds: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Three straight moves along a triangle: offsets [F, 2] in pixels (rows, columns), and times [F] in µs.

    frames: of each move, beside the first of all. **Source:** the three moves of 100 ms of N-MNIST (Orchard et al.
    2015); the corners are ours.
    """
    corners = amplitude * np.array([(0, 0), (1, 0.5), (0, 1), (0, 0)])
    shares = np.arange(1, frames + 1)[:, None] / frames
    moves = [start + shares * (end - start) for start, end in zip(corners, corners[1:], strict=False)]
    offsets = np.concatenate([corners[:1], *moves])
    return offsets, np.arange(len(offsets)) * (1000 * milliseconds // frames)


def moving_image(images: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Images [N, H, W] at each offset [F, 2], bilinear, as [F, N, H, W]; beyond the border its last pixels go on."""
    height, width = images.shape[1:]
    edge = int(np.ceil(np.abs(offsets).max())) + 1
    padded = np.pad(images, ((0, 0), (edge, edge), (edge, edge)), mode="edge")
    frames = np.empty((len(offsets), *images.shape), np.float32)
    for frame, (down, right) in zip(frames, offsets, strict=True):
        row, column = int(np.floor(down)), int(np.floor(right))
        part = padded[:, edge + row : edge + row + height + 1, edge + column : edge + column + width + 1]
        lower, further = down - row, right - column
        rows = (1 - lower) * part[:, :-1] + lower * part[:, 1:]
        frame[...] = (1 - further) * rows[..., :-1] + further * rows[..., 1:]
    return frames.clip(0, 1)


def saccade_events(images: ImageSet, bins: int = 8, pixel: Pixel | None = None, *, seed: int = 0) -> EventSet:
    """The recordings of all images as they move along `saccades`, binned by time over their own span, 0 or 1."""
    offsets, times = saccades()
    side, rasters = images.images.shape[-2:], []
    for start in progress(range(0, len(images), FILMS), label="simulating events"):
        grey = np.tensordot(LUMINANCE, images.batch(slice(start, start + FILMS)).numpy(), axes=(0, 1))
        films = simulate(moving_image(grey, offsets), times, pixel, seed=seed, first=start)
        rasters += [to_bins(events, bins, *side) for events in films]
    return EventSet(torch.stack(rasters), images.labels)
