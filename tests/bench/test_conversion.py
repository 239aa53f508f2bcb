"""Conversion beside ann2snn: the same network and images, one row each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.bench.conversion import bench_conversion


def test_both_conversions_are_measured_on_the_same_ann():
    pytest.importorskip("spikingjelly.activation_based.ann2snn")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(72, 4),
        )  # fmt: skip
        images = torch.rand(64, 3, 8, 8)
        net(images)
        labels = net.eval()(images).argmax(1)
    table = bench_conversion(net, images, images, labels, time_steps=(2, 32))
    assert list(table["contender"].unique()) == ["the ANN", "snnlib", "SpikingJelly, Max", "SpikingJelly, 99.9%"]
    assert table["accuracy"][0] == 1.0 and len(table) == 7
    many = table[table["time_steps"] == 32].set_index("contender")["accuracy"]
    assert (many > 0.8).all(), "with many steps both answer as the ANN does"
