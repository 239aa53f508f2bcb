"""FGSM and R-FGSM."""

from __future__ import annotations

import pytest
import torch

from snnlib.attacks import Budget, fgsm, r_fgsm
from snnlib.attacks.budget import unit_length
from snnlib.attacks.keyed_noise import KeyedNoise
from snnlib.errors import InputError

pytestmark = pytest.mark.usefixtures("unprobed")


def test_fgsm_reaches_the_optimum_when_model_is_linear(sure_linear):
    toy = sure_linear
    result = fgsm(toy.model, toy.images, toy.labels, Budget(0.1))
    torch.testing.assert_close(result.adversarial, toy.images - 0.1 * toy.weights.sign())
    torch.testing.assert_close(result.linf, torch.full_like(result.linf, 0.1))
    assert result.success.tolist() == [False] * len(toy.images)
    assert (result.first_successful_step == -1).all()
    assert (result.forwards == 2).all() and (result.backwards == 1).all()


def test_l2_fgsm_reaches_the_optimum_when_model_is_linear(sure_linear):
    toy = sure_linear
    result = fgsm(toy.model, toy.images, toy.labels, Budget(0.1, norm="l2"))
    torch.testing.assert_close(result.adversarial, toy.images - 0.1 * toy.weights / toy.weights.norm())
    torch.testing.assert_close(result.l2, torch.full_like(result.l2, 0.1))


def test_fgsm_clips_to_the_box_when_image_is_at_its_border(toys):
    images = torch.tensor([[[[0.02, 0.98]]]])
    result = fgsm(toys.Linear(torch.tensor([[[1.0, -1.0]]]), 5.0), images, torch.tensor([1]), Budget(0.1))
    assert result.adversarial.flatten().tolist() == [0.0, 1.0]
    assert result.linf.item() == pytest.approx(0.02)
    assert result.l2.item() == pytest.approx(0.02 * 2**0.5)


def test_fgsm_equals_plain_autograd_when_net_is_nonlinear(toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 24)
    result = fgsm(model, images, labels, Budget(0.03))
    x = images.clone().requires_grad_(True)
    torch.nn.functional.cross_entropy(model.eval()(x), labels).backward()
    expected = (images + 0.03 * x.grad.sign()).clamp(0, 1)
    torch.testing.assert_close(result.adversarial, expected)
    with torch.no_grad():
        logits = model(expected)
    assert torch.equal(result.success, logits.argmax(1) != labels)
    expected_loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(result.loss, expected_loss)
    assert result.success.any() and not result.success.all()


def test_misclassified_sample_stays_as_it_is_and_costs_one_forward_when_attacked(toys):
    model = toys.Counting(toys.Linear(torch.ones(1, 1, 1), -0.5))
    images = torch.tensor([0.2, 0.6]).view(2, 1, 1, 1)
    for attack, forwards in ((fgsm, [1, 2]), (r_fgsm, [1, 3])):
        model.samples = 0
        result = attack(model, images, torch.tensor([1, 1]), Budget(0.2))
        assert result.first_successful_step.tolist() == [0, 1]
        assert result.forwards.tolist() == forwards and model.samples == sum(forwards)
        assert result.backwards.tolist() == [0, 1]
        assert result.linf[0] == 0 and result.success.tolist() == [True, True]


@pytest.mark.parametrize("attack", [fgsm, r_fgsm])
def test_single_step_returns_clean_batch_when_all_are_misclassified(attack, toys):
    images = torch.full((3, 1, 1, 1), 0.2)
    result = attack(
        toys.Linear(torch.ones(1, 1, 1), -0.5), images, torch.ones(3, dtype=torch.int64), Budget(0.1)
    )
    assert torch.equal(result.adversarial, images)
    assert result.forwards.tolist() == [1, 1, 1] and result.backwards.tolist() == [0, 0, 0]


def test_r_fgsm_lands_where_the_two_steps_lead_when_model_is_linear(sure_linear):
    toy = sure_linear
    result = r_fgsm(toy.model, toy.images, toy.labels, Budget(0.1), alpha=0.04)
    # Each pixel moves by ±0.04 at random, then by -0.06·sign(w): by -0.1 or -0.02 along sign(w).
    along = (result.adversarial - toy.images) * toy.weights.sign()
    full, short = (along + 0.1).abs() < 1e-6, (along + 0.02).abs() < 1e-6
    assert (full | short).all() and full.any() and short.any()
    default = r_fgsm(toy.model, toy.images, toy.labels, Budget(0.1))
    along = (default.adversarial - toy.images) * toy.weights.sign()
    assert ((along + 0.1).abs() < 1e-6).any() and (along.abs() < 1e-6).any()


