"""The k-th smallest value of a tensor of any size, exactly, in a fixed amount of memory beside it.

The first layer of a VGG-11 gives 4.2e8 values per calibration batch; sorting or `torch.kthvalue` would copy them
several times over. Here the bits of the numbers are counted instead: read as an integer, a float keeps its order, so
the bucket of the k-th value among its leading 16 bits is found first, then the next 16 bits inside that bucket.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Real

import torch
from torch import Tensor

from snnlib.errors import InputError

DIGIT_BITS = 16
CHUNK = {"cpu": 2**18, "cuda": 2**24}
"""Values looked at together: few enough for a processor's cache (1 MiB in float32), enough to keep a GPU busy."""

_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


def rank_of(share: float, count: int) -> int:
    """k of the percentile's k-th smallest value among `count`: 1 + round(share · (count − 1)), in 1..count.

    Halves go to the even number, as Python rounds. Errors: InputError for a share outside [0, 1] or no values.

    **Source:** Özdenizci & Legenstein 2024, their code (models/VGG.py, `percentile`).
    """
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 <= share <= 1:
        raise InputError(f"percentile is {share!r}; expected a share in [0, 1]; the paper's 99.7 % is 0.997")
    if count < 1:
        raise InputError("percentile of 0 values; expected at least one; pass a batch that is not empty")
    return 1 + round(float(share) * (count - 1))


def percentile(values: Tensor, share: float) -> float:
    """The `rank_of(share, n)`-th smallest of all n `values` (float16, bfloat16, float32 or float64, any shape).

    Exact: the result is one of the values, error bound 0, with ties, heavy tails and infinities as with any others.
    NaN if there is a NaN among them. Time: two passes over float32, four over float64. Memory beside the tensor: some
    buffers of 262,144 values (16 million on a GPU), whatever its size; repetitions that are a view (stride 0, as a
    static current has over time) are counted, never written out.

    Errors: InputError for a share outside [0, 1], no values, or numbers that are no floats.
    """
    if not values.is_floating_point():
        raise InputError(f"percentile of {values.dtype}; expected floats; convert them first")
    rank = rank_of(share, values.numel())
    distinct = _without_repetitions(values.detach())
    return kth_smallest(distinct, math.ceil(rank / (values.numel() // distinct.numel())))


def kth_smallest(values: Tensor, k: int) -> float:
    """The k-th smallest of `values`, k from 1; NaN if there is one among them. Method as in `percentile`."""
    if any(bool(chunk.isnan().any()) for chunk in _chunks(values)):
        return math.nan
    kind = _wide(values.dtype)
    bits = torch.finfo(kind).bits
    prefix, below = None, 0
    for shift in range(bits - DIGIT_BITS, -1, -DIGIT_BITS):
        counts = torch.zeros(2**DIGIT_BITS, dtype=torch.int64, device=values.device)
        for chunk in _chunks(values):
            keys = _ordered_integers(chunk.to(kind))
            if prefix is not None:
                keys = keys[(keys >> (shift + DIGIT_BITS)) == prefix]
            counts += torch.bincount(_digit(keys, shift, leading=prefix is None), minlength=2**DIGIT_BITS)
        up_to = below + counts.cumsum(0)
        digit = int(torch.searchsorted(up_to, k))
        below = int(up_to[digit] - counts[digit])
        prefix = digit - 2 ** (DIGIT_BITS - 1) if prefix is None else (prefix << DIGIT_BITS) + digit
    key = torch.tensor(prefix, dtype=_INTEGERS[kind])
    return _ordered_integers(key, back=True).view(kind).item()


def _wide(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in _INTEGERS else torch.float32


def _ordered_integers(numbers: Tensor, back: bool = False) -> Tensor:
    """Floats as signed integers of the same order (`back`: those integers, still to be viewed as floats).

    The bit pattern of a negative float grows with its size: all bits but the sign are flipped, and flipping them
    again is the way back.
    """
    pattern = numbers if back else numbers.view(_INTEGERS[numbers.dtype])
    sign_only, all_but_sign = pattern >> (torch.iinfo(pattern.dtype).bits - 1), torch.iinfo(pattern.dtype).max
    return pattern ^ (sign_only & all_but_sign)


def _digit(keys: Tensor, shift: int, leading: bool) -> Tensor:
    """16 bits of each key as a number from 0; the leading ones carry the sign."""
    digit = keys >> shift
    return digit + 2 ** (DIGIT_BITS - 1) if leading else digit & (2**DIGIT_BITS - 1)


def _without_repetitions(values: Tensor) -> Tensor:
    """`values` with every axis that repeats one and the same memory reduced to its first entry."""
    for axis in range(values.dim()):
        if values.stride(axis) == 0:
            values = values.narrow(axis, 0, 1)
    return values


def _chunks(values: Tensor) -> Iterator[Tensor]:
    """All values as flat pieces of at most `CHUNK` values, in no particular order, without a copy of the whole."""
    size = CHUNK.get(values.device.type, CHUNK["cpu"])
    if values.numel() <= size:
        yield values.reshape(-1)
    elif (flat := _flat_view(values)) is not None:
        yield from flat.split(size)
    else:
        for part in values.unbind(0):
            yield from _chunks(part)


def _flat_view(values: Tensor) -> Tensor | None:
    """All values as one axis in the order of memory, where they fill one block (contiguous, channels-last, ...)."""
    axes = sorted(range(values.dim()), key=values.stride, reverse=True)
    ordered = values.permute(axes)
    return ordered.view(-1) if ordered.is_contiguous() else None
