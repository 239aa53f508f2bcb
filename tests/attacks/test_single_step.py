"""FGSM and R-FGSM."""

from __future__ import annotations

import pytest
import torch

from snnlib.attacks import Budget, fgsm, r_fgsm
from snnlib.attacks.budget import unit_length
from snnlib.errors import InputError


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
