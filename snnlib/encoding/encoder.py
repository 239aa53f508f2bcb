"""What every encoder is: spikes forward, a declared gradient backward."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from snnlib import checks
from snnlib.errors import InputError


class Declared(torch.autograd.Function):
    """`encode(images)` forward; backward, the incoming gradient times `slope(images)`, summed over time."""

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, encode: Callable, slope: Callable) -> Tensor:
        return encode(images)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Callable, Callable], output: Tensor) -> None:
        images, _, ctx.slope = inputs
        ctx.save_for_backward(images)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None, None]:
        (images,) = ctx.saved_tensors
        return (upstream * ctx.slope(images)).sum(0), None, None


def above_zero(margins: Tensor, slope: Callable) -> Tensor:
    """1 where a margin is above 0, else 0; backward, the incoming gradient times `slope(margins)`."""
    return Declared.apply(margins, _step, slope)[0]


def atan_slope(margins: Tensor, width: float = 1.0) -> Tensor:
    """The derivative of ½ + atan(margins/width)/π."""
    return 1 / (math.pi * width * (1 + (margins / width) ** 2))


def _step(margins: Tensor) -> Tensor:
    return (margins > 0).to(margins.dtype)[None]


class Encoder(nn.Module):
    """Images `[N, C, H, W]` in [0, 1] to encoded `[T, N, C, H, W]` in [0, 1].

    `gradient` may be assigned at any time; see `encoder_gradient` for a switch that restores. `gradients`
    lists the names that fit, the default first. Images in half precision are encoded in float32, where their
    levels are exact; the result has their dtype. Raises `InputError` for another name, for `time_steps` < 1 and
    for images of integer type.
    """

    gradients: tuple[str, ...] = ("straight_through", "none")

    def __init__(self, time_steps: int, gradient: str | None = None) -> None:
        super().__init__()
        self.time_steps = checks.whole("time_steps", time_steps)
        self.gradient = self.gradients[0] if gradient is None else gradient

    @property
    def gradient(self) -> str:
        return self._gradient

    @gradient.setter
    def gradient(self, name: str) -> None:
        if name not in self.gradients:
            raise InputError(
                f"gradient is {name!r}; {type(self).__name__} has {', '.join(self.gradients)}; choose one"
            )
        self._gradient = name

    def forward(self, images: Tensor) -> Tensor:
        check_floats(images)
        if images.dtype in (torch.float16, torch.bfloat16):
            return Encoder.forward(self, images.to(torch.float32)).to(images.dtype)
        if self.gradient == "none":
            return self.encode(images.detach())
        return Declared.apply(images, self.encode, getattr(self, f"{self.gradient}_slope"))

    def encode(self, images: Tensor) -> Tensor:
        """The spikes."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"time_steps={self.time_steps}, gradient={self.gradient}"


def check_floats(images: Tensor) -> None:
    if not images.is_floating_point():
        raise InputError(f"images are {images.dtype}; expected floats in [0, 1]; divide bytes by 255 first")
