"""PGD: optimum, bookkeeping per sample, restarts."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from snnlib.attacks import Budget, concatenate, fgsm, pgd, random_noise
from snnlib.attacks.keyed_noise import KeyedNoise
from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.neurons import compilations

pytestmark = pytest.mark.usefixtures("unprobed")


@pytest.mark.parametrize("start", ["none", "uniform", "gaussian"])
def test_pgd_reaches_the_linf_optimum_when_model_is_linear(start, sure_linear):
    toy = sure_linear
    result = pgd(toy.model, toy.images, toy.labels, Budget(0.1), start=start)
    torch.testing.assert_close(result.adversarial, toy.images - 0.1 * toy.weights.sign())


def test_pgd_reaches_the_l2_optimum_when_model_is_linear(sure_linear):
    toy, budget = sure_linear, Budget(0.1, norm="l2")
    optimum = toy.images - 0.1 * toy.weights / toy.weights.norm()
    without = pgd(toy.model, toy.images, toy.labels, budget, start="none")
    torch.testing.assert_close(without.adversarial, optimum)
    # From a random start the sideways part shrinks by about 1/1.25 a step, until float32 sees no gain.
    with_start = pgd(toy.model, toy.images, toy.labels, budget, steps=60, step_size=0.025)
    torch.testing.assert_close(with_start.adversarial, optimum, rtol=0, atol=1e-3)
    torch.testing.assert_close(with_start.loss, without.loss)


def test_each_sample_leaves_at_its_own_step_when_it_is_fooled(toys):
    # One pixel, right while above 0.5, lowered by 0.05 a step.
    model = toys.Counting(toys.Linear(torch.ones(1, 1, 1), -0.5))
    images = torch.tensor([0.4, 0.52, 0.62, 0.9]).view(4, 1, 1, 1)
    labels = torch.ones(4, dtype=torch.int64)
    result = pgd(model, images, labels, Budget(0.2), steps=4, step_size=0.05, start="none")
    assert result.first_successful_step.tolist() == [0, 1, 3, -1]
    assert result.success.tolist() == [True, True, True, False]
    torch.testing.assert_close(result.adversarial.flatten(), torch.tensor([0.4, 0.47, 0.47, 0.7]))
    torch.testing.assert_close(result.linf, torch.tensor([0.0, 0.05, 0.15, 0.2]))
    torch.testing.assert_close(result.loss, torch.nn.functional.softplus(0.5 - result.adversarial.flatten()))
    assert result.forwards.tolist() == [1, 2, 4, 5]
    assert result.backwards.tolist() == [0, 1, 3, 4]
    assert model.samples == 12


def test_random_start_counts_as_part_of_the_first_step_when_it_fools(toys):
    model = toys.Linear(torch.ones(1, 1, 1), -0.5)
    images, labels = torch.full((40, 1, 1, 1), 0.501), torch.ones(40, dtype=torch.int64)
    images += torch.linspace(0, 1e-3, 40).view(-1, 1, 1, 1)
    result = pgd(model, images, labels, Budget(0.1), steps=1, step_size=0.05)
    by_start = result.backwards == 0
    assert by_start.any() and not by_start.all()
    assert (result.first_successful_step[by_start] == 1).all() and (result.forwards[by_start] == 2).all()


def test_best_iterate_is_returned_when_later_ones_have_lower_loss(toys):
    class Bowl(torch.nn.Module):
        """Loss rises up to a distance of 0.1 from 0.3 and falls beyond; never fooled."""

        def forward(self, x):
            score = 3 + (x.flatten(1).sum(1) - 0.4).abs() * 10
            return torch.stack([torch.zeros_like(score), score], 1)

    images = torch.full((1, 1, 1, 1), 0.3)
    # 0.3 → 0.38 → 0.46 → 0.38 ...: the best visited is 0.38, whichever comes last.
    for steps in (1, 2, 3, 4):
        result = pgd(
            Bowl(), images, torch.tensor([1]), Budget(0.3), steps=steps, step_size=0.08, start="none"
        )
        assert result.adversarial.item() == pytest.approx(0.38)
        assert result.loss.item() == pytest.approx(math.log1p(math.exp(-3.2)), rel=1e-5)


@pytest.mark.parametrize("start", ["uniform", "gaussian", "none"])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_every_sample_makes_every_step_and_ends_at_its_last_when_nobody_may_leave(loss, start, toys):
    model = toys.wavy()
    images, labels = toys.images_for(model, 12, size=4)
    labels[:4] = (labels[:4] + 1) % 4
    recorded = toys.Counting(model)
    result = pgd(
        recorded, images, labels, Budget(0.03), steps=7, step_size=0.01, start=start, loss=loss, early_stop=False
    )
    noise = KeyedNoise(images, None).generators(torch.arange(12), 0)
    x = images
    if start == "uniform":
        x = images + torch.stack([0.03 * (2 * torch.rand(2, 4, 4, dtype=x.dtype, generator=g) - 1) for g in noise])
    if start == "gaussian":
        x = images + 0.001 * torch.stack([torch.randn(2, 4, 4, dtype=x.dtype, generator=g) for g in noise])
    x = x.clamp(0, 1)
    for _ in range(7):
        x = x.detach().requires_grad_()
        logits = model(x)
        own = logits.gather(1, labels.view(-1, 1))[:, 0]
        rival = logits.masked_fill(torch.nn.functional.one_hot(labels, 4).bool(), -torch.inf).amax(1)
        objective = {"ce": logits.logsumexp(1) - own, "margin": rival - own}[loss]
        x = (x + 0.01 * torch.autograd.grad(objective.sum(), x)[0].sign()).detach()
        x = (images + (x - images).clamp(-0.03, 0.03)).clamp(0, 1)
    torch.testing.assert_close(result.adversarial, x, rtol=0, atol=1e-12)
    wrong = model(x).argmax(1) != labels
    assert torch.equal(result.success, wrong) and wrong.any()
    assert torch.equal(result.first_successful_step, torch.where(wrong, 7, -1))
    assert (result.forwards == 8).all() and (result.backwards == 7).all() and recorded.samples == 12 * 8


def test_divergence_from_the_clean_output_grows_where_trades_looks_for_it(toys):
    model = toys.wavy()
    images, labels = toys.images_for(model, 24, size=4)
    options = {"loss": "kl", "start": "gaussian", "early_stop": False}
    short, long = (pgd(model, images, labels, Budget(0.02), steps=k, step_size=0.005, **options) for k in (1, 8))
    clean, moved = model(images).softmax(1), model(long.adversarial).softmax(1)
    expected = (clean * (clean.log() - moved.log())).sum(1)
    torch.testing.assert_close(long.loss, expected.detach())
    assert long.loss.mean() > 2 * short.loss.mean() > 0
    swapped = pgd(model, images, (labels + 1) % 4, Budget(0.02), steps=8, step_size=0.005, **options)
    assert torch.equal(swapped.adversarial, long.adversarial), "the labels play no part"


def test_compiled_neurons_are_not_compiled_again_when_the_batch_shrinks():
    model = build_model("sew_resnet18", 4, 3, encoder="direct", pool="avg", width=4, threshold=0.3, seed=1)
    images = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = model.train()(images).argmax(1)
        labels = model.eval()(images).argmax(1)
    sizes = set()
    hook = model.body.fc.register_forward_pre_hook(lambda layer, inputs: sizes.add(len(inputs[0]) // 3))
    pgd(model, images, labels, Budget(1e-5), steps=1)
    before = compilations()
    result = pgd(model, images, labels, Budget(0.03), steps=6, step_size=0.002)
    hook.remove()
    assert len(sizes) >= 4 and result.success.any(), "the batch did shrink, step by step"
    assert compilations() == before


class OnePixel(torch.nn.Module):
    """Logits of three classes as a function of the first pixel."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return torch.stack(self.function(x.flatten(1)[:, 0]), 1)


