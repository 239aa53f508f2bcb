"""The same weights and the same function, seen by an attacker through another gradient.

Whatever robustness goes away inside these contexts was the attacker's blindness, not the network's strength.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.runtime import sent

POOL_GRADIENTS = ("average", "ties", "softmax")
TEMPERATURE = 1.0
"""Of the softmax over a window; spikes are 0 or 1, so a firing position weighs e times a silent one."""


class _PooledMaximum(torch.autograd.Function):
    """`maxima [N, C, H', W']` forward; backward, each goes to its window by `weights [N, C, k, H'·W']`."""

    @staticmethod
    def forward(ctx, x: Tensor, maxima: Tensor, weights: Tensor, spread: Callable) -> Tensor:
        ctx.save_for_backward(weights)
        ctx.spread = spread
        return maxima.clone()

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (weights,) = ctx.saved_tensors
        return ctx.spread(weights * upstream.flatten(2).unsqueeze(2)), None, None, None


@contextmanager
def dense_pool_gradient(model: nn.Module, kind: str) -> Iterator[None]:
    """Inside, every `nn.MaxPool2d` of `model` gives the same maxima and spreads its gradient over the window.

    kind: "average", evenly over the positions inside the map; "ties", evenly over all positions that hold the maximum,
    where PyTorch takes the first; "softmax", by exp(x / `TEMPERATURE`). In all three the weights of a window sum to 1.
    Errors: InputError for another kind, a model without such a layer, or a dilated pool.
    **Source:** the check that Luu et al. 2025 leave out: at least 3/4 of the gradient entries above their stem's max
    pool are zero by construction (see notebook 13).
    """
    if kind not in POOL_GRADIENTS:
        raise InputError(f"pool gradient is {kind!r}; expected one of {', '.join(POOL_GRADIENTS)}")
    pools = [module for module in model.modules() if isinstance(module, nn.MaxPool2d)]
    if not pools:
        raise InputError("the model has no nn.MaxPool2d layer; expected at least one; leave this context out")
    if any(pool.dilation not in (1, (1, 1)) or pool.return_indices or pool.ceil_mode for pool in pools):
        raise InputError("a max pool is dilated, returns indices or rounds up; expected a plain one; leave it out")
    try:
        for pool in pools:
            pool.forward = _dense_forward(pool, kind)
        yield
    finally:
        for pool in pools:
            del pool.forward


def _dense_forward(pool: nn.MaxPool2d, kind: str) -> Callable[[Tensor], Tensor]:
    (kernel, stride, padding) = (_pair(value) for value in (pool.kernel_size, pool.stride, pool.padding))

    def forward(x: Tensor) -> Tensor:
        flat = x.flatten(0, -4) if x.dim() > 4 else x
        maxima = F.max_pool2d(flat, kernel, stride, padding)
        if flat.requires_grad:
            windows = _windows(flat.detach(), kernel, stride, padding)
            spread = _spread(flat.shape, kernel, stride, padding)
            maxima = _PooledMaximum.apply(flat, maxima.detach(), _weights(windows, kind), spread)
        return maxima.unflatten(0, x.shape[:-3]) if x.dim() > 4 else maxima

    return forward


def _windows(x: Tensor, kernel: tuple, stride: tuple, padding: tuple) -> Tensor:
    """[N, C, k, positions]: the pool's windows, −∞ outside the map."""
    (high, wide) = padding
    padded = F.pad(x, (wide, wide, high, high), value=float("-inf"))
    return F.unfold(padded, kernel, stride=stride).unflatten(1, (x.shape[1], -1))


def _weights(windows: Tensor, kind: str) -> Tensor:
    if kind == "softmax":
        return (windows / TEMPERATURE).softmax(2)
    chosen = windows > float("-inf") if kind == "average" else windows == windows.amax(2, keepdim=True)
    return chosen.to(windows.dtype) / chosen.sum(2, keepdim=True)


def _spread(shape: torch.Size, kernel: tuple, stride: tuple, padding: tuple) -> Callable[[Tensor], Tensor]:
    """From window entries [N, C, k, positions] back to the map they came from, summed."""
    (high, wide), (height, width) = padding, shape[-2:]

    def spread(entries: Tensor) -> Tensor:
        padded = F.fold(entries.flatten(1, 2), (height + 2 * high, width + 2 * wide), kernel, stride=stride)
        return padded[..., high : high + height, wide : wide + width]

    return spread


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


class _Sieve(torch.autograd.Function):
    """The identity, whose gradient keeps only the entries of a mask."""

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return upstream * mask, None


class SparseGradient(nn.Module):
    """`model` with exact zeros in its input gradient: the same logits, and an attacker who sees a share of the pixels.

    keep: share of the entries of an image, 0..1, whose gradient stays. Which ones is drawn once by `seed`, the same for
    every image: sets are nested, what a small share keeps a larger one keeps too.
    Errors: InputError for a share outside 0..1.
    """

    def __init__(self, model: nn.Module, keep: float, seed: int = 0) -> None:
        super().__init__()
        if not 0 <= keep <= 1:
            raise InputError(f"keep is {keep!r}; expected a share of the pixels in 0..1; use e.g. keep=0.5")
        self.model, self.keep, self.seed = model, keep, seed

    def forward(self, images: Tensor) -> Tensor:
        return self.model(_Sieve.apply(images, self.mask(images)))

    def mask(self, images: Tensor) -> Tensor:
        """[C, H, W] of 1 where the gradient stays, else 0."""
        shape = images.shape[1:]
        order = torch.randperm(shape.numel(), generator=torch.Generator().manual_seed(self.seed))
        kept = torch.zeros(shape.numel(), dtype=images.dtype)
        kept[order[: round(self.keep * shape.numel())]] = 1
        return sent(kept.view(shape), images.device)
