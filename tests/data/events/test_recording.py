"""Recordings: what is refused, and that binning keeps every event."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snnlib.data.events import EVENT, EventSet, bin_numbers, checked, event_set, from_bins, recording, to_bins
from snnlib.errors import InputError
from snnlib.training.augmentation import build_augmentation

SIDE = 5


def some_events(times, seed=0):
    random = np.random.default_rng(seed)
    count = len(times)
    return recording(random.integers(0, SIDE, count), random.integers(0, SIDE, count), np.sort(times),
                     random.integers(0, 2, count))  # fmt: skip


times = st.lists(st.integers(0, 2**40), min_size=1, max_size=60).map(np.array)


@given(times, st.integers(1, 12), st.sampled_from(["time", "count"]))
@settings(max_examples=100, deadline=None)
def test_counts_are_conserved(times, bins, rule):
    events = some_events(times)
    raster = to_bins(events, bins, SIDE, SIDE, rule=rule, binary=False)
    assert raster.shape == (bins, 2, SIDE, SIDE) and raster.sum() == len(events)
    assert torch.equal(to_bins(events, bins, SIDE, SIDE, rule=rule), (raster > 0).to(torch.uint8))
    assert [int((raster[:, p]).sum()) for p in (0, 1)] == [int((events["p"] == p).sum()) for p in (0, 1)]


@given(times, st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_bins_of_time_are_half_open_and_equal(times, bins):
    times = np.sort(times)
    number, first, span = bin_numbers(times, bins), int(times[0]), int(times[-1] - times[0]) + 1
    for t, k in zip(times.tolist(), number.tolist(), strict=True):
        assert 0 <= k < bins
        assert k * span <= (t - first) * bins < (k + 1) * span


def test_an_event_on_an_edge_belongs_to_the_later_bin():
    assert bin_numbers(np.array([100, 104, 105, 109]), 2).tolist() == [0, 0, 1, 1]
    assert bin_numbers(np.array([7, 7, 7]), 4).tolist() == [0, 0, 0]


@given(st.integers(1, 50), st.integers(1, 12))
def test_bins_of_counts_differ_by_one_event_at_most(count, bins):
    sizes = np.bincount(bin_numbers(np.zeros(count, np.int64), bins, "count"), minlength=bins)
    assert sizes.sum() == count and sizes.max() - sizes.min() <= 1


def test_bins_become_events_and_bins_again():
    raster = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (4, 2, SIDE, SIDE)))
    raster[0, 0, 0, 0] = raster[3, 1, 4, 4] = 1  # the first and the last bin are not empty
    assert torch.equal(to_bins(from_bins(raster), 4, SIDE, SIDE, binary=False), raster.int())


def test_a_structured_array_of_other_types_and_order_of_fields_fits():
    theirs = np.array([(3, 1, True, 2), (9, 4, False, 0)], dtype=[("t", "u4"), ("x", "u1"), ("p", "?"), ("y", "u2")])
    found = checked(theirs, SIDE, SIDE)
    assert found.dtype == EVENT and found["t"].tolist() == [3, 9] and found["p"].tolist() == [1, 0]


def changed(**columns):
    events = some_events(np.arange(6)).astype([("x", "<i8"), ("y", "<i8"), ("t", "<i8"), ("p", "<i8")])
    for name, (place, value) in columns.items():
        events[name][place] = value
    return events


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (np.zeros(3), "has no field x, y, t, p"),
        (np.zeros(0, EVENT), "has 0 events"),
        (np.zeros((2, 2), EVENT), "has 4 events in shape"),
        (changed(x=(2, 5)), r"x in 0..5; expected 0..4: the sensor is 5 x 5"),
        (changed(x=(2, 65535)), "x in 0..65535"),
        (changed(y=(2, -1)), "y in -1.."),
        (changed(p=(1, -1)), r"polarities \[-1"),
        (changed(t=(3, 1)), "goes back from t = 2 to 1 at event 3"),
        (changed(t=(0, -1)), "has times -1"),
        (changed(t=(5, 2**60)), r"expected 0..2\*\*53"),
        (changed().astype([("x", float), ("y", int), ("t", int), ("p", int)]), "x of type float64"),
    ],
)
def test_what_no_camera_sends_is_refused_in_one_line(events, said):
    with pytest.raises(InputError, match=said) as error:
        checked(events, SIDE, SIDE)
    assert "\n" not in str(error.value)


def test_unsigned_times_are_compared_without_wrapping():
    events = changed().astype([("x", "u1"), ("y", "u1"), ("t", "u4"), ("p", "u1")])
    assert len(checked(events, SIDE, SIDE)) == 6
    events["t"][5] = 1
    with pytest.raises(InputError, match="goes back from t = 4 to 1"):
        checked(events, SIDE, SIDE)


def test_numbers_beyond_a_column_are_not_wrapped():
    with pytest.raises(InputError, match="x reaches 65535"):
        recording(np.array([65535], np.uint16), np.zeros(1, int), np.zeros(1, int), np.zeros(1, int))


def test_an_event_set_is_sample_first_and_not_divided_by_255():
    events = event_set([(some_events(np.arange(9), seed), seed) for seed in range(3)], 4, SIDE)
    assert isinstance(events, EventSet) and events.images.shape == (3, 4, 2, SIDE, SIDE)
    assert set(events.batch(slice(None)).unique().tolist()) == {0.0, 1.0}
    assert isinstance(events.take([0, 2]), EventSet) and isinstance(events.first_per_class(1), EventSet)
    assert events.take([1]).key != events.take([2]).key
    assert events.event_rate == pytest.approx(events.batch(slice(None)).mean().item())


def test_an_event_set_of_another_layout_is_refused():
    with pytest.raises(InputError, match=r"expected torch.uint8 \[N, T, 2, H, W\]"):
        EventSet(torch.zeros(2, 2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InputError, match="OFF and ON"):
        EventSet(torch.zeros(2, 4, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))


def test_augmentations_for_images_are_refused_for_events():
    events = event_set([(some_events(np.arange(9)), 0)], 4, SIDE)
    assert build_augmentation("none", events)(events.batch([0]), None) is not None
    with pytest.raises(InputError, match="augmentation is 'flip', .*expected 'none' or 'event-affine'"):
        build_augmentation("flip", events)
