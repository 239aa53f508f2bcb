"""Filters of event rasters: what is kept, by hand, and the gradient that the adaptive attacker has."""

from __future__ import annotations

import math

import pytest
import torch

from snnlib import attacks
from snnlib.encoding import EventEncoder
from snnlib.models import Model
from snnlib.models.event_filters import BackgroundActivity, HotPixels, filtered


def raster(*events, time_steps=4, side=5):
    """[T, 1, 2, H, W] with events at (t, p, y, x)."""
    encoded = torch.zeros(time_steps, 1, 2, side, side, dtype=torch.float64)
    for t, p, y, x in events:
        encoded[t, 0, p, y, x] = 1
    return encoded


def kept(filter, *events):
    return [tuple(place[[0, 2, 3, 4]].tolist()) for place in filter(raster(*events)).nonzero()]


@pytest.mark.parametrize(
    ("events", "left"),
    [
        ([(1, 0, 2, 2)], []),
        ([(1, 0, 2, 2), (1, 1, 3, 3)], [(1, 0, 2, 2), (1, 1, 3, 3)]),
        ([(1, 0, 2, 2), (1, 1, 2, 2)], []),
        ([(1, 0, 2, 2), (2, 0, 2, 3)], [(2, 0, 2, 3)]),
        ([(1, 0, 2, 2), (3, 0, 2, 3)], []),
        ([(1, 0, 2, 2), (1, 0, 2, 4)], []),
    ],
)
def test_background_activity_keeps_events_with_company(events, left):
    assert kept(BackgroundActivity(), *events) == left


def test_more_support_and_a_longer_window():
    events = [(0, 0, 1, 1), (1, 0, 1, 2), (3, 0, 2, 2)]
    assert kept(BackgroundActivity(support=2, window=3), *events) == [(3, 0, 2, 2)]
    assert kept(BackgroundActivity(support=3, window=3), *events) == []


def test_a_pixel_that_never_rests_is_silenced():
    busy, calm = [(t, t % 2, 1, 1) for t in range(4)], [(0, 0, 3, 3), (2, 0, 3, 3)]
    assert kept(HotPixels(most=3), *busy, *calm) == calm
    assert len(kept(HotPixels(most=4), *busy, *calm)) == 6


@pytest.mark.parametrize("filter", [BackgroundActivity(), HotPixels(most=1)])
def test_the_gradient_reads_the_comparison_as_an_arctangent(filter, monkeypatch):
    from snnlib.models import event_filters

    x = (torch.rand(3, 2, 2, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.3).double()
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    hard = x.clone().requires_grad_(True)
    (filter(hard) * weights).sum().backward()
    margins = []
    keep = event_filters._keep
    monkeypatch.setattr(event_filters, "_keep", lambda margin: margins.append(margin) or keep(margin))
    soft = x.clone().requires_grad_(True)
    filter(soft)
    curve = 0.5 + margins[0].atan() / math.pi
    curve = curve - curve.detach() + (margins[0] > 0)
    (soft * curve.unsqueeze(2 if isinstance(filter, BackgroundActivity) else 1) * weights).sum().backward()
    assert torch.allclose(hard.grad, soft.grad, atol=1e-12)


def test_a_filtered_network_keeps_its_budget_and_leaves_the_other_as_it_was():
    class Reader(torch.nn.Module):
        def forward(self, encoded):
            count = encoded.sum((0, 2, 3, 4)) - 3.5
            return torch.stack([-count, count], 1)

    model = Model(EventEncoder(4), Reader(), {"name": "reader"}).eval()
    behind = filtered(model, BackgroundActivity())
    events = (torch.rand(6, 4, 2, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.1).double()
    labels = behind(events).argmax(1)
    found = attacks.bit_flip(behind, events, labels, attacks.Budget(3, "l0", "encoded"))
    assert (found.l2.square() <= 3.001).all() and found.success.any()
    assert behind.config["filters"] and "filters" not in model.config and behind.body[1] is model.body
