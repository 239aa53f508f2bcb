"""The simulated camera: known answers for one pixel, and recordings that depend on nothing beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from snnlib import data
from snnlib.data.events import Pixel, checked, moving_image, saccade_events, saccades, simulate
from snnlib.errors import InputError

QUIET = Pixel(threshold=0.2, mismatch=0, refractory=0, leak=0, shot=0, dark=0.05)


def film(*levels):
    """One pixel whose log intensity takes these values, in thresholds above that of 0.1."""
    log = np.log(0.1 + QUIET.dark) + QUIET.threshold * np.array(levels)
    return (np.exp(log) - QUIET.dark).reshape(-1, 1, 1, 1)


def test_a_rise_of_so_many_thresholds_gives_so_many_events_at_the_crossings():
    (events,) = simulate(film(0, 3.5, 0.2), np.array([0, 3500, 7000]), QUIET)
    assert events["p"].tolist() == [1, 1, 1, 0, 0]
    assert np.allclose(events["t"][:3], [1000, 2000, 3000], atol=1)
    # From the memory at 3: down to 2 and to 1, on a line from 3.5 to 0.2.
    assert np.allclose(events["t"][3:], [3500 + 3500 * 1.5 / 3.3, 3500 + 3500 * 2.5 / 3.3], atol=1)


def test_the_dead_time_swallows_events_and_the_memory_moves_on():
    tired = Pixel(threshold=0.2, mismatch=0, refractory=0.0015, leak=0, shot=0, dark=0.05)
    (events,) = simulate(film(0, 4.5), np.array([0, 4500]), tired)
    assert np.allclose(events["t"], [1000, 3000], atol=1)


def test_a_leak_gives_on_events_at_its_rate():
    leaky = Pixel(mismatch=0, refractory=0, leak=10, shot=0)
    (events,) = simulate(np.full((101, 1, 1, 1), 0.5), np.arange(101) * 10_000, leaky)
    assert len(events) in (9, 10) and (events["p"] == 1).all()


def test_shot_noise_has_its_rate_and_both_polarities():
    noisy = Pixel(leak=0, shot=5)
    (events,) = simulate(np.full((2, 1, 20, 20), 0.5), np.array([0, 1_000_000]), noisy)
    assert abs(len(events) - 2000) < 5 * np.sqrt(2000)
    assert 0.4 < events["p"].mean() < 0.6


def test_mismatch_belongs_to_the_camera():
    wild, frames = Pixel(mismatch=0.05, leak=0, shot=0), np.linspace(0.1, 0.9, 8).reshape(-1, 1, 1, 1)
    frames = np.broadcast_to(frames, (8, 2, 6, 6))
    first, second = simulate(frames, np.arange(8) * 1000, wild)
    assert np.array_equal(first, second) and len(np.unique(np.bincount(first["y"] * 6 + first["x"]))) > 1
    (other,) = simulate(frames[:, :1], np.arange(8) * 1000, wild, seed=1)
    assert not np.array_equal(first, other)


def test_a_recording_depends_on_neither_the_films_beside_it_nor_the_call():
    images = np.random.default_rng(0).random((4, 9, 7)).astype(np.float32)
    offsets, times = saccades(frames=3)
    frames = moving_image(images, offsets)
    together = simulate(frames, times, seed=3)
    alone = [simulate(frames[:, n : n + 1], times, seed=3, first=n)[0] for n in range(4)]
    assert all(np.array_equal(one, other) for one, other in zip(together, alone, strict=True))
    assert [len(checked(events, 9, 7)) for events in together] == [len(events) for events in together]


def test_an_image_moves_by_whole_and_by_half_pixels():
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4) / 12
    still, right, half = moving_image(image, np.array([[0, 0], [0, 1], [0.5, 0]]))[:, 0]
    assert np.array_equal(still, image[0])
    assert np.array_equal(right[:, :3], image[0, :, 1:]) and np.array_equal(right[:, 3], image[0, :, 3])
    assert np.allclose(half[0], (image[0, 0] + image[0, 1]) / 2)


def test_saccades_come_back_to_where_they_began():
    offsets, times = saccades(amplitude=2, frames=4)
    assert offsets[0].tolist() == offsets[-1].tolist() == [0, 0] and np.abs(offsets).max() == 2
    assert times[-1] == 300_000


def test_saccade_events_are_the_same_in_parts():
    few = data.load_images("cifar10").test.take(slice(0, 4))
    whole = saccade_events(few, bins=4)
    assert whole.images.shape == (4, 4, 2, 32, 32) and 0.01 < whole.event_rate < 0.5
    assert torch.equal(saccade_events(few.take(slice(0, 2)), bins=4).images, whole.images[:2])


@pytest.mark.parametrize(
    ("frames", "times", "said"),
    [
        (np.zeros((2, 1, 3, 3)), [0, 0], "rising times"),
        (np.zeros((1, 1, 3, 3)), [0], "rising times"),
        (np.full((2, 1, 3, 3), 255.0), [0, 1], "frames span 255..255"),
    ],
)
def test_frames_that_do_not_fit_are_refused(frames, times, said):
    with pytest.raises(InputError, match=said):
        simulate(frames, np.array(times))
    with pytest.raises(InputError, match="threshold is 0"):
        Pixel(threshold=0)
