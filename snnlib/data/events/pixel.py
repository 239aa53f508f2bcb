"""A simulated event camera: what its pixels report of a moving image.

**Source:** the model of Lichtsteiner, Posch & Delbruck 2008 as simulators have it (ESIM: Rebecq et al. 2018; v2e: Hu,
Liu & Delbruck 2021): log intensity against a memory of the last event, thresholds that differ between pixels, a dead
time, leak and shot noise. Left out: the photoreceptor's bandwidth and noise that grows in the dark.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from snnlib import checks
from snnlib.data.events.recording import recording
from snnlib.errors import InputError

MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Pixel:
    """The camera's numbers; the values are of the order of v2e's presets, but for `dark`, which is ours.

    threshold: change of log intensity that makes an event (natural log; 0.2 is about 20 % contrast). mismatch:
    standard deviation of the thresholds over the pixels and polarities. refractory: dead time after an event, in
    seconds. leak: ON events per second of a pixel that sees no change. shot: noise events per second and pixel, of
    random polarity. dark: added to intensities in [0, 1] before the logarithm. Errors: InputError for negative values.
    """

    threshold: float = 0.2
    mismatch: float = 0.03
    refractory: float = 0.0005
    leak: float = 0.1
    shot: float = 1.0
    dark: float = 0.05

    def __post_init__(self) -> None:
        for name in ("mismatch", "refractory", "leak", "shot"):
            checks.number(name, getattr(self, name), at_least=0)
        for name in ("threshold", "dark"):
            checks.number(name, getattr(self, name), above=0)


def simulate(
    frames: np.ndarray, times: np.ndarray, pixel: Pixel | None = None, *, seed: int = 0, first: int = 0
) -> list[np.ndarray]:
    """One recording for each of N films of the same length, by the same camera.

    frames: [F, N, H, W] intensities in [0, 1] at the `times` [F], rising whole µs; between two of them the log
    intensity is taken as linear. seed: of the camera's mismatch, and with the film's number (from `first`) of its shot
    noise: a recording does not depend on the films beside it. An event within the dead time is lost, and the memory
    moves on. A film without any change may give an empty recording. Errors: InputError for frames or times that do not
    fit.
    """
    pixel = pixel or Pixel()
    times = np.asarray(times)
    if frames.ndim != 4 or len(frames) != len(times) or len(times) < 2 or (np.diff(times) <= 0).any():
        raise InputError(f"frames {list(frames.shape)} at {len(times)} times; expected [F, N, H, W] at F rising times")
    if not (frames.min() >= 0 and frames.max() <= 1):
        raise InputError(f"frames span {frames.min():.4g}..{frames.max():.4g}; expected intensities in [0, 1]")
    _, films, height, width = frames.shape
    pixels, noise = height * width, []
    for film in range(films):
        place, t, p = _noise(pixel, times, pixels, np.random.default_rng([seed, 1, first + film]))
        noise.append(np.stack([place + film * pixels, t, p]))
    signal = _crossings(np.log(frames.astype(np.float64) + pixel.dark), times, pixel, seed)
    place, t, p = np.concatenate([signal, *noise], axis=1)
    order = np.lexsort((p, place, t, place // pixels))
    film, place = divmod(place[order], pixels)
    events = recording(place % width, place // width, t[order], p[order])
    return np.split(events, np.searchsorted(film, np.arange(1, films)))


def _crossings(level: np.ndarray, times: np.ndarray, pixel: Pixel, seed: int) -> np.ndarray:
    """Threshold crossings as [3, events]: flat place in [N, H, W], time in µs, polarity. level: log intensity."""
    draw = np.random.default_rng([seed, 0]).standard_normal((2, 1, *level.shape[2:]))
    theta = np.maximum(pixel.threshold + pixel.mismatch * draw, pixel.threshold / 10)
    theta = np.broadcast_to(theta, (2, *level.shape[1:])).reshape(2, -1)
    level = level.reshape(len(level), -1)
    memory, last = level[0].copy(), np.full(level.shape[1], -np.inf)
    dead, parts = pixel.refractory * MICROSECONDS, [np.zeros((3, 0), np.int64)]
    for start, end, before, after in zip(times, times[1:], level, level[1:], strict=False):
        memory -= pixel.leak * theta[1] * (end - start) / MICROSECONDS
        for polarity, sign in ((1, 1), (0, -1)):
            step = theta[polarity]
            count = np.maximum(0, np.floor(sign * (after - memory) / step)).astype(np.int64)
            for number in range(1, int(count.max()) + 1):
                places = np.flatnonzero(count >= number)
                reached = memory[places] + sign * number * step[places]
                slope = after[places] - before[places]
                share = np.where(slope == 0, 0, (reached - before[places]) / np.where(slope == 0, 1, slope)).clip(0, 1)
                t = start + share * (end - start)
                alive = t - last[places] >= dead
                last[places[alive]] = t[alive]
                kept = places[alive]
                parts.append(np.stack([kept, np.floor(t[alive]).astype(np.int64), np.full_like(kept, polarity)]))
            memory += sign * count * step
    return np.concatenate(parts, axis=1)


def _noise(pixel: Pixel, times: np.ndarray, pixels: int, random: np.random.Generator) -> np.ndarray:
    """Shot noise of one film as [3, events], as `_crossings`; its memory stays where it is."""
    seconds = (times[-1] - times[0]) / MICROSECONDS
    count = random.poisson(pixel.shot * seconds * pixels)
    draws = random.integers(0, pixels, count), random.integers(times[0], times[-1], count), random.integers(0, 2, count)
    return np.stack(draws).astype(np.int64)
