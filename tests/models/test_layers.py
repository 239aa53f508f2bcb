"""Layers: the convolution that skips taps on padding equals PyTorch's; static inputs run once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from snnlib.models.convolution import Conv2d, unsafe_convolutions
from snnlib.models.layers import conv3x3
from snnlib.runtime import SPINS_BEFORE_SLEEP


@pytest.mark.parametrize(
    "size, stride, kernel, padding",
    [(1, 1, 3, 1), (1, 2, 3, 1), (2, 2, 3, 1), (3, 1, 3, 1), (4, 2, 3, 1), (1, 1, 1, 0), (2, 4, 7, 3), (5, 2, 7, 3)],
)
def test_values_and_gradients_equal_pytorch_when_taps_meet_only_padding(size, stride, kernel, padding):
    torch.manual_seed(0)
    options = {"kernel_size": kernel, "stride": stride, "padding": padding, "dtype": torch.float64}
    ours, theirs = Conv2d(3, 5, **options), nn.Conv2d(3, 5, **options)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 3, size, size, dtype=torch.float64)
    ours_in, theirs_in = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, wanted = ours(ours_in), theirs(theirs_in)
    torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(out)
    for mine, other in zip(
        torch.autograd.grad((out * upstream).sum(), [ours_in, ours.weight, ours.bias]),
        torch.autograd.grad((wanted * upstream).sum(), [theirs_in, theirs.weight, theirs.bias]),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_fewer_multiplications_when_the_map_is_one_pixel():
    seen = []
    layer = conv3x3(2, 2)
    original = torch.nn.functional.conv2d

    def counting(x, weight, *rest, **options):
        seen.append(tuple(weight.shape[-2:]))
        return original(x, weight, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "conv2d", counting)
        layer(torch.randn(1, 2, 1, 1))
    assert seen == [(1, 1)]


def test_gradients_of_every_convolution_we_build_equal_float64_and_nothing_crashes():
    script = Path(__file__).with_name("convolution_shapes.py")
    child = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "GOMP_SPINCOUNT": SPINS_BEFORE_SLEEP, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, (child.stdout.splitlines()[-1:], child.stderr[-2000:])
    assert int(child.stdout.splitlines()[-1].split()[0]) > 800


@pytest.mark.parametrize("size", [1, 2, 7, 8])
@pytest.mark.parametrize("stride", [2, (1, 3)])
def test_few_channels_with_a_stride_equal_pytorch_and_keep_the_layout(size, stride):
    torch.manual_seed(0)
    ours, theirs = (layer(5, 7, 1, stride=stride, dtype=torch.float64) for layer in (Conv2d, nn.Conv2d))
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(4, 5, size, size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()
    out, wanted = ours(images), theirs(images)
    torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(out.square().sum(), [images, ours.weight, ours.bias])
    for one, other in zip(
        gradients, torch.autograd.grad(wanted.square().sum(), [images, theirs.weight, theirs.bias]), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert gradients[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "layer, unsafe",
    [
        (nn.Conv2d(4, 8, 1, stride=2), True),
        (nn.Conv2d(15, 8, 1, stride=(1, 2), padding="valid"), True),
        (nn.Conv2d(16, 8, 1, stride=2), False),
        (nn.Conv2d(4, 8, 1), False),
        (nn.Conv2d(4, 8, 3, stride=2), False),
        (nn.Conv2d(4, 8, 1, stride=2, padding=1), False),
        (nn.Conv2d(4, 8, 1, stride=2, groups=2), False),
        (nn.Conv2d(4, 8, 1, stride=2).double(), False),
        (Conv2d(4, 8, 1, stride=2), False),
        (nn.Conv1d(4, 8, 1, stride=2), False),
    ],
)
def test_unsafe_convolutions_are_named_and_no_others(layer, unsafe):
    assert unsafe_convolutions(nn.Sequential(nn.ReLU(), layer)) == ([f"1: {layer}"] if unsafe else [])