def test_fooling_point_is_returned_when_an_earlier_one_had_a_higher_loss():
    # Class 0 has 0.33 of the probability while it wins by a hair, and 0.45 where it loses to class 1.
    def logits(pixel):
        moved = pixel < 0.45
        first = torch.where(moved, 2.0, 0.01) + 0.001 * pixel
        return first, torch.where(moved, 2.2, 0.0), torch.where(moved, -9.0, 0.0)

    images = torch.full((1, 1, 1, 1), 0.5)
    result = pgd(OnePixel(logits), images, torch.tensor([0]), Budget(0.1), steps=1, start="none")
    assert result.success.item() and result.adversarial.item() == pytest.approx(0.4)
    assert result.loss.item() == pytest.approx(0.8, abs=0.02)


def test_zero_gradient_speaks_of_the_first_gradient_when_later_ones_vanish():
    def logits(pixel):
        return 3 + (pixel - 0.45).relu(), 0 * pixel, 0 * pixel

    images = torch.tensor([0.5, 0.4]).view(2, 1, 1, 1)
    options = {"steps": 3, "step_size": 0.08, "start": "none"}
    result = pgd(OnePixel(logits), images, torch.tensor([0, 0]), Budget(0.2), **options)
    assert result.zero_gradient.tolist() == [False, True] and result.backwards.tolist() == [3, 3]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nothing_changes_when_eps_is_zero(norm, toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 4)
    for attack in (fgsm, pgd):
        result = attack(model, images, labels, Budget(0, norm))
        assert torch.equal(result.adversarial, images)
        assert not result.success.any() and (result.linf == 0).all() and (result.l2 == 0).all()


