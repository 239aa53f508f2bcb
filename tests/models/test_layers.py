"""Layers: the convolution that skips taps on padding equals PyTorch's; static inputs run once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.models.layers import Conv2d, conv3x3


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
