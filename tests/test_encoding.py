"""Encoders: spikes against hand values and SpikingJelly, declared gradients against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from snnlib.encoding import (
    ENCODERS,
    DirectEncoder,
    FrequencyEncoder,
    LatencyEncoder,
    PhaseEncoder,
    PoissonEncoder,
    build_encoder,
    decode_phase,
    encoder_gradient,
)
from snnlib.errors import InputError

ALL_BYTES = torch.arange(256, dtype=torch.float32) / torch.tensor(255.0)


def frame_gradients(encoder: nn.Module, x: float) -> list[float]:
    """d frame_t / d x for one pixel, for every t."""
    gradients = []
    for frame in range(encoder.time_steps):
        pixel = torch.tensor([[[[x]]]], dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(encoder(pixel)[frame].sum(), pixel)
        gradients.append(gradient.item())
    return gradients


def phase_wave(x: torch.Tensor, plane: int) -> torch.Tensor:
    return 0.5 * (1 - torch.sin(math.pi * (255 * x + 0.5) / 2 ** (7 - plane)))


# Direct


def test_direct_is_a_view_with_stride_zero_when_expanded():
    images = torch.rand(2, 3, 4, 4)
    encoded = DirectEncoder(5)(images)
    assert encoded.shape == (5, 2, 3, 4, 4)
    assert encoded.stride(0) == 0 and encoded.data_ptr() == images.data_ptr()


def test_direct_gradient_is_the_sum_over_time_when_frames_are_weighted():
    images = torch.rand(1, 1, 2, 2, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1, 1, 1)
    (DirectEncoder(3)(images) * weights).sum().backward()
    assert torch.equal(images.grad, torch.full((1, 1, 2, 2), 7.0))


# Frequency


def test_frequency_filters_keep_all_of_the_first_step_and_the_mean_of_every_one():
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    encoded = FrequencyEncoder(8)(images)
    assert encoded.shape == (8, 2, 3, 32, 32) and torch.allclose(encoded[0], images)
    kept = [torch.fft.fft2(frame).abs().gt(1e-6).any(0).any(0).sum().item() for frame in encoded[:1]]
    assert kept == [32 * 32]
    detail = [frame.var().item() for frame in encoded]
    assert detail == sorted(detail, reverse=True)


@pytest.mark.parametrize("cycles, steps", [(1, 8), (7, 5), (15, 1)])
def test_a_wave_passes_as_long_as_the_window_of_the_authors_code_holds_it(cycles, steps):
    """Half widths 16, 14, ..., 2 for 32 pixels and T = 8."""
    place = torch.arange(32, dtype=torch.float64)
    wave = 0.5 + 0.4 * torch.cos(2 * torch.pi * cycles * place / 32)
    encoded = FrequencyEncoder(8)(wave.expand(1, 1, 32, 32))
    seen = [(frame - 0.5).abs().max().item() > 0.3 for frame in encoded]
    assert seen == [True] * steps + [False] * (8 - steps)


def test_frequency_gradient_is_exact_when_compared_with_differences():
    images = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).add(0.2)
    assert torch.autograd.gradcheck(FrequencyEncoder(3), images.requires_grad_())


def test_input_error_when_a_filtered_picture_is_not_square():
    with pytest.raises(InputError, match="images are 4x6; expected squares"):
        FrequencyEncoder(2)(torch.rand(1, 1, 4, 6))


# Phase


@pytest.mark.parametrize(
    ("level", "bits"),
    [(165, "10100101"), (0, "00000000"), (255, "11111111"), (128, "10000000"), (1, "00000001")],
)
def test_phase_gives_the_bits_of_the_byte_when_the_level_is_known(level, bits):
    encoded = PhaseEncoder(8)(torch.full((1, 1, 1, 1), level / 255))
    assert "".join(str(int(bit)) for bit in encoded.flatten()) == bits


@pytest.mark.parametrize("gradient", ["none", "straight_through", "smooth"])
def test_phase_spikes_do_not_depend_on_the_gradient_when_it_is_declared(gradient):
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    encoded = PhaseEncoder(10, gradient)(images.requires_grad_())
    levels = (255 * images.detach() + 0.5).floor().int()
    expected = torch.stack([(levels >> (7 - t % 8)) & 1 for t in range(10)]).float()
    assert torch.equal(encoded, expected)
    assert encoded.requires_grad == (gradient != "none")


def test_phase_wraps_to_the_first_planes_when_there_are_more_steps_than_planes():
    encoded = PhaseEncoder(19)(ALL_BYTES.view(1, 1, 16, 16))
    assert torch.equal(encoded[8:16], encoded[:8]) and torch.equal(encoded[16:], encoded[:3])


def test_phase_gives_the_leading_planes_when_steps_are_few():
    images = ALL_BYTES.view(1, 1, 16, 16)
    assert torch.equal(PhaseEncoder(3)(images), PhaseEncoder(8)(images)[:3])


@pytest.mark.parametrize("time_steps", [8, 10])
def test_phase_agrees_with_spikingjelly_when_given_every_byte(time_steps):
    encoding = pytest.importorskip("spikingjelly.activation_based.encoding")
    theirs = encoding.WeightedPhaseEncoder(8)
    frames = [theirs(torch.arange(256) / 256) for _ in range(time_steps)]
    ours = PhaseEncoder(time_steps)(ALL_BYTES.view(1, 1, 16, 16))
    assert torch.equal(ours.flatten(1), torch.stack(frames))


def test_phase_takes_the_nearest_level_when_the_pixel_lies_between_bytes_or_outside():
    x = torch.tensor([127.49, 127.51, -3.0, 300.0]) / 255
    assert torch.equal(
        decode_phase(PhaseEncoder(8)(x.view(4, 1, 1, 1))).flatten(), ALL_BYTES[[127, 128, 0, 255]]
    )


def test_phase_straight_through_is_the_weight_of_the_bit_when_frames_repeat():
    expected = [2.0 ** -(k + 1) for k in [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]]
    assert frame_gradients(PhaseEncoder(10), 0.3) == expected


def test_phase_smooth_gradient_equals_finite_differences_when_the_pixel_is_anywhere():
    for x in (0.0, 0.2137, 100 / 255, 0.7, 1.0):
        step = 1e-7
        gradients = frame_gradients(PhaseEncoder(8, "smooth"), x)
        for plane, gradient in enumerate(gradients):
            above, below = (
                phase_wave(torch.tensor(x + d, dtype=torch.float64), plane) for d in (step, -step)
            )
            assert gradient == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-5, abs=1e-4)


def test_phase_wave_is_above_half_exactly_where_the_bit_is_one_when_x_is_real():
    x = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = torch.cat([x, torch.arange(256, dtype=torch.float64) / 255]).view(-1, 1, 1, 1)
    waves = torch.stack([phase_wave(x, plane) for plane in range(8)])
    assert torch.equal(waves > 0.5, PhaseEncoder(8)(x) == 1)


def test_phase_smooth_slope_of_the_lowest_plane_is_zero_when_the_pixel_is_a_byte():
    gradients = frame_gradients(PhaseEncoder(8, "smooth"), 77 / 255)
    assert abs(gradients[7]) < 1e-9 and min(abs(g) for g in gradients[:7]) > 1e-3


def test_phase_smooth_second_derivative_exists_when_asked_for():
    pixel = torch.tensor([[[[0.31]]]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(PhaseEncoder(1, "smooth")(pixel).sum(), pixel, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), pixel)
    angle = math.pi * (255 * 0.31 + 0.5) / 128
    assert curvature.item() == pytest.approx(0.5 * (255 * math.pi / 128) ** 2 * math.sin(angle), rel=1e-9)


def test_decode_phase_is_the_exact_inverse_when_images_are_bytes():
    images = ALL_BYTES.view(1, 1, 16, 16)
    for time_steps in (8, 10):
        assert torch.equal(decode_phase(PhaseEncoder(time_steps)(images)), images)


def test_decode_phase_counts_fractions_when_planes_were_perturbed():
    planes = torch.zeros(8, 1, 1, 1, 1)
    planes[0], planes[7] = 0.5, 0.25
    assert decode_phase(planes).item() == pytest.approx((64 + 0.25) / 255)
    assert decode_phase(planes + 2).item() == 1 and decode_phase(planes - 2).item() == 0


# Poisson


def test_poisson_mean_is_the_pixel_when_steps_are_many():
    images = torch.tensor([0.0, 0.1, 0.5, 1.0]).view(1, 1, 2, 2)
    mean = PoissonEncoder(20_000, seed=0)(images).mean(0).flatten()
    assert mean[0] == 0 and mean[3] == 1
    assert mean[1].item() == pytest.approx(0.1, abs=0.01) and mean[2].item() == pytest.approx(0.5, abs=0.015)


def test_poisson_steps_are_independent_when_seeded():
    encoded = PoissonEncoder(2000, seed=3)(torch.full((1, 1, 2, 2), 0.5)).flatten(1)
    assert torch.corrcoef(encoded.T).fill_diagonal_(0).abs().max() < 0.1
    assert torch.corrcoef(torch.stack([encoded[:-1, 0], encoded[1:, 0]]))[0, 1].abs() < 0.1


def test_poisson_repeats_itself_when_seeded_and_does_not_depend_on_the_batch():
    images = torch.rand(4, 3, 5, 5)
    encoder = PoissonEncoder(6, seed=11)
    assert torch.equal(encoder(images), encoder(images))
    assert torch.equal(encoder(images)[:, 2:3], encoder(images[2:3]))
    assert not torch.equal(encoder(images), PoissonEncoder(6, seed=12)(images))


def test_poisson_follows_the_global_generator_when_not_seeded():
    images, encoder = torch.rand(2, 1, 8, 8), PoissonEncoder(4)
    torch.manual_seed(5)
    first, second = encoder(images), encoder(images)
    torch.manual_seed(5)
    assert torch.equal(first, encoder(images)) and not torch.equal(first, second)


def test_poisson_straight_through_is_one_per_step_when_differentiated():
    assert frame_gradients(PoissonEncoder(3), 0.4) == [1.0, 1.0, 1.0]


# Latency


def test_latency_fires_once_and_earlier_when_brighter():
    encoded = LatencyEncoder(5)(torch.tensor([1.0, 0.75, 0.51, 0.0]).view(4, 1, 1, 1)).flatten(1)
    assert encoded.sum(0).tolist() == [1, 1, 1, 1]
    assert encoded.argmax(0).tolist() == [0, 1, 2, 4]


def test_latency_agrees_with_spikingjelly_when_given_every_byte():
    encoding = pytest.importorskip("spikingjelly.activation_based.encoding")
    theirs = encoding.LatencyEncoder(10)
    frames = torch.stack([theirs(ALL_BYTES) for _ in range(10)])
    assert torch.equal(LatencyEncoder(10)(ALL_BYTES.view(1, 1, 16, 16)).flatten(1), frames)


@pytest.mark.parametrize(
    ("x", "expected"),
    [(0.5, [0, 2, 0, -2, 0]), (1.0, [4, -4, 0, 0, 0]), (0.0, [0, 0, 0, 4, -4]), (0.76, [2, 0, -2, 0, 0])],
)
def test_latency_straight_through_moves_the_spike_when_brightened(x, expected):
    gradients = frame_gradients(LatencyEncoder(5), x)
    assert gradients == expected
    assert sum(gradients) == 0 and sum(t * g for t, g in enumerate(gradients)) == -4


def test_latency_smooth_gradient_equals_finite_differences_when_the_pixel_is_anywhere():
    def bump(x: float, t: int) -> float:
        return 2 ** (-4 * (t - 5 * (1 - x)) ** 2)

    for x in (0.0, 0.33, 0.5, 0.9):
        for t, gradient in enumerate(frame_gradients(LatencyEncoder(6, "smooth"), x)):
            assert gradient == pytest.approx(
                (bump(x + 1e-6, t) - bump(x - 1e-6, t)) / 2e-6, rel=1e-5, abs=1e-7
            )


def test_latency_carries_nothing_when_there_is_one_step():
    assert LatencyEncoder(1)(ALL_BYTES.view(1, 1, 16, 16)).min() == 1
    assert frame_gradients(LatencyEncoder(1), 0.4) == [0.0]


# All


@pytest.mark.parametrize("name", ["poisson", "phase", "latency"])
def test_no_gradient_reaches_the_image_when_declared_none(name):
    images = torch.rand(1, 1, 2, 2, requires_grad=True)
    assert not build_encoder(name, 4, gradient="none")(images).requires_grad


@pytest.mark.parametrize(
    ("name", "gradient"),
    [
        ("direct", "exact"),
        ("poisson", "straight_through"),
        ("phase", "straight_through"),
        ("latency", "straight_through"),
    ],
)
def test_repr_shows_steps_and_gradient_when_built_by_name(name, gradient):
    encoder = build_encoder(name, 6)
    assert type(encoder).__name__.lower() == f"{name}encoder"
    assert f"time_steps=6, gradient={gradient}" in repr(encoder)


def test_encoder_gradient_restores_when_the_block_raises():
    model = nn.Sequential(PhaseEncoder(4), nn.Flatten())
    with pytest.raises(RuntimeError), encoder_gradient(model, "smooth"):
        assert model[0].gradient == "smooth"
        raise RuntimeError
    assert model[0].gradient == "straight_through"
    with encoder_gradient(model[0], "none"):
        assert model[0].gradient == "none"


def test_encoder_gradient_restores_all_when_one_encoder_lacks_it():
    model = nn.ModuleList([PhaseEncoder(4), PoissonEncoder(4)])
    with (
        pytest.raises(InputError, match="PoissonEncoder has straight_through, none"),
        encoder_gradient(model, "smooth"),
    ):
        pass
    assert [encoder.gradient for encoder in model] == ["straight_through", "straight_through"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: build_encoder("rate", 4),
            "encoder is 'rate'; expected one of direct, poisson, phase, latency",
        ),
        (lambda: build_encoder("phase", 0), "time_steps is 0; expected a whole number of at least 1"),
        (lambda: build_encoder("phase", 2.5), "time_steps is 2.5"),
        (lambda: build_encoder("poisson", 4, gradient="smooth"), "gradient is 'smooth'; PoissonEncoder has"),
        (lambda: build_encoder("direct", 4, gradient="straight_through"), "DirectEncoder has exact"),
        (lambda: PhaseEncoder(8, planes=9), "planes is 9"),
        (lambda: PhaseEncoder(8)(torch.zeros(1, 1, 2, 2, dtype=torch.uint8)), "images are torch.uint8"),
        (lambda: encoder_gradient(nn.Linear(1, 1), "none").__enter__(), "Linear has no snnlib encoder"),
    ],
)
def test_input_error_names_the_value_when_it_does_not_fit(make, message):
    with pytest.raises(InputError, match=message):
        make()


LEVELS = ALL_BYTES.view(1, 1, 16, 16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_grey_level_keeps_its_bits_when_images_are_half_precision(dtype):
    encoded = PhaseEncoder(11)(LEVELS.to(dtype))
    assert encoded.dtype == dtype
    assert torch.equal(encoded.float(), PhaseEncoder(11)(LEVELS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "name, gradient",
    [(name, gradient) for name, kind in ENCODERS.items() for gradient in kind.gradients if gradient[0] == "s"],
)
def test_half_precision_is_encoded_and_differentiated_as_its_float32_copy(name, gradient, dtype):
    half = LEVELS.to(dtype).requires_grad_()
    single = half.detach().float().requires_grad_()
    time_steps = 300 if name == "latency" else 8  # more than bfloat16 can count
    weights = torch.arange(time_steps).sub(time_steps // 2).view(-1, 1, 1, 1, 1)
    results = []
    for images in (half, single):
        torch.manual_seed(0)
        encoded = build_encoder(name, time_steps, gradient)(images)
        results.append((encoded, *torch.autograd.grad((encoded.float() * weights).sum(), images)))
    assert torch.equal(results[0][0].float(), results[1][0])
    assert torch.equal(results[0][1], results[1][1].to(dtype)) and results[1][1].any()


@pytest.mark.parametrize("name", ENCODERS)
def test_mapping_over_images_equals_encoding_the_batch(name):
    encoder = build_encoder(name, 5)
    mapped = torch.func.vmap(encoder, out_dims=1, randomness="different")(LEVELS.expand(3, 1, 16, 16))
    assert mapped.shape == (5, 3, 1, 16, 16)
    if name != "poisson":
        assert torch.equal(mapped, encoder(LEVELS.expand(3, 1, 16, 16)))


@pytest.mark.parametrize("name", ENCODERS)
def test_bytes_are_refused_by_every_encoder(name):
    with pytest.raises(InputError, match="images are torch.uint8; expected floats"):
        build_encoder(name, 4)(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))


def test_numpy_counts_are_taken_as_plain_numbers():
    encoder = PhaseEncoder(np.int64(6), planes=np.int32(4))
    assert (type(encoder.time_steps), type(encoder.planes)) == (int, int)
    assert encoder(LEVELS).shape[0] == 6
