"""APGD: optimum, schedule, halving per sample, targets."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from snnlib.attacks import Budget, apgd, apgd_targeted, concatenate, pgd
from snnlib.attacks.apgd import _Climbers, checkpoints
from snnlib.attacks.session import open_session
from snnlib.attacks.starts import surface_point
from snnlib.errors import InputError

pytestmark = pytest.mark.usefixtures("unprobed")


def test_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert checkpoints(1) == [1]
    for steps in (20, 37, 400, 1000):
        marks = checkpoints(steps)
        windows = [after - before for before, after in zip([0, *marks], marks, strict=False)]
        assert windows[0] == int(0.22 * steps) and windows == sorted(windows, reverse=True)
        assert min(windows) == int(0.06 * steps) and marks[-1] <= steps


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_apgd_reaches_the_linf_optimum_when_model_is_linear(loss, sure_linear):
    toy = sure_linear
    result = apgd(toy.model, toy.images, toy.labels, Budget(0.1), loss=loss, steps=10)
    torch.testing.assert_close(result.adversarial, toy.images - 0.1 * toy.weights.sign())
    assert not result.success.any()


def test_apgd_reaches_the_l2_optimum_when_model_is_linear(sure_linear):
    toy = sure_linear
    result = apgd(toy.model, toy.images, toy.labels, Budget(0.1, norm="l2"), loss="margin", steps=60)
    optimum = toy.images - 0.1 * toy.weights / toy.weights.norm()
    best = (0.1 * toy.weights.norm() - 2.0 - (toy.images * toy.weights).flatten(1).sum(1)).tolist()
    assert result.loss.tolist() == pytest.approx(best, rel=1e-5)
    torch.testing.assert_close(result.adversarial, optimum, rtol=0, atol=2e-3)


def test_success_grows_with_the_steps_and_exceeds_that_of_pgd(toys):
    model = toys.wavy()
    images, labels = toys.images_for(model, 64, size=4)
    budget = Budget(0.08, "l2")
    found = [int(apgd(model, images, labels, budget, steps=steps).success.sum()) for steps in (1, 3, 5, 25)]
    assert found == sorted(found) and found[0] < found[1] < found[2] < 64
    assert found[-1] >= pgd(model, images, labels, budget, steps=25).success.sum()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_start_lies_on_the_surface_of_the_ball(norm, toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 5)
    images = 0.4 + 0.2 * images
    with open_session(model, images, labels, Budget(0.05, norm), None, None, "eval") as session:
        moved = surface_point(session, draw=0) - images
        again = surface_point(session, draw=1) - images
    lengths = moved.flatten(1).abs().amax(1) if norm == "linf" else moved.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.05))
    assert (moved.flatten(1).abs() == 0.05).sum(1).max() <= 1, "one pixel at most is at the bound, not all"
    assert (moved != again).all()


def climbers_of(count):
    pixels = torch.arange(float(count)).view(-1, 1)
    climbers = _Climbers.at(pixels, pixels, torch.zeros(count), step_size=0.4)
    climbers.best_x, climbers.best_slope = pixels + 100, pixels + 200
    return climbers


def test_each_sample_is_halved_by_its_own_history_when_a_checkpoint_comes():
    climbers = climbers_of(4)
    # First window of 22 steps: at most 16 rises are too few (0.75 · 22 = 16.5); the best loss plays no part yet.
    climbers.rises = torch.tensor([16.0, 17.0, 0.0, 22.0])
    climbers.best_loss = torch.tensor([1.0, 1.0, 1.0, 0.0])
    climbers.reconsider(22)
    assert climbers.step_size.tolist() == pytest.approx([0.2, 0.4, 0.2, 0.4])
    assert climbers.x.flatten().tolist() == [100.0, 1.0, 102.0, 3.0]
    assert climbers.slope.flatten().tolist() == [200.0, 1.0, 202.0, 3.0]
    assert climbers.rises.tolist() == [0, 0, 0, 0]
    # Second window of 19: all rose often, but samples 0, 1 and 3 have no new best. 0 was halved last time: spared.
    climbers.rises = torch.full((4,), 19.0)
    climbers.best_loss = torch.tensor([1.0, 1.0, 2.0, 0.0])
    climbers.reconsider(19)
    assert climbers.step_size.tolist() == pytest.approx([0.2, 0.2, 0.2, 0.2])
    # Third: still no new best. Now 0 is halved, and 1 and 3 are spared.
    climbers.rises = torch.full((4,), 16.0)
    climbers.reconsider(16)
    assert climbers.step_size.tolist() == pytest.approx([0.1, 0.2, 0.1, 0.2])


def algorithm_1(model, x0, image, label, eps, steps, norm):
    """Croce & Hein's algorithm for one sample in plain words; returns points visited, step sizes, and the best."""

    def loss_and_gradient(x):
        x = x.clone().requires_grad_()
        loss = F.cross_entropy(model(x[None]), label[None])
        return loss.item(), torch.autograd.grad(loss, x)[0]

    def projected(x):
        if norm == "linf":
            return torch.minimum(torch.maximum(x, image - eps), image + eps).clamp(0, 1)
        return (image + (x - image) * min(1.0, eps / (x - image).norm().item())).clamp(0, 1)

    x, before, eta = x0, x0, 2 * eps
    loss, gradient = loss_and_gradient(x)
    losses, best, visited, sizes = [loss], (loss, x, gradient), [x], []
    best_then, halved_then, last_mark = loss, True, 0
    for step in range(1, steps + 1):
        z = projected(x + eta * (gradient.sign() if norm == "linf" else gradient / gradient.norm()))
        share = 1.0 if step == 1 else 0.75
        before, x = x, projected(x + share * (z - x) + (1 - share) * (x - before))
        loss, gradient = loss_and_gradient(x)
        losses.append(loss)
        visited.append(x)
        sizes.append(eta)
        if loss > best[0]:
            best = (loss, x, gradient)
        if step in checkpoints(steps):
            window = step - last_mark
            rises = sum(losses[k] > losses[k - 1] for k in range(last_mark + 1, step + 1))
            no_better = not halved_then and best[0] <= best_then
            halved_then = rises <= 0.75 * window or no_better
            if halved_then:
                eta, x, gradient = eta / 2, best[1], best[2]
            best_then, last_mark = best[0], step
    return visited, sizes, best


