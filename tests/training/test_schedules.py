"""Schedules against closed forms and PyTorch's own."""

from __future__ import annotations

import math

import pytest
import torch

from snnlib.training.schedules import SCHEDULES, constant, cosine, factor_at, one_cycle


def test_constant_is_one_when_asked_anywhere():
    assert {constant(step, 10) for step in range(10)} == {1.0}


def test_cosine_has_its_closed_form_when_total_is_eight():
    assert [cosine(step, 8) for step in (0, 2, 4, 6)] == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )
    assert 0 < cosine(7, 8) < cosine(6, 8)


def test_one_cycle_starts_peaks_and_ends_at_its_closed_form_when_total_is_twenty():
    factors = [one_cycle(step, 20) for step in range(20)]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[5] == max(factors) == 1.0  # 0.3 · 20 − 1
    assert factors[12] == pytest.approx((1 + 4e-6) / 2)  # half-way from step 5 to step 19
    assert factors[19] == pytest.approx(4e-6)


@pytest.mark.parametrize("total", [4, 7, 100])
def test_one_cycle_gives_the_numbers_of_pytorch_when_its_defaults_are_used(total):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.0, total_steps=total, cycle_momentum=False)
    for step in range(total):
        assert one_cycle(step, total) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimiser.step()
        if step < total - 1:
            theirs.step()


@pytest.mark.parametrize("total", [1, 2, 3])
def test_one_cycle_only_falls_when_there_are_few_steps(total):
    factors = [one_cycle(step, total) for step in range(total)]
    assert factors[0] == 1.0 and factors == sorted(factors, reverse=True)


def test_cosine_per_epoch_gives_the_numbers_of_pytorch_when_stepped_once_an_epoch():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=6)
    for epoch in range(1, 7):
        factors = {factor_at("cosine-per-epoch", epoch, step, epochs=6, per_epoch=7) for step in range(1, 8)}
        assert len(factors) == 1 and factors.pop() == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimiser.step()
        theirs.step()


@pytest.mark.parametrize("name", ["constant", "cosine", "one-cycle"])
def test_other_schedules_count_batches_when_asked_for_a_factor(name):
    for epoch, step in ((1, 1), (1, 7), (3, 2), (6, 7)):
        assert factor_at(name, epoch, step, epochs=6, per_epoch=7) == SCHEDULES[name]((epoch - 1) * 7 + step - 1, 42)
