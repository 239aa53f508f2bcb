"""APGD against pyautoattack 0.2, the packaged AutoAttack of Croce & Hein.

Given our start, their APGD-CE walks through the same points. In the first window their count of rises starts from a
loss of 0, which for the DLR loss (negative while the sample is right) misses one: single samples may take another way
there, and robust accuracies are what is compared.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.attacks import Budget, apgd, apgd_targeted
from snnlib.attacks.session import open_session
from snnlib.attacks.starts import surface_point

autopgd = pytest.importorskip("pyautoattack.autopgd_base", reason="pyautoattack is not installed")

SAMPLES, CLASSES, STEPS = 200, 5, 20
BUDGETS = [Budget(0.04), Budget(0.5, "l2")]
NORMS = {"linf": "Linf", "l2": "L2"}


@pytest.fixture(scope="module")
def trained():
    """A small ReLU net on noisy copies of five pictures, with its images and labels; float64."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(CLASSES, 3, 8, 8, dtype=torch.float64, generator=generator)
    labels = torch.arange(SAMPLES) % CLASSES
    noise = 0.25 * torch.randn(SAMPLES, 3, 8, 8, dtype=torch.float64, generator=generator)
    images = (0.3 + 0.4 * pictures[labels] + noise).clamp(0, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(192, CLASSES),
        ).double()  # fmt: skip
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimiser.step()
    return net.eval().requires_grad_(False), images, labels


def theirs(net, images, labels, budget, loss, start):
    attack = autopgd.APGDAttack(net, n_iter=STEPS, norm=NORMS[budget.norm], eps=budget.eps, loss=loss, device="cpu")
    attack.init_hyperparam(images)
    best, robust, best_loss, _ = attack.attack_single_run(images, labels, x_init=start)
    return best, robust.bool(), best_loss


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: budget.norm)
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_same_samples_hold_out_and_apgd_ce_ends_at_the_same_points_when_the_start_is_shared(loss, budget, trained):
    net, images, labels = trained
    with open_session(net, images, labels, budget, None, None, "eval") as session:
        start = surface_point(session, draw=0)
    best, robust, best_loss = theirs(net, images, labels, budget, loss, start)
    ours = apgd(net, images, labels, budget, loss=loss, steps=STEPS)
    assert 0.2 < robust.double().mean() < 0.9
    assert abs(int(robust.sum()) - int((~ours.success).sum())) <= 0.005 * SAMPLES
    if loss == "ce":
        assert torch.equal(~ours.success, robust)
        # Where a gradient entry is nearly 0, or two losses nearly equal, rounding decides: hence "nearly all".
        apart = (ours.adversarial - best)[robust].flatten(1).abs().amax(1)
        assert (apart < 1e-6).double().mean() > 0.95
        torch.testing.assert_close(ours.loss[robust], best_loss[robust], rtol=1e-3, atol=0)


def test_robust_accuracy_agrees_within_half_a_point_when_each_draws_its_own_start_and_aims_at_targets(trained):
    net, images, labels = trained
    net, images = net.float(), images.float()
    ours = apgd_targeted(net, images, labels, BUDGETS[0], steps=STEPS)
    attack = autopgd.APGDAttack_targeted(
        net, n_iter=STEPS, norm="Linf", eps=BUDGETS[0].eps, device="cpu", n_target_classes=CLASSES - 1
    )
    with torch.random.fork_rng():
        robust = net(attack.perturb(images, labels)).argmax(1) == labels
    net.double()
    assert abs(int(robust.sum()) - int((~ours.success).sum())) <= 0.005 * SAMPLES