def test_success_never_shrinks_when_steps_restarts_or_eps_grow(toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 24)

    def success(eps=0.015, **options):
        return pgd(model, images, labels, Budget(eps), step_size=0.004, **options).success

    for weaker, stronger in (
        (success(steps=1), success(steps=3)),
        (success(steps=3), success(steps=10)),
        (success(steps=1), success(steps=1, restarts=6)),
    ):
        assert (stronger >= weaker).all()
    assert success(steps=1).sum() < success(steps=10).sum()
    assert success(eps=1.0, steps=200).all()


def test_pgd_is_a_random_search_and_says_so_when_gradient_is_exactly_zero(toys):
    images = 0.5 + 0.01 * torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.ones(60, dtype=torch.int64)
    generator = torch.Generator().manual_seed(5)
    blind = pgd(toys.Blind(), images, labels, Budget(0.02), steps=2, restarts=3, generator=generator)
    noise = random_noise(toys.Blind(), images, labels, Budget(0.02), draws=3, generator=generator)
    assert torch.equal(blind.success, noise.success) and noise.success.any() and not noise.success.all()
    assert torch.equal(blind.adversarial[blind.success], noise.adversarial[blind.success])
    attacked = blind.backwards > 0
    assert blind.zero_gradient[attacked].all() and not blind.zero_gradient[~attacked].any()
    assert not noise.zero_gradient.any() and (noise.backwards == 0).all()


def test_restart_runs_only_on_those_left_and_counts_steps_on_when_others_were_fooled(toys):
    model = toys.Counting(toys.Blind())
    images = 0.5 + 0.01 * torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    result = pgd(model, images, torch.ones(60, dtype=torch.int64), Budget(0.02), steps=2, restarts=3)
    # The start fools or nothing does: at step 1, 3 or 5, after 2, 5 or 8 passes; a failed restart costs 3.
    forwards = {1: 2, 3: 5, 5: 8, -1: 10}
    steps = result.first_successful_step.tolist()
    assert set(steps) == set(forwards)
    assert result.forwards.tolist() == [forwards[step] for step in steps]
    assert model.samples == result.forwards.sum()


