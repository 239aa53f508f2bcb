"""The k-th smallest of any tensor: exact, against sorting, on data that is hard for histograms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from snnlib.conversion import percentile as module
from snnlib.conversion.percentile import kth_smallest, percentile, rank_of
from snnlib.errors import InputError

SHARES = (0.0, 0.003, 0.5, 0.997, 1.0)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _data(kind: str, count: int = 5003) -> Tensor:
    normal = torch.randn(count, dtype=torch.float64, generator=_generator())
    uniform = torch.rand(count, dtype=torch.float64, generator=_generator())
    return {
        "normal": normal,
        "heavy tail": torch.tan(math.pi * (uniform - 0.5)) ** 3,
        "constant": torch.full((count,), -0.37, dtype=torch.float64),
        "two values": torch.where(uniform < 0.9965, 0.0, 1.0).double(),
        "many ties": (4 * normal).round() / 4,
        "mostly zero, either sign": torch.where(uniform < 0.998, torch.copysign(torch.tensor(0.0), normal), normal),
        "tiny": normal * 1e-42,
        "one outlier": torch.cat([normal * 1e-6, torch.tensor([1e30], dtype=torch.float64)]),
        "with infinities": torch.cat([normal, torch.tensor([math.inf, -math.inf], dtype=torch.float64)]),
    }[kind]


KINDS = (
    "normal", "heavy tail", "constant", "two values", "many ties", "mostly zero, either sign", "tiny", "one outlier",
    "with infinities",
)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_percentile_is_the_sorted_value_when_data_are_hard(kind, dtype):
    values = _data(kind).to(dtype)
    for share in SHARES:
        k = 1 + round(share * (len(values) - 1))
        assert percentile(values, share) == values.kthvalue(k).values.item(), share


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_percentile_is_one_of_the_values_in_half_precision(dtype):
    values = _data("normal").to(dtype)
    for share in SHARES:
        assert percentile(values, share) == values.float().sort().values[rank_of(share, len(values)) - 1].item()


@pytest.mark.parametrize("share, count, rank", [(0.997, 1000, 997), (0.997, 1, 1), (0.5, 2, 1), (0.5, 4, 3), (1, 9, 9)])
def test_rank_is_one_plus_the_rounded_share(share, count, rank):
    assert rank_of(share, count) == rank


def test_every_rank_is_found():
    values = _data("many ties", 200).float()
    assert [kth_smallest(values, k) for k in range(1, 201)] == values.sort().values.tolist()


@pytest.mark.parametrize("shape", [(7, 3, 5, 4), (1, 420), (420, 1)])
@pytest.mark.parametrize("layout", ["as is", "channels last", "transposed", "sliced"])
def test_layout_does_not_matter_and_no_piece_exceeds_the_chunk(shape, layout, monkeypatch):
    monkeypatch.setitem(module.CHUNK, "cpu", 16)
    sizes, original = [], module._ordered_integers
    monkeypatch.setattr(
        module, "_ordered_integers", lambda x, back=False: (sizes.append(x.numel()), original(x, back))[1]
    )
    values = torch.randn(shape, generator=_generator())
    if layout == "channels last":
        values = values.movedim(1, -1).contiguous().movedim(-1, 1)
    elif layout == "transposed":
        values = values.transpose(0, -1)
    elif layout == "sliced":
        values = torch.randn((*shape[:-1], 2 * shape[-1]), generator=_generator())[..., ::2]
    assert percentile(values, 0.9) == values.flatten().sort().values[rank_of(0.9, values.numel()) - 1].item()
    assert max(sizes) <= 16 and sum(sizes) >= 2 * values.numel()


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("repeats", [1, 2, 7, 100])
def test_repeated_view_counts_as_often_as_it_repeats(share, repeats):
    once = torch.randn(3, 11, generator=_generator())
    static = once.expand(repeats, 3, 11)
    assert percentile(static, share) == percentile(static.contiguous(), share)


def test_repeated_view_is_never_written_out():
    static = torch.arange(1000.0).expand(2**40, 1000)  # 4 PB
    assert percentile(static, 0.25) == 250  # k = 1 + 250 * 2^40, the first of the 251st value
    assert percentile(static, 0.997) == 996


def test_nan_gives_nan_wherever_it_stands():
    for position in (0, 7, 99):
        for nan in (math.nan, -math.nan):
            values = torch.linspace(-1, 1, 100)
            values[position] = nan
            assert math.isnan(percentile(values, 0.5))


@pytest.mark.parametrize("share", [-0.1, 1.1, 99.7, True, "0.5", math.nan])
def test_share_outside_of_its_range_is_refused(share):
    with pytest.raises(InputError, match=r"percentile is .*; expected a share in \[0, 1\]"):
        percentile(torch.ones(3), share)


def test_values_that_are_no_floats_or_none_are_refused():
    with pytest.raises(InputError, match="percentile of torch.int64; expected floats"):
        percentile(torch.arange(3), 0.5)
    with pytest.raises(InputError, match="percentile of 0 values"):
        percentile(torch.zeros(0), 0.5)
