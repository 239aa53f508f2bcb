"""Augmentations: what they do to an image, and that a key fixes it."""

from __future__ import annotations

import pytest
import torch

from snnlib.data.events.event_set import EventSet
from snnlib.data.image_set import ImageSet
from snnlib.errors import InputError
from snnlib.training.augmentation import (
    AUGMENTATIONS,
    build_augmentation,
    crop_flip,
    cutout,
    event_affine,
    flip,
    mean_colour,
    resized_crop_flip,
)
from snnlib.training.randomness import generator_at, global_randomness_at, seed_at


def numbered_images(count: int) -> torch.Tensor:
    """Each pixel has a number of its own, from 1."""
    return torch.arange(1, count * 2 * 36 + 1, dtype=torch.float32).view(count, 2, 6, 6)


def test_flip_gives_the_image_or_its_mirror_when_applied():
    images = numbered_images(200)
    flipped = flip(images, torch.Generator().manual_seed(0))
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert torch.equal(same, ~mirrored) and 70 < same.sum() < 130


def test_crop_flip_gives_a_window_of_the_padded_image_when_applied():
    images = numbered_images(300)
    cropped = crop_flip(images, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    seen = set()
    for number, image in enumerate(cropped):
        places = [
            (row, column, mirrored)
            for row in range(9)
            for column in range(9)
            for mirrored in (False, True)
            if torch.equal(
                image.flip(2) if mirrored else image, padded[number, :, row : row + 6, column : column + 6]
            )
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert {place[0] for place in seen} == {place[1] for place in seen} == set(range(9))
    assert {place[2] for place in seen} == {False, True}


def test_resized_crop_shows_a_window_of_random_area_and_shape_when_applied():
    """On ramps of rows and columns the slopes tell the window's height and width, the middle values its place."""
    size, count = 64, 600
    ramp = torch.arange(size, dtype=torch.float32)
    rows, columns = ramp.view(-1, 1).expand(size, size), ramp.view(1, -1).expand(size, size)
    cropped = resized_crop_flip(torch.stack((rows, columns)).expand(count, 2, size, size), generator_at("crop"))
    assert cropped.shape == (count, 2, size, size)
    middle = cropped[:, :, 31:33, 31:33].double()
    height = size * (middle[:, 0, 1, 0] - middle[:, 0, 0, 0])
    width = size * (middle[:, 1, 0, 1] - middle[:, 1, 0, 0])
    assert 0.4 < (width < 0).double().mean() < 0.6  # mirrored
    width = width.abs()
    torch.testing.assert_close(height, height.round(), atol=2e-3, rtol=0)
    torch.testing.assert_close(width, width.round(), atol=2e-3, rtol=0)
    area, ratio = height * width / size**2, width / height
    assert 0.07 < area.min() < 0.12 and 0.9 < area.max() <= 1 and 0.45 < area.mean() < 0.58
    assert 0.70 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.42
    assert cropped.min() >= 0 and cropped.max() <= size - 1


@pytest.mark.parametrize(("size", "side"), [(32, 8), (64, 16)])
def test_cutout_fills_one_square_around_any_pixel_when_applied(size, side):
    images, fill = torch.full((1000, 2, size, size), 7.0), torch.tensor([0.25, 0.75])
    result = cutout(images, torch.Generator().manual_seed(0), fill=fill)
    covered = (result != 7).all(1)
    assert torch.equal(covered, (result != 7).any(1))
    assert [result[:, channel][covered].unique().tolist() for channel in (0, 1)] == [[0.25], [0.75]]
    rows, columns = covered.any(2), covered.any(1)
    assert torch.equal(covered, rows.unsqueeze(2) & columns.unsqueeze(1))
    for axis in (rows, columns):
        first, count = axis.float().argmax(1), axis.sum(1)
        # A centre c covers c - side/2 .. c + side/2 - 1, cut at the border.
        spans = {(f, n) for f, n in zip(first.tolist(), count.tolist(), strict=True)}
        expected = {(max(c - side // 2, 0), min(c + side // 2, size) - max(c - side // 2, 0)) for c in range(size)}
        assert spans == expected


def test_cutout_is_filled_with_the_mean_colour_of_the_training_images_when_built():
    levels = torch.tensor([[0, 255, 51, 102], [255, 255, 255, 0]], dtype=torch.uint8).view(1, 2, 2, 2)
    image_set = ImageSet(levels.repeat(3, 1, 1, 1), torch.zeros(3, dtype=torch.int64))
    assert mean_colour(image_set).tolist() == pytest.approx([0.4, 0.75])
    images = torch.full((50, 2, 32, 32), 0.1)
    result = build_augmentation("crop-flip-cutout", image_set)(images, torch.Generator().manual_seed(0))
    assert result[:, 0].unique().tolist() == pytest.approx([0.0, 0.1, 0.4])  # crop pads with black
    assert ((result[:, 1] == 0.75).sum((1, 2)) >= 16).all()


def test_event_affine_moves_a_recording_as_a_whole_and_keeps_its_counts():
    recordings = torch.zeros(200, 3, 2, 33, 33)
    recordings[:, :, :, 14:19, 6:27] = torch.tensor([1.0, 2.0, 5.0]).view(3, 1, 1, 1)  # a bar, five by 21 pixels
    moved = event_affine(recordings, torch.Generator().manual_seed(0))
    assert set(moved[:, 2].unique().tolist()) == {0.0, 5.0} and not torch.equal(moved[0], moved[1])
    assert torch.equal(moved[:, 0] * 5, moved[:, 2]) and torch.equal(moved[:, :, 0], moved[:, :, 1])
    area = moved[:, 0, 0].sum((1, 2)) / 105
    assert 0.6 < area.min() < 0.85 and 1.2 < area.max() < 1.5, "15 % smaller to 15 % larger, along and across"
    rows, columns = torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")
    off_centre = torch.stack([(moved[:, 0, 0] * axis).sum((1, 2)) / (area * 105) for axis in (rows, columns)]) - 16
    assert off_centre.abs().amax() < 0.09 * 33 / 0.85 and off_centre.abs().amax(1).min() > 1.5
    lean = [torch.corrcoef(torch.stack([rows[one > 0], columns[one > 0]]))[0, 1].item() for one in moved[:, 0, 0]]
    assert min(lean) < -0.5 and max(lean) > 0.5, "turned to both sides"


@pytest.mark.parametrize(("name", "shape"), [("flip", (1, 4, 2, 6, 6)), ("event-affine", (1, 2, 6, 6))])
def test_what_is_for_other_data_is_one_line(name, shape):
    data = (EventSet if len(shape) == 5 else ImageSet)(torch.zeros(shape, dtype=torch.uint8), torch.tensor([0]))
    with pytest.raises(InputError, match=f"augmentation is '{name}', the data have shape"):
        build_augmentation(name, data)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_result_is_fixed_by_the_key_when_drawn_again(name):
    images, like = numbered_images(20), torch.zeros(1, 2, 6, 6, dtype=torch.uint8)
    of_events = AUGMENTATIONS[name] is event_affine
    if of_events:
        images, like = images.unsqueeze(1), like.unsqueeze(1)
    augment = build_augmentation(name, (EventSet if of_events else ImageSet)(like, torch.tensor([0])))
    results = [augment(images, generator_at("augmentation", 3, epoch, 5)) for epoch in (1, 1, 2)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2]) == (name == "none")
    assert results[0].shape == images.shape


def test_seeds_differ_when_purpose_or_place_differ():
    seeds = {seed_at("order", 1, 2), seed_at("order", 12), seed_at("order", 2, 1), seed_at("attack", 1, 2)}
    assert len(seeds) == 4 and all(0 <= seed < 2**63 for seed in seeds)


def test_global_generator_is_keyed_inside_and_restored_when_left():
    torch.manual_seed(0)
    draws = []
    for _ in range(2):
        with global_randomness_at(torch.device("cpu"), "model", 4, 2):
            draws.append(torch.rand(3))
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(*draws) and torch.equal(after, torch.rand(3))
