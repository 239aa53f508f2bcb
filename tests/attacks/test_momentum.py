"""MI-FGSM and SA-PGD: against plain loops, and by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snnlib.attacks import Budget, concatenate, mi_fgsm, pgd, sa_pgd
from snnlib.attacks.apgd import checkpoints
from snnlib.attacks.momentum import unit_mean
from snnlib.errors import InputError

pytestmark = pytest.mark.usefixtures("unprobed")


class Recorded(nn.Module):
    """Keeps the points that it was asked about."""

    def __init__(self, model):
        super().__init__()
        self.model, self.inputs = model, []

    def forward(self, x):
        self.inputs.append(x.detach().clone())
        return self.model(x)


def robust_ones(attack, model, images, labels, budget, count=6, **options):
    keep = (~attack(model, images, labels, budget, **options).success).nonzero().squeeze(1)[:count]
    assert len(keep) == count
    return images[keep], labels[keep]


def gradient_of(model, x, labels):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), labels, reduction="sum"), x)[0]


@pytest.mark.parametrize("attack", [mi_fgsm, sa_pgd])
def test_linf_optimum_is_reached_when_model_is_linear(attack, sure_linear):
    toy = sure_linear
    # A pixel with a small weight makes small steps in SA-PGD: what counts is the loss.
    result = attack(toy.model, toy.images, toy.labels, Budget(0.1), loss="margin")
    optimum = toy.images - 0.1 * toy.weights.sign()
    best = toy.model(optimum)
    torch.testing.assert_close(result.loss, best[:, 0] - best[:, 1])
    torch.testing.assert_close(result.adversarial, optimum, rtol=0, atol=1e-6)


def test_mi_fgsm_reaches_the_l2_optimum_when_model_is_linear(sure_linear):
    toy = sure_linear
    result = mi_fgsm(toy.model, toy.images, toy.labels, Budget(0.1, "l2"))
    torch.testing.assert_close(result.adversarial, toy.images - 0.1 * toy.weights / toy.weights.norm())


@pytest.mark.parametrize(("step_size", "decay"), [(None, 1.0), (0.02 / 16, 0.6)])
def test_mi_fgsm_equals_a_plain_loop_when_nobody_is_fooled(step_size, decay, toys):
    model, budget, steps = toys.wavy(), Budget(0.02), 10
    options = {"steps": steps, "step_size": step_size, "decay": decay}
    images, labels = robust_ones(mi_fgsm, model, *toys.images_for(model, 60, size=4), budget, **options)
    recorded = Recorded(model)
    result = mi_fgsm(recorded, images, labels, budget, **options)
    x, momentum, visited = images, torch.zeros_like(images), [images]
    for _ in range(steps):
        gradient = gradient_of(model, x, labels)
        momentum = decay * momentum + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        x = x + (budget.eps / steps if step_size is None else step_size) * momentum.sign()
        x = torch.minimum(torch.maximum(x, images - budget.eps), images + budget.eps).clamp(0, 1)
        visited.append(x)
    torch.testing.assert_close(torch.stack(recorded.inputs), torch.stack(visited), rtol=0, atol=1e-12)
    assert (result.forwards == steps + 1).all() and (result.backwards == steps).all()


def test_mi_fgsm_keeps_going_where_pgd_turns_back_when_the_slope_changes_sign():
    class Ditch(nn.Module):
        """One pixel, right everywhere; darker is better for the attacker, but for the way from 0.48 to 0.44."""

        def forward(self, x):
            pixel = x.flatten(1)[:, 0]
            return torch.stack([3 + 30 * pixel - 60 * (pixel - 0.44).clamp(0, 0.04), 0 * pixel], 1)

    images, labels = torch.full((1, 1, 1, 1), 0.55, dtype=torch.float64), torch.tensor([0])
    options = {"steps": 10, "step_size": 0.018, "start": "none", "loss": "margin"}
    # 0.55 → 0.496 in three steps; by then the momentum outlasts three steps of the wrong sign.
    assert mi_fgsm(Ditch(), images, labels, Budget(0.3), **options).adversarial.item() == pytest.approx(0.37)
    assert pgd(Ditch(), images, labels, Budget(0.3), **options).adversarial.item() == pytest.approx(0.478)


def test_sa_pgd_equals_a_plain_loop_when_nobody_is_fooled(toys):
    model, budget, steps = toys.wavy(), Budget(0.015), 30
    images, labels = robust_ones(sa_pgd, model, *toys.images_for(model, 60, size=4), budget, steps=steps)
    recorded = Recorded(model)
    result = sa_pgd(recorded, images, labels, budget, steps=steps)
    clean, x, *_ = recorded.inputs
    assert torch.equal(clean, images)
    torch.testing.assert_close((x - images).abs().amax((1, 2, 3)), torch.full((6,), 0.015, dtype=x.dtype))
    m = v = torch.zeros_like(x)
    eta, visited, halved_after = 0.015, [x], []
    interval = next_halving = int(0.22 * steps)
    for step in range(1, steps + 1):
        gradient = gradient_of(model, x, labels)
        m = 0.5 * m + gradient / gradient.abs().mean((1, 2, 3), keepdim=True)
        v = 0.8 * v + gradient**2 / (gradient**2).mean((1, 2, 3), keepdim=True)
        x = x + (eta * m / (v.sqrt() + 1e-12)).clamp(-eta, eta)
        x = torch.minimum(torch.maximum(x, images - 0.015), images + 0.015).clamp(0, 1)
        visited.append(x)
        if step == next_halving:
            eta /= 2
            halved_after.append(step)
            interval = max(interval - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
            next_halving += interval
    torch.testing.assert_close(torch.stack(recorded.inputs[1:]), torch.stack(visited), rtol=0, atol=1e-9)
    assert halved_after == checkpoints(steps)
    assert (result.forwards == steps + 2).all() and (result.backwards == steps).all()


class Alternating(nn.Module):
    """One pixel, always right; the slope of the margin is ±1 by turns, at first towards the middle."""

    def __init__(self):
        super().__init__()
        self.calls, self.points = 0, []

    def forward(self, x):
        pixel = x.flatten(1)[:, 0]
        self.calls += 1
        self.points.append(pixel.item())
        if self.calls == 2:  # the first call scores the clean image
            self.inwards = 0.5 - pixel.detach()
        slope = self.inwards.sign() * (-1) ** self.calls if self.calls > 1 else 1.0
        return torch.stack([slope * pixel - 9, 0 * pixel], 1)


def test_sa_pgd_halves_after_the_steps_of_the_source_when_there_are_100():
    model, image = Alternating(), torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    sa_pgd(model, image, torch.tensor([1]), Budget(0.25), loss="margin")
    moves = [abs(after - before) for before, after in zip(model.points[1:], model.points[2:], strict=False)]
    assert len(moves) == 100
    m = v = 0.0
    eta = []
    for step, move in enumerate(moves):
        m, v = 0.5 * m + (-1) ** step, 0.8 * v + 1
        eta.append(move * v**0.5 / abs(m))
    assert eta[0] == pytest.approx(0.25)
    assert [k for k in range(1, 100) if eta[k] < 0.75 * eta[k - 1]] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert eta[-1] == pytest.approx(0.25 / 2**8)


def test_unit_mean_keeps_the_direction_when_the_gradient_has_any_scale():
    gradient = torch.tensor([[3.0, -1.0], [3e-38, -1e-38], [3e30, -1e30], [0.0, 0.0]])
    expected = torch.tensor([[1.5, -0.5], [1.5, -0.5], [1.5, -0.5], [0.0, 0.0]])
    torch.testing.assert_close(unit_mean(gradient), expected, rtol=1e-5, atol=0)
    assert torch.equal(unit_mean(gradient.view(4, 1, 2, 1)).flatten(1), unit_mean(gradient))


@pytest.mark.parametrize("attack", [mi_fgsm, sa_pgd])
def test_blind_model_moves_nowhere_and_is_reported_when_the_gradient_is_zero(attack, toys):
    images = 0.52 + 0.01 * torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    result = attack(toys.Blind(), images, torch.ones(6, dtype=torch.int64), Budget(0.001), steps=3)
    assert result.zero_gradient.all() and not result.success.any()
    assert torch.equal(result.adversarial, images) == (attack is mi_fgsm), "SA-PGD has its start"


@pytest.mark.parametrize("attack", [mi_fgsm, sa_pgd])
def test_result_of_a_sample_is_the_same_when_batch_size_and_order_change(attack, toys):
    model = toys.wavy()
    images, labels = toys.images_for(model, 12, size=4)
    whole = attack(model, images, labels, Budget(0.015), steps=8)
    assert whole.success.any() and not whole.success.all()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for size in (1, 5):
        pieces = concatenate([attack(model, images[i], labels[i], Budget(0.015), steps=8) for i in order.split(size)])
        for field in ("success", "first_successful_step", "forwards", "backwards"):
            assert torch.equal(getattr(pieces, field), getattr(whole, field)[order]), field
        torch.testing.assert_close(pieces.adversarial, whole.adversarial[order], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (mi_fgsm, {"steps": 0}, "steps is 0"),
        (mi_fgsm, {"decay": -0.5}, "decay is -0.5; expected a number in 0.."),
        (mi_fgsm, {"decay": float("nan")}, "decay is nan"),
        (mi_fgsm, {"step_size": -0.1}, "step_size is -0.1"),
        (mi_fgsm, {"start": "centre"}, "start is 'centre'; expected one of uniform, gaussian, none"),
        (mi_fgsm, {"loss": "kl"}, "loss 'kl' has no gradient at the clean sample"),
        (mi_fgsm, {"loss": "hinge"}, "loss is 'hinge'"),
        (sa_pgd, {"steps": 0}, "steps is 0"),
        (sa_pgd, {"restarts": 0}, "restarts is 0"),
        (sa_pgd, {"restarts": 2, "batch_norm": "train"}, 'restarts is 2 with batch_norm="train"'),
        (sa_pgd, {"budget": Budget(0.1, "l2")}, "norm is 'l2'; sa_pgd is defined for 'linf' alone; use apgd"),
    ],
)
def test_attack_refuses_in_one_line_when_a_parameter_does_not_fit(attack, options, message, sure_linear):
    with pytest.raises(InputError) as error:
        attack(sure_linear.model, sure_linear.images, sure_linear.labels, **({"budget": Budget(0.1)} | options))
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
