"""The event chapter: rows that say what was changed, filters, the second set, and its pictures."""

from __future__ import annotations

import io
from dataclasses import replace

import pandas as pd
import pytest
import torch
from PIL import Image

from snnlib.companion.luu2025 import events as chapter
from snnlib.companion.luu2025.events import EventAttack
from snnlib.companion.report import figures_events
from snnlib.companion.sizes import event_size
from snnlib.companion.verdicts.events import AVERAGE, MAX, worst_of_events
from snnlib.data import ImageSet, ImageSplits
from snnlib.data.events import EventSet, from_bins, nmnist, recording
from snnlib.models import build_model


@pytest.fixture
def size():
    smoke = event_size("smoke")
    profile = replace(smoke.profile, attacked_per_class=2, inspected_per_class=2, attack_batch_size=4)
    return replace(smoke, profile=profile, rounds=2)


def images(count=6):
    pixels = torch.randint(0, 256, (count, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 3)


@pytest.fixture
def item(artifacts, wrap):
    model = build_model("sew_resnet18", 3, 8, encoder="i2e", in_channels=2, width=2, seed=0).eval()
    return wrap(model, images(), label=MAX)


def test_rows_of_every_attack_stay_in_the_budget_and_say_what_changed(item, size):
    rows = chapter.on_attacked(item, chapter.event_attacks(size, 4) + chapter.pixel_attacks(size), size.profile)
    on_recordings = rows[rows.kind.isin(chapter.IN_EVENTS)]
    assert (on_recordings.changed <= on_recordings.amount).all() and (on_recordings.fractional == 0).all()
    retimed = rows[rows.kind == "retiming"]
    assert (retimed.jitter >= 0).all() and (retimed.jitter <= size.jitter).all()
    assert (rows[rows.kind == "float frames"].linf <= size.eps_levels[0] / 255 + 1e-6).all()
    assert set(rows.attack) >= {"random flips", "random moves", "greedy flips", "retiming", "dash", "corner"}
    assert (rows.groupby(["attack", "amount"]).size() == 6).all()
    assert set(worst_of_events(rows).amount) == {4.0}


def test_rows_do_not_depend_on_batches_and_are_made_once(item, size, calls):
    attacks = [EventAttack("retiming", "retiming", "retiming", 4, 2, options={"rounds": 2})]
    rows = chapter.on_attacked(item, attacks, size.profile)
    again = chapter.on_attacked(item, attacks, replace(size.profile, attack_batch_size=6))
    pd.testing.assert_frame_equal(rows, again)
    assert calls["event_rows"] == 1


def test_a_filter_is_another_network_and_the_adaptive_attacker_sees_it(item, size):
    table = chapter.filter_rows(item, size, 4).set_index("filter")
    assert list(table.index) == ["none", *chapter.FILTERS]
    assert table.loc["none"].unaware == pytest.approx(table.loc["none"].adaptive)
    assert (table.adaptive <= table.clean).all()
    assert figures_events.filters(table.reset_index()).axes


def test_the_second_set_is_recordings_and_trains(artifacts, size, monkeypatch):
    tiny = ImageSplits("cifar10", images(9), images(6), images(6), 3, ("a", "b", "c"))
    monkeypatch.setattr(chapter, "load_profile_images", lambda *_: tiny)
    size = replace(size, moving_per_class=2, profile=replace(size.profile, width=2))
    splits = chapter.moving_splits(size)
    assert isinstance(splits.train, EventSet) and splits.train.images.shape == (6, 8, 2, 16, 16)
    assert chapter.second_epochs(size, splits) == size.moving_epochs
    recorded = chapter.on_recordings(size, splits, epochs=1)
    rows = chapter.on_attacked(recorded, chapter.event_attacks(size, 4), replace(size.profile, attacked_per_class=1))
    assert (rows.changed <= 4).all() and len(rows) == 6 * 3


@pytest.mark.parametrize("below", ["", "N-MNIST"])
def test_a_folder_with_nmnist_takes_the_place_of_the_second_set(tmp_path, size, below):
    labelled = [(recording([1], [2], [3], [1]), digit) for digit in range(10) for _ in range(2)]
    for split in nmnist.SPLITS:
        nmnist.write_folder(tmp_path / below, split, labelled)
    splits = chapter.second_set(size, str(tmp_path))
    assert splits.name == "nmnist" and splits.train.images.shape == (10, 8, 2, 34, 34)
    assert chapter.second_profile(size, splits).attacked_per_class == 2
    assert chapter.second_epochs(size, splits) == 270, "one batch holds all ten"


def test_the_pictures_show_what_was_measured(item, size):
    rows = chapter.on_attacked(item, chapter.event_attacks(size, 4) + chapter.event_attacks(size, 16), size.profile)
    both = pd.concat([rows, rows.assign(model=AVERAGE)])
    fig = figures_events.recordings_under_attack(both, [MAX, AVERAGE])
    assert [ax.get_title() for ax in fig.axes] == [MAX.replace(", ", ",\n"), AVERAGE.replace(", ", ",\n")]
    pixel_rows = chapter.on_attacked(item, chapter.pixel_attacks(size), size.profile)
    assert len(figures_events.image_and_events(pixel_rows, MAX).axes) == 2
    pixels = item.splits.test.batch([0])
    events = chapter.events_of(item, pixels)[0]
    fig = figures_events.recordings(pixels[0], {"I2E": from_bins(events)}, 16)
    assert f"{int(events.sum()):,} events" in fig.axes[1].get_title()


def test_the_animation_has_a_frame_per_bin_and_is_small(item):
    events = chapter.events_of(item, item.splits.test.batch([0]))[0]
    packed = figures_events.animation({"before": events, "after": 1 - events})
    with Image.open(io.BytesIO(packed)) as film:
        assert film.n_frames == 8
    assert len(packed) < 200_000