class Waits(TorchDispatchMode):
    """Counts the operations for which the host must wait for the device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        indices = args[1] if function.name().startswith("aten::index") and len(args) > 1 else None
        by_mask = isinstance(indices, list | tuple) and any(
            i is not None and i.dtype == torch.bool for i in indices
        )
        self.count += by_mask or function.name() in ("aten::nonzero", "aten::_local_scalar_dense")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_step_waits_for_the_device_once_when_pgd_runs(norm, toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 4)

    def waits(steps):
        with Waits() as counted:
            result = pgd(model, images, labels, Budget(1e-4, norm), steps=steps)
        assert not result.success.any()
        return counted.count

    assert waits(9) - waits(4) == 5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_result_of_a_sample_is_the_same_when_batch_size_and_order_change(norm, toys):
    """Matrix products may differ in the last bit between batch sizes, hence float64. In "linf" only the signs
    of the gradient enter the iterates, and no entry lies within 1e-16 of a change of sign, so bits are equal;
    in "l2" the gradient itself enters, so the points have a tolerance, but flags and counts have none."""
    model = toys.convolutional()
    images, labels = toys.images_for(model, 12)
    budget = Budget(0.02 if norm == "linf" else 0.15, norm)

    def attack(positions):
        generator = torch.Generator().manual_seed(1)
        return pgd(
            model, images[positions], labels[positions], budget, steps=4, restarts=2, generator=generator
        )

    whole = attack(torch.arange(12))
    assert whole.success.any() and not whole.success.all()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for size in (1, 5):
        pieces = concatenate([attack(positions) for positions in order.split(size)])
        for field in ("success", "first_successful_step", "forwards", "backwards", "zero_gradient"):
            assert torch.equal(getattr(pieces, field), getattr(whole, field)[order]), field
        tolerance = 0 if norm == "linf" else 1e-9
        torch.testing.assert_close(pieces.adversarial, whole.adversarial[order], rtol=0, atol=tolerance)
        torch.testing.assert_close(pieces.loss, whole.loss[order], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_stay_in_ball_and_box_when_images_touch_the_borders(norm, toys):
    model = toys.convolutional(torch.float32)
    images, labels = toys.images_for(model, 16, torch.float32)
    images = images.round()
    budget = Budget(0.05 if norm == "linf" else 0.5, norm)
    result = pgd(model, images, labels, budget, restarts=2)
    assert result.adversarial.min() >= 0 and result.adversarial.max() <= 1
    lengths = result.linf if norm == "linf" else result.l2
    assert lengths.max() <= budget.eps + 1e-6
    assert lengths[result.first_successful_step != 0].max() > 0.5 * budget.eps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"restarts": 0}, "restarts is 0"),
        ({"step_size": -1.0}, "step_size is -1.0"),
        ({"step_size": float("inf")}, "step_size is inf"),
        ({"restarts": 2, "start": "none"}, "restarts is 2 without a random start"),
        ({"restarts": 2, "batch_norm": "train"}, 'restarts is 2 with batch_norm="train"'),
        ({"restarts": 2, "early_stop": False}, "restarts is 2 with early_stop=False"),
        ({"loss": "hinge"}, "loss is 'hinge'; expected one of ce, margin, dlr, targeted_dlr, targeted_margin, kl"),
        ({"start": "corner"}, "start is 'corner'; expected one of uniform, gaussian, none"),
        ({"start": True}, "start is True; expected one of"),
        ({"start": "none", "loss": "kl"}, "loss 'kl' has no gradient at the clean sample"),
        ({"early_stop": "no"}, "early_stop is 'no'; expected True or False"),
        ({"eot": 0}, "eot is 0"),
    ],
)
def test_pgd_refuses_in_one_line_when_a_parameter_does_not_fit(options, message, sure_linear):
    with pytest.raises(InputError) as error:
        pgd(sure_linear.model, sure_linear.images, sure_linear.labels, Budget(0.1), **options)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