def test_l2_r_fgsm_takes_two_euclidean_steps_when_model_is_linear(sure_linear):
    toy = sure_linear
    result = r_fgsm(toy.model, toy.images, toy.labels, Budget(0.1, "l2"), alpha=0.04)
    last_step = -0.06 * unit_length(toy.weights.unsqueeze(0))
    random_part = (result.adversarial - toy.images - last_step).flatten(1).norm(dim=1)
    torch.testing.assert_close(random_part, torch.full_like(random_part, 0.04), rtol=1e-4, atol=1e-5)


def test_r_fgsm_equals_fgsm_when_alpha_is_zero(sure_linear):
    toy = sure_linear
    plain = fgsm(toy.model, toy.images, toy.labels, Budget(0.1))
    assert torch.equal(
        r_fgsm(toy.model, toy.images, toy.labels, Budget(0.1), alpha=0).adversarial, plain.adversarial
    )


@pytest.mark.parametrize("alpha", [-0.01, 0.11, float("nan"), "half", True])
def test_r_fgsm_refuses_when_alpha_does_not_fit(alpha, sure_linear):
    toy = sure_linear
    with pytest.raises(InputError, match="alpha is"):
        r_fgsm(toy.model, toy.images, toy.labels, Budget(0.1), alpha=alpha)


def test_r_fgsm_climbs_the_divergence_as_robust_fine_tuning_does(toys):
    model = toys.wavy()
    images, labels = toys.images_for(model, 12, size=4)
    labels[:4] = (labels[:4] + 1) % 4
    eps, alpha = 0.02, 0.01
    result = r_fgsm(model, images, labels, Budget(eps), loss="kl", early_stop=False, alpha=alpha)
    clean = model(images).softmax(1).detach()
    noise = torch.stack([torch.randn(2, 4, 4, dtype=torch.float64, generator=g) for g in generators_of(images)])
    x = (images + alpha * noise.sign()).clamp(0, 1).requires_grad_()
    divergence = (clean * (clean.log() - model(x).log_softmax(1))).sum(1)
    slope = torch.autograd.grad(divergence.sum(), x)[0]
    step = x.detach() + (eps - alpha) * slope.sign()
    expected = (images + (step - images).clamp(-eps, eps)).clamp(0, 1)
    torch.testing.assert_close(result.adversarial, expected, rtol=0, atol=1e-12)
    assert (result.forwards == 3).all() and (result.backwards == 1).all(), "also the four that were wrong at first"


def generators_of(images):
    return KeyedNoise(images, None).generators(torch.arange(len(images)), 0)


def test_misclassified_samples_are_perturbed_too_when_nobody_may_leave(toys):
    model = toys.wavy()
    images, labels = toys.images_for(model, 6, size=4)
    labels = (labels + 1) % 4
    for attack in (fgsm, r_fgsm):
        assert (attack(model, images, labels, Budget(0.01)).linf == 0).all()
        moved = attack(model, images, labels, Budget(0.01), early_stop=False)
        assert (moved.linf > 0.009).all() and set(moved.first_successful_step.tolist()) <= {1, -1}


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (fgsm, {"loss": "kl"}, "loss 'kl' has no gradient at the clean sample"),
        (r_fgsm, {"loss": "kl", "alpha": 0}, "loss 'kl' has no gradient at the clean sample"),
        (fgsm, {"loss": "hinge"}, "loss is 'hinge'; expected one of ce, margin, dlr, targeted_dlr, targeted_margin"),
        (r_fgsm, {"loss": "hinge"}, "loss is 'hinge'"),
        (fgsm, {"eot": 0}, "eot is 0"),
        (r_fgsm, {"early_stop": 1}, "early_stop is 1; expected True or False"),
    ],
)
def test_single_step_refuses_in_one_line_when_a_parameter_does_not_fit(attack, options, message, sure_linear):
    with pytest.raises(InputError) as error:
        attack(sure_linear.model, sure_linear.images, sure_linear.labels, Budget(0.1), **options)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
