"""Convolutions that are safe and spare work: no kernel that writes past its memory, no taps that only meet padding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS_OF_A_BLOCK = 16
"""oneDNN's block of channels with AVX-512; 8 with AVX2. One limit on every machine, so that results agree."""


def _is_strided_pointwise(layer: nn.Conv2d) -> bool:
    pointwise = layer.kernel_size == (1, 1) and layer.padding in ((0, 0), "valid") and layer.groups == 1
    return pointwise and max(layer.stride) > 1 and 0 < layer.in_channels < CHANNELS_OF_A_BLOCK


def unsafe_convolutions(model: nn.Module) -> list[str]:
    """Names and shapes of the convolutions in whose backward pass oneDNN writes past its memory; empty: none.

    They are dense 1x1 `nn.Conv2d` layers in float32 on the CPU with a stride above 1 and fewer than 16 input channels
    (without AVX-512 only fewer than 8), and they fail where their input or weight lies channels-last: the gradient of
    the weight is wrong, or the process crashes or hangs, at once or later. The same in NCHW layout, other kernel sizes,
    groups, float64, gradients of the input alone and the forward pass are right; so is all with
    `torch.backends.mkldnn.enabled = False`. Our own networks' `Conv2d` works around it and is not listed.
    A layer cannot know its input's layout, so one that is listed may be safe; calls of `F.conv2d` are not seen.

    **Source:** oneDNN issue 6035 (workspace of strided 1x1 convolutions, versions up to 3.12); shapes measured here
    with PyTorch 2.13 on AVX2.

    >>> unsafe_convolutions(nn.Sequential(nn.Conv2d(4, 8, 1, stride=2), nn.Conv2d(8, 8, 3, stride=2)))
    ['0: Conv2d(4, 8, kernel_size=(1, 1), stride=(2, 2))']
    """
    return [
        f"{name or 'the model'}: {layer}"
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) and not isinstance(layer, Conv2d) and _is_strided_pointwise(layer)
        and layer.weight.is_cpu and layer.weight.dtype == torch.float32
    ]  # fmt: skip


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` that leaves out the taps which only ever meet padding, and is safe where oneDNN is not.

    With a single output position, as in the last stage of a ResNet on 32x32 images, a 3x3 kernel on a 1x1 map touches
    the image with its centre alone: the other taps add zeros and get zero gradients, at nine times the cost.

    Where `unsafe_convolutions` would list the layer, it first takes the positions that the stride leaves and then
    convolves them without a stride. An average pool over one pixel takes them: it keeps channels-last in both
    directions, where a slice has a gradient in another layout.
    """

    def forward(self, x: Tensor) -> Tensor:
        if _is_strided_pointwise(self):
            return F.conv2d(F.avg_pool2d(x, 1, self.stride), self.weight, self.bias)
        height, width = x.shape[-2:]
        (kernel, _), (pad, _), (stride, _) = self.kernel_size, self.padding, self.stride
        one_position = height == width and height + 2 * pad - kernel < stride
        if not one_position or pad == 0 or self.groups != 1 or self.dilation != (1, 1):
            return super().forward(x)
        reach = min(kernel - pad, height)
        taps = self.weight[:, :, pad : pad + reach, pad : pad + reach]
        return F.conv2d(x[..., :reach, :reach], taps, self.bias)
