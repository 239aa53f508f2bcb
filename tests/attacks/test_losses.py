"""The losses by hand, and what a session gives to those that ask for more than logits and labels."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snnlib.attacks import LOSSES, Budget, apgd, fgsm, pgd, r_fgsm
from snnlib.attacks.losses import Context, find_loss, wrong_classes
from snnlib.attacks.session import open_session
from snnlib.errors import InputError

pytestmark = pytest.mark.usefixtures("unprobed")

LOGITS = torch.tensor([[4.0, 1.0, 3.0, -2.0], [0.5, 2.0, 3.5, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1])


def value(name, logits=LOGITS, labels=LABELS, **context):
    return find_loss(name).function(logits, labels, Context(**context))


def test_losses_have_their_values_when_computed_by_hand():
    # Sample 0 is right by 1, sample 1 wrong by 1.5. Ordered: 4, 3, 1, -2 and 3.5, 2, 1, 0.5.
    assert value("margin").tolist() == [-1.0, 1.5]
    torch.testing.assert_close(value("dlr"), torch.tensor([-1 / 3, 1.5 / 2.5], dtype=torch.float64))
    targeted = value("targeted_dlr", targets=torch.tensor([1, 2]))
    torch.testing.assert_close(targeted, torch.tensor([-3 / 4.5, 1.5 / 2.75], dtype=torch.float64))
    torch.testing.assert_close(value("ce"), LOGITS.logsumexp(1) - LOGITS.gather(1, LABELS.view(-1, 1))[:, 0])
    clean = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64)
    moved = torch.zeros(1, 2, dtype=torch.float64)
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert value("kl", moved, clean_logits=clean).item() == pytest.approx(expected, rel=1e-12)


def test_margin_is_positive_exactly_where_the_sample_is_misclassified():
    logits = torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(5, (500,), generator=torch.Generator().manual_seed(1))
    assert torch.equal(value("margin", logits, labels) > 0, logits.argmax(1) != labels)
    assert torch.equal(value("dlr", logits, labels) > 0, logits.argmax(1) != labels)


@pytest.mark.parametrize("name", ["dlr", "targeted_dlr"])
def test_dlr_is_blind_to_shift_and_scale_of_the_logits(name):
    context = {"targets": torch.tensor([2, 3])}
    torch.testing.assert_close(value(name, 7 * LOGITS - 3, **context), value(name, **context))


def test_kl_is_least_at_the_clean_logits_and_asks_for_no_label():
    for moved in (LOGITS + 5, LOGITS):
        torch.testing.assert_close(value("kl", moved, clean_logits=LOGITS), torch.zeros(2, dtype=torch.float64))
    moved = LOGITS.flip(1).requires_grad_()
    loss = value("kl", moved, clean_logits=LOGITS)
    assert (loss > 0).all() and torch.equal(loss, value("kl", moved, 1 - LABELS, clean_logits=LOGITS))
    # dKL/dz = p(adversarial) − p(clean).
    loss.sum().backward()
    torch.testing.assert_close(moved.grad, moved.detach().softmax(1) - LOGITS.softmax(1))


def test_wrong_classes_are_listed_strongest_first_and_without_the_label():
    assert wrong_classes(LOGITS, LABELS).tolist() == [[2, 1, 3], [2, 3, 0]]
    assert wrong_classes(torch.zeros(1, 3), torch.tensor([1])).tolist() == [[0, 2]], "ties in the order of the classes"


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_finds_what_pgd_is_for(name, toys):
    model = toys.wavy()
    images, labels = toys.images_for(model, 32, size=4)
    result = pgd(model, images, labels, Budget(0.03), loss=name, steps=5)
    assert 8 < result.success.sum() < 32
    assert torch.equal(result.success, model(result.adversarial).argmax(1) != labels)


def test_clean_logits_cost_one_forward_when_the_loss_needs_them_and_none_when_the_attack_scores_them(toys):
    inner = toys.convolutional()
    images, labels = toys.images_for(inner, 8)
    budget = Budget(1e-6)
    cases = [
        (r_fgsm, {"loss": "ce"}, 3), (r_fgsm, {"loss": "kl"}, 3), (r_fgsm, {"loss": "kl", "early_stop": False}, 3),
        (r_fgsm, {"early_stop": False}, 2), (pgd, {"loss": "kl", "steps": 2}, 4), (fgsm, {"loss": "targeted_dlr"}, 3),
    ]  # fmt: skip
    for attack, options, forwards in cases:
        model = toys.Counting(inner)
        result = attack(model, images, labels, budget, **options)
        assert result.forwards.tolist() == [forwards] * 8 and model.samples == 8 * forwards, (attack, options)


@pytest.mark.parametrize("batch_norm", ["eval", "train", "train-and-keep"])
def test_kl_is_to_the_eval_mode_probabilities_whatever_batch_norm_does_under_attack(batch_norm, toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 6)
    with torch.no_grad():
        clean = model.eval()(images)
    model.train()
    before = model[1].num_batches_tracked.item()
    result = r_fgsm(model, images, labels, Budget(0.02), loss="kl", early_stop=False, batch_norm=batch_norm)
    passes_in_train_mode = {"eval": 0, "train": 0, "train-and-keep": 1}[batch_norm]
    assert model[1].num_batches_tracked.item() == before + passes_in_train_mode
    with torch.no_grad():
        moved = model.eval()(result.adversarial)
    expected = F.kl_div(moved.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True).sum(1)
    torch.testing.assert_close(result.loss, expected)


def test_targets_follow_their_samples_when_others_leave(toys):
    model = toys.wavy()
    images, labels = toys.images_for(model, 8, size=4)
    labels[:3] = (labels[:3] + 1) % 4
    with open_session(model, images, labels, Budget(0.1), None, None, "eval", "targeted_dlr") as session:
        session.record_clean()
        assert session.active.tolist() == [3, 4, 5, 6, 7]
        second = model(images[3:]).topk(3).indices[:, 2]
        session.aim(2)
        visit = session.visit(session.active_origin, 1)
    logits = model(images[3:])
    torch.testing.assert_close(visit.loss, value("targeted_dlr", logits, labels[3:], targets=second))


class FewClasses(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        return torch.stack([x.flatten(1).sum(1) * (k + 1) for k in range(self.classes)], 1)


@pytest.mark.parametrize(("name", "classes"), [("dlr", 2), ("targeted_dlr", 3)])
@pytest.mark.parametrize("attack", [pgd, apgd])
def test_loss_refuses_in_one_line_when_the_model_has_too_few_classes(name, classes, attack):
    images, labels = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1])
    with pytest.raises(InputError) as error:
        attack(FewClasses(classes), images, labels, Budget(0.1), loss=name)
    expected = f"loss {name!r} needs at least {classes + 1} classes and the model has {classes}; use loss='margin'"
    assert str(error.value) == expected
    assert attack(FewClasses(classes + 1), images, labels, Budget(0.1), loss=name).forwards.max() > 0
