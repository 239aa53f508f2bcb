"""The estimate: right on a clock of its own, and the model is what it was."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from snnlib.training import cost, estimate_training_seconds, inner_attack


def test_estimate_scales_a_step_and_an_image_to_the_whole_run_when_the_clock_is_known(tiny, monkeypatch):
    clock = {"now": 0.0, "steps": 0}

    def step(*given):
        clock["steps"] += 1
        clock["now"] += 100.0 if clock["steps"] == 1 else 2.0  # the first one compiles

    def score(model, image_set, **_):
        clock["now"] += 0.5 * len(image_set)

    monkeypatch.setattr(cost, "train_step", step)
    monkeypatch.setattr(cost, "evaluate_accuracy", score)
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock["now"])
    monkeypatch.setattr(cost, "SCORED_IMAGES", 8)
    seconds = estimate_training_seconds(tiny.make_model(), tiny.make_splits(), tiny.RECIPE, batches=5)
    assert seconds == pytest.approx(4 * (4 * 2.0 + 20 * 0.5))  # 4 epochs of 4 steps and 20 validation images
    assert clock["steps"] == 6


def test_model_gradients_and_generators_are_untouched_when_estimated(tiny):
    model = tiny.make_model(noise=True).eval()
    before = copy.deepcopy(model.state_dict())
    recipe = replace(tiny.RECIPE, objective="trades", attack=inner_attack("trades", eps=0.1), batch_size=50)
    torch.manual_seed(3)
    seconds = estimate_training_seconds(model, tiny.make_splits(), recipe, batches=2)
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1)) and 0 < seconds < 60
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters()) and not model.training
