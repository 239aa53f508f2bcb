"""The two contenders do the same attack; what differs is counted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.attacks import Budget, pgd
from snnlib.bench.attacks import bench_pgd, plain_pgd, random_starts
from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.neurons import use_kernel


@pytest.fixture(scope="module")
def attacked():
    """A small SNN with running statistics, images, and its own answers as labels, four of them wrong."""
    with use_kernel("reference"):
        model = build_model("sew_resnet18", 4, 3, encoder="direct", pool="avg", width=4, threshold=0.3, seed=1)
        images = torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            for _ in range(5):
                model.train()(images)
            labels = model.eval()(images).argmax(1)
        labels[:4] = (labels[:4] + 1) % 4
        yield model, images, labels


def test_plain_loop_ends_where_pgd_ends_when_nobody_may_leave(attacked):
    model, images, labels = attacked
    budget = Budget(4 / 255)
    last = plain_pgd(model, images, labels, random_starts(images, budget), budget, steps=3)
    ours = pgd(model, images, labels, budget, steps=3, early_stop=False)
    # Weight gradients and time steps of the first layer change the order of sums, and so the sign of an entry near 0.
    assert (last - ours.adversarial).abs().gt(1e-6).double().mean() < 0.01


def test_plain_loop_leaves_the_model_as_it_was(attacked):
    model, images, labels = attacked
    model.train()
    weight = model.body.fc.weight
    weight.grad = torch.ones_like(weight)
    plain_pgd(model, images, labels, images, Budget(4 / 255), steps=1)
    assert model.training and (weight.grad == 1).all() and model.body.conv1.weight.grad is None
    weight.grad = None
    model.eval()


def test_both_rows_say_what_they_did_when_benchmarked(attacked):
    model, images, labels = attacked
    table = bench_pgd(model, images, labels, eps=4 / 255, steps=3, batch_size=8, rounds=2, warm_up=0)
    ours, plain = table.to_dict("records")
    assert [ours["contender"], plain["contender"]] == ["snnlib", "plain loop"]
    assert ours["times_snnlib"] == 1 and plain["times_snnlib"] == plain["best_ms"] / ours["best_ms"]
    assert set(table["work"]) == {"PGD-3 at 4/255"} and set(table["samples"]) == {20}
    assert (plain["forwards"], plain["backwards"]) == (4, 3)
    found = pgd(model, images, labels, Budget(4 / 255), steps=3)
    assert ours["forwards"] == found.forwards.double().mean().item() < 5
    assert ours["robust_accuracy"] == 100 * (~found.success).double().mean().item()
    assert ours["robust_accuracy"] <= plain["robust_accuracy"] and ours["backwards"] < plain["backwards"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rounds": 0}, "rounds is 0"),
        ({"eps": -1}, "eps is -1"),
        ({"model": nn.Flatten()}, "Flatten has no .encoder and .body; expected a model of build_model"),
    ],
)
def test_bench_refuses_in_one_line_when_an_argument_does_not_fit(change, message, attacked):
    model, images, labels = attacked
    with pytest.raises(InputError) as error:
        bench_pgd(**({"model": model, "images": images, "labels": labels} | change))
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
