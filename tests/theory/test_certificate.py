"""Certificates: their binomial bound, their radii, abstention, and independence of batch and order."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.theory import certified_accuracy, gaussian_certificate, poisson_certificate
from snnlib.theory.certificate import clopper_pearson_low


class Threshold(nn.Module):
    """Class 1 where the mean pixel is above one half; body: the mean spike."""

    def forward(self, x: Tensor) -> Tensor:
        score = 100 * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-score, score], 1)

    def body(self, spikes: Tensor) -> Tensor:
        return self(spikes.transpose(0, 1))


def test_clopper_pearson_against_its_definition():
    low = clopper_pearson_low(np.array([0, 7, 10]), 10, 0.05)
    assert low[0] == 0 and low[2] == pytest.approx(0.05**0.1)
    tail = sum(math.comb(10, k) * low[1] ** k * (1 - low[1]) ** (10 - k) for k in range(7, 11))
    assert tail == pytest.approx(0.05)


def test_gaussian_radius_is_below_the_true_distance_and_near_it():
    # The mean of 16 pixels at 0.6: the boundary lies 0.1 · 4 = 0.4 away in L2.
    images = torch.full((1, 1, 4, 4), 0.6)
    row = gaussian_certificate(Threshold(), images, sigma=0.3, draws=4000, alpha=0.01).iloc[0]
    assert row.predicted == 1 and 0.36 < row.radius < 0.4
    assert row.radius == pytest.approx(0.3 * NormalDist().inv_cdf(row.p_low))


def test_who_sits_on_the_fence_abstains():
    images = torch.full((1, 1, 4, 4), 0.5)
    for table in (
        gaussian_certificate(Threshold(), images, sigma=0.3, draws=100),
        poisson_certificate(Threshold(), images, time_steps=3, draws=100),
    ):
        assert table.predicted.item() == -1 and math.isnan(table.radius.item())
        assert certified_accuracy(table, torch.tensor([1]), [0.0]).certified.item() == 0


def test_poisson_radius_follows_its_formula_and_more_steps_cost():
    images = torch.full((1, 1, 4, 4), 0.9)
    one, four = (poisson_certificate(Threshold(), images, time_steps=t, draws=200).iloc[0] for t in (1, 4))
    assert one["count"] == four["count"] == 200
    assert four.radius == pytest.approx(1 - (1.5 - four.p_low) ** 0.25) and one.radius > four.radius > 0
    # All 16 pixels may move by linf at once, so it is far below the L1 radius, and within a factor of it over 16.
    assert 0 < four.linf < four.radius and 16 * four.linf > 0.5 * four.radius


def test_noise_belongs_to_the_sample():
    model = build_model("sew_resnet18", 10, 2, "direct", width=4, seed=0).train()
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    options = {"sigma": 0.5, "selection": 4, "draws": 12}
    together = gaussian_certificate(model, images, batch_size=5, **options)
    alone = gaussian_certificate(model, images[2:], batch_size=100, **options)
    pd.testing.assert_series_equal(together.iloc[2].drop("sample"), alone.iloc[0].drop("sample"), check_names=False)
    assert model.training


def test_certified_accuracy_counts_what_is_right_and_certified():
    table = pd.DataFrame({"predicted": [1, 1, 0, -1], "radius": [0.5, 0.1, 0.9, math.nan]})
    curve = certified_accuracy(table, torch.tensor([1, 1, 1, 1]), [0.0, 0.2, 0.6])
    assert curve.certified.tolist() == [0.5, 0.25, 0.0] and curve.images.tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x: gaussian_certificate(Threshold(), x, sigma=0.0), "sigma is 0"),
        (lambda x: gaussian_certificate(Threshold(), x, sigma=0.1, alpha=1.0), "alpha is 1"),
        (lambda x: gaussian_certificate(Threshold(), x, sigma=0.1, draws=0), "draws is 0"),
        (lambda x: gaussian_certificate(Threshold(), x + 1, sigma=0.1), "values in"),
        (lambda x: poisson_certificate(nn.Flatten(), x, time_steps=2), "has no .body"),
        (lambda x: poisson_certificate(Threshold(), x, time_steps=0), "time_steps is 0"),
    ],
)
def test_bad_input_is_one_clear_line(call, words):
    with pytest.raises(InputError, match=words):
        call(torch.rand(1, 1, 4, 4))
