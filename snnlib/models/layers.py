"""Pieces that every network here is made of: time folded into the batch for layers, unfolded for neurons."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.models.convolution import Conv2d

NeuronFactory = Callable[[], nn.Module]


def first_weight(model: nn.Module, otherwise: Tensor | None = None) -> Tensor:
    """A floating-point parameter or buffer, to whose device and dtype inputs go.

    Without any: `otherwise`, or an empty tensor of PyTorch's defaults.
    """
    tensors = (*model.parameters(), *model.buffers())
    otherwise = torch.empty(0) if otherwise is None else otherwise
    return next((tensor for tensor in tensors if tensor.is_floating_point()), otherwise)


def over_time(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer that knows no time to `[T, N, ...]`: all time steps as one batch of T·N."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def is_static(x: Tensor) -> bool:
    """Whether all time steps of `[T, N, ...]` are one and the same memory, as direct coding makes them."""
    return x.shape[0] > 1 and x.stride(0) == 0


def over_static_time(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`over_time`, but a static input runs through the layer once and is then repeated as a view.

    In train mode BatchNorm sees each sample once instead of T times: the same mean and biased variance, and a running
    variance whose unbiasing factor counts N·H·W values instead of T·N·H·W.
    """
    if not is_static(x):
        return over_time(layer, x)
    once = layer(x[0])
    return once.expand(x.shape[0], *once.shape)


def stem_pool(kind: str) -> nn.Module:
    """The pool after the stem, kernel 3, stride 2, padding 1; "none" leaves the resolution as it is."""
    if kind == "max":
        return nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    if kind == "avg":
        return nn.AvgPool2d(kernel_size=3, stride=2, padding=1)
    if kind == "none":
        return nn.Identity()
    raise InputError(f"pool is {kind!r}; expected 'max', 'avg' or 'none'; choose one of these")


def stem_convolution(kind: str, in_channels: int, out_channels: int) -> nn.Conv2d:
    """First convolution: "7x7", stride 2 (ImageNet's, used by Luu et al. on 32x32 images), or "3x3", stride 1."""
    if kind == "7x7":
        return nn.Conv2d(in_channels, out_channels, kernel_size=7, stride=2, padding=3, bias=False)
    if kind == "3x3":
        return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=1, padding=1, bias=False)
    raise InputError(f"stem is {kind!r}; expected '7x7' or '3x3'; choose one of these")


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, *, bias: bool = False) -> Conv2d:
    """3x3 convolution, padding 1."""
    return Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=bias)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> Conv2d:
    """1x1 convolution, no bias."""
    return Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)


def initialise(body: nn.Module) -> None:
    """Kaiming-normal convolutions (fan out, ReLU gain), unit BatchNorm: torchvision's ResNet initialisation."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
