"""Encoders of event data: the published rule against a slow one, the layout, and the declared gradients."""

from __future__ import annotations

import math

import pytest
import torch

from snnlib import attacks, data, models
from snnlib.encoding import I2EEncoder, build_encoder
from snnlib.encoding.events import DIRECTIONS
from snnlib.errors import InputError


@pytest.fixture(scope="module")
def few():
    test = data.load_images("cifar10").test.first_per_class(1)
    return test.batch(slice(None)), test.labels


def network(encoder: str = "i2e"):
    return models.build_model("sew_resnet18", 10, 8, encoder=encoder, in_channels=2, width=4, seed=0).eval()


def test_i2e_is_the_rule_pixel_by_pixel():
    image = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = I2EEncoder(threshold=0.2)(image)
    value = image[0].amax(0)
    theta = 0.2 * (value.max() - value.min())
    for step, (down, right) in enumerate(DIRECTIONS):
        for row in range(5):
            for column in range(6):
                other = value[min(max(row + down, 0), 4), min(max(column + right, 0), 5)]
                difference = other - value[row, column]
                assert found[step, 0, 0, row, column] == (difference < -theta)
                assert found[step, 0, 1, row, column] == (difference > theta)


def test_a_flat_image_has_no_events_and_polarities_never_meet(few):
    encoder = I2EEncoder()
    assert encoder(torch.full((2, 3, 8, 8), 0.7)).sum() == 0
    events = encoder(few[0])
    assert (events[:, :, 0] * events[:, :, 1]).sum() == 0
    assert set(events.unique().tolist()) == {0.0, 1.0}


def test_events_do_not_depend_on_brightness_or_contrast(few):
    images = few[0].double()
    assert torch.equal(I2EEncoder()(images), I2EEncoder()(0.25 + 0.5 * images))


def test_opposite_directions_see_the_same_edges(few):
    events = I2EEncoder()(few[0])
    assert torch.equal(events[0, :, 1, :, :-1], events[4, :, 0, :, 1:])


@pytest.mark.parametrize("gradient", ["straight_through", "smooth"])
def test_the_gradient_is_that_of_the_declared_curve(gradient):
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    encoder = I2EEncoder(gradient=gradient)
    weights = torch.randn(8, 2, 2, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def curve(images):
        z = encoder.margins(images) / encoder.threshold
        return 0.5 + (z.clamp(-1, 1) / 2 if gradient == "straight_through" else z.atan() / math.pi)

    first, second = (images.clone().requires_grad_(True) for _ in range(2))
    (weights * encoder(first)).sum().backward()
    (weights * curve(second)).sum().backward()
    assert torch.allclose(first.grad, second.grad, atol=1e-12)
    assert first.grad.abs().sum() > 0
    assert torch.equal(encoder(images) == 1, curve(images) > 0.5)


def test_without_a_gradient_none_reaches_the_image(few):
    images = few[0].requires_grad_(True)
    assert not I2EEncoder(gradient="none")(images).requires_grad
    few[0].requires_grad_(False)


def test_half_precision_gives_the_events_of_its_own_levels(few):
    rounded = few[0].half()
    assert torch.equal(I2EEncoder()(rounded).float(), I2EEncoder()(rounded.float()))


def test_recordings_are_sample_first_outside_and_time_first_inside():
    events = torch.rand(3, 8, 2, 4, 4)
    encoded = build_encoder("events", 8)(events)
    assert encoded.shape == (8, 3, 2, 4, 4)
    assert torch.equal(encoded[5, 1], events[1, 5])


@pytest.mark.parametrize("shape", [(3, 4, 2, 4, 4), (3, 8, 3, 4, 4), (8, 2, 4, 4)])
def test_recordings_of_another_layout_are_refused(shape):
    with pytest.raises(InputError, match="events have shape .*bins=8"):
        build_encoder("events", 8)(torch.rand(shape))


def test_i2e_has_eight_steps():
    with pytest.raises(InputError, match="time_steps is 4; I2E has one step per neighbour: set 8"):
        build_encoder("i2e", 4)


def test_a_network_of_events_needs_two_channels():
    with pytest.raises(InputError, match="in_channels is 3 with encoder 'i2e'; .* set in_channels=2"):
        models.build_model("sew_resnet18", 10, 8, encoder="i2e")


def test_one_network_takes_images_and_the_events_made_of_them(few):
    on_images, on_events = network("i2e"), network("events")
    on_events.body.load_state_dict(on_images.body.state_dict())
    events = on_images.encoder(few[0]).transpose(0, 1)
    assert torch.equal(on_images(few[0]), on_events(events))


def test_float_frames_stay_in_the_ball_and_one_network_is_attacked_on_both_sides(few):
    images, labels = few
    model = network("i2e")
    labels = model(images).argmax(1)
    by_image = attacks.pgd(model, images, labels, attacks.Budget(8 / 255), steps=2)
    by_flips = attacks.bit_flip(model, images, labels, attacks.Budget(9, norm="l0", space="encoded"), rounds=2)
    events = model.encoder(images).transpose(0, 1)
    frames = attacks.pgd(network("events"), events, labels, attacks.Budget(8 / 255), steps=2)
    assert (by_image.linf <= 8 / 255 + 1e-6).all()
    assert (by_flips.l2.square() <= 9 + 1e-4).all()
    assert frames.adversarial.shape == events.shape and (frames.linf <= 8 / 255 + 1e-6).all()