class Recorded(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.inputs = model, []

    def forward(self, x):
        self.inputs.append(x.detach().clone())
        return self.model(x)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.015), ("l2", 0.07)])
def test_every_sample_follows_the_algorithm_on_its_own_when_all_run_together(norm, eps, toys):
    model = toys.wavy()
    images, labels = toys.images_for(model, 60, size=4)
    budget, steps = Budget(eps, norm), 40
    result = apgd(model, images, labels, budget, steps=steps)
    robust = (~result.success).nonzero().squeeze(1)[:8]
    images, labels = images[robust], labels[robust]
    recorded = Recorded(model)
    result = apgd(recorded, images, labels, budget, steps=steps)
    halvings = set()
    for sample in range(8):
        points = [x[sample] for x in recorded.inputs]
        visited, sizes, best = algorithm_1(model, points[1], images[sample], labels[sample], eps, steps, norm)
        torch.testing.assert_close(torch.stack(points[1:]), torch.stack(visited), rtol=0, atol=1e-6)
        assert result.loss[sample].item() == pytest.approx(best[0], rel=1e-6)
        torch.testing.assert_close(result.adversarial[sample], best[1], rtol=0, atol=1e-6)
        halvings.add(tuple(k for k in range(1, steps) if sizes[k] < sizes[k - 1]))
    assert norm == "linf" or len(halvings) > 2, "the samples are halved at different steps"


class Waits(TorchDispatchMode):
    """Counts the operations for which the host must wait for the device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        indices = args[1] if function.name().startswith("aten::index") and len(args) > 1 else None
        by_mask = isinstance(indices, list | tuple) and any(i is not None and i.dtype == torch.bool for i in indices)
        self.count += by_mask or function.name() in ("aten::nonzero", "aten::_local_scalar_dense")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_step_waits_for_the_device_once_when_apgd_runs(norm, toys):
    model = toys.wavy()
    images, labels = toys.images_for(model, 4, size=4)

    def waits(steps):
        with Waits() as counted:
            assert not apgd(model, images, labels, Budget(1e-4, norm), steps=steps).success.any()
        return counted.count

    assert waits(19) - waits(9) == 10


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_result_of_a_sample_is_the_same_when_batch_size_and_order_change(norm, toys):
    """The bounds of PGD's test of the same name; the L2 gradient's last bits add up over the steps."""
    model = toys.wavy()
    images, labels = toys.images_for(model, 12, size=4)
    budget = Budget(0.015 if norm == "linf" else 0.05, norm)
    whole = apgd(model, images, labels, budget, steps=12, restarts=2)
    assert whole.success.any() and not whole.success.all()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for size in (1, 5):
        parts = order.split(size)
        pieces = concatenate([apgd(model, images[i], labels[i], budget, steps=12, restarts=2) for i in parts])
        for field in ("success", "first_successful_step", "forwards", "backwards"):
            assert torch.equal(getattr(pieces, field), getattr(whole, field)[order]), field
        torch.testing.assert_close(pieces.adversarial, whole.adversarial[order], rtol=0, atol=1e-6)


def test_passes_are_those_promised_when_nobody_is_fooled(sure_linear):
    toy = sure_linear
    result = apgd(toy.model, toy.images, toy.labels, Budget(0.01), steps=7, restarts=2)
    assert (result.forwards == 1 + 2 * 8).all() and (result.backwards == 2 * 7).all()
    assert (result.first_successful_step == -1).all()


@pytest.mark.parametrize("batch_norm", ["train", "train-and-keep"])
def test_best_point_under_attack_is_scored_in_eval_when_batch_norm_trains(batch_norm, toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 10)
    recorded = Recorded(model)
    result = apgd(recorded, images, labels, Budget(0.02), steps=6, batch_norm=batch_norm)
    assert (result.forwards == 8).all() and (result.backwards == 7).all()
    frozen = copy.deepcopy(model).eval()
    assert torch.equal(result.success, frozen(result.adversarial).argmax(1) != labels)
    visited = torch.stack(recorded.inputs[:7])
    assert (visited == result.adversarial).flatten(2).all(2).any(0).all(), "each sample's point is one that was visited"
    assert (result.linf > 0.01).all()


class PerClass(nn.Module):
    """Four classes whose logits are given functions of the first pixel."""

    def __init__(self, *functions):
        super().__init__()
        self.functions = functions

    def forward(self, x):
        return torch.stack([function(x.flatten(1)[:, 0]) for function in self.functions], 1)


def test_third_class_is_reached_when_the_strongest_wrong_one_is_a_dead_end():
    # Label 0. Class 1 is close behind everywhere and pulls towards brighter pixels, class 2 overtakes in the dark.
    model = PerClass(
        lambda p: 1.0 + 0 * p, lambda p: 0.8 + 0.1 * p, lambda p: 4.0 * (0.5 - p), lambda p: -5.0 - 0.1 * p
    )
    images, labels = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    budget = Budget(0.3)
    seeds = range(6)

    def run(seed, **options):
        generator = torch.Generator().manual_seed(seed)
        return apgd_targeted(model, images, labels, budget, steps=10, generator=generator, **options)

    alone = [run(seed, targets=1) for seed in seeds]
    all_wrong = [run(seed) for seed in seeds]
    missed = [seed for seed in seeds if not alone[seed].success.item()]
    assert missed, "from some start the strongest wrong class leads nowhere"
    for seed in seeds:
        assert all_wrong[seed].success.item()
        if seed in missed:
            assert 10 < all_wrong[seed].first_successful_step.item() <= 20 and all_wrong[seed].adversarial.item() < 0.25
            assert alone[seed].adversarial.item() == pytest.approx(0.8)


def test_targets_are_as_many_as_asked_for_and_no_more_than_there_are(toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 4)
    for targets, runs in ((1, 1), (2, 2), (9, 3)):
        result = apgd_targeted(model, images, labels, Budget(1e-6), steps=3, targets=targets)
        assert (result.forwards == 1 + runs * 4).all() and (result.backwards == runs * 3).all()
    fixed = apgd_targeted(model, images, labels, Budget(1e-6), steps=3, batch_norm="train")
    assert (fixed.backwards == 4).all(), "one start, aimed at the strongest wrong class"


REFUSED = [
    ({"steps": 0}, "steps is 0"),
    ({"steps": 1.5}, "steps is 1.5"),
    ({"eot": 0}, "eot is 0"),
    ({"loss": "hinge"}, "loss is 'hinge'; expected one of ce, margin, dlr, targeted_dlr, targeted_margin, kl"),
    ({"gradient": "atan"}, "gradient is 'atan'"),
]
REFUSED_BY = [
    *((attack, *case) for attack in (apgd, apgd_targeted) for case in REFUSED),
    (apgd, {"restarts": 0}, "restarts is 0"),
    (apgd, {"restarts": 2, "batch_norm": "train"}, 'restarts is 2 with batch_norm="train"'),
    (apgd_targeted, {"targets": 0}, "targets is 0"),
]


@pytest.mark.parametrize(("attack", "options", "message"), REFUSED_BY)
def test_apgd_refuses_in_one_line_when_a_parameter_does_not_fit(attack, options, message, sure_linear):
    with pytest.raises(InputError) as error:
        attack(sure_linear.model, sure_linear.images, sure_linear.labels, Budget(0.1), **options)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
