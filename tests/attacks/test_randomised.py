"""Randomised models: EOT averages, noise keyed by the attack, the caller's random numbers left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.attacks import ATTACKS, Budget, apgd, concatenate, fgsm, pgd
from snnlib.attacks.keyed_noise import controlled_draws
from snnlib.attacks.session import open_session
from snnlib.encoding import PoissonEncoder
from snnlib.errors import InputError

pytestmark = pytest.mark.usefixtures("unprobed")


class Poisson(nn.Module):
    """Images [N, 1, 4, 4], T = 3 Poisson frames, 4 classes; rugged enough that the noise matters."""

    def __init__(self, seed=None):
        super().__init__()
        self.encoder = PoissonEncoder(3, seed=seed)
        self.weights = nn.Parameter(torch.randn(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))

    def body(self, encoded):
        return (encoded.flatten(2) @ self.weights).mean(0)

    def forward(self, images):
        return self.body(self.encoder(images))


class Noisy(nn.Module):
    """Adds normal noise from PyTorch's global generator to the images, also in eval."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x + 0.1 * torch.randn_like(x))


def images_and_labels(count=8):
    """Labels are the classes of the expected frames."""
    images = torch.rand(count, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model = Poisson()
    return images, (images.flatten(1) @ model.weights).argmax(1).detach()


def gradients(model, eot, repetitions, seed=0):
    """[repetitions, N, ...] loss gradients at the clean images, each the mean over `eot` draws."""
    images, labels = images_and_labels()
    generator = torch.Generator().manual_seed(seed)
    with open_session(model, images, labels, Budget(0.1), None, generator, "eval", eot=eot) as session:
        return torch.stack([session.gradient(session.origin) for _ in range(repetitions)])


@pytest.mark.parametrize("model", [Poisson(), Noisy(Poisson(seed=3))], ids=["encoder", "module"])
def test_variance_of_the_gradient_falls_as_one_over_n_when_averaged_over_n_draws(model):
    variance = {n: gradients(model, n, repetitions=80).var(0).sum().item() for n in (1, 3, 9)}
    # Sums over 128 entries of 79 degrees of freedom each, correlated because samples share the frames' thresholds.
    assert variance[1] / variance[3] == pytest.approx(3, rel=0.25)
    assert variance[1] / variance[9] == pytest.approx(9, rel=0.25)


def test_gradient_is_the_mean_over_the_very_draws_that_single_passes_see():
    singles, averaged = gradients(Poisson(), 1, 6), gradients(Poisson(), 3, 2)
    torch.testing.assert_close(averaged, singles.view(2, 3, *singles.shape[1:]).mean(1))


class Script(nn.Module):
    """Two classes; the right one's lead at call k is the k-th number of the script."""

    def __init__(self, *leads):
        super().__init__()
        self.leads, self.calls = leads, 0

    def forward(self, x):
        lead = self.leads[self.calls] + 0 * x.flatten(1).sum(1)
        self.calls += 1
        return torch.stack([lead, 0 * lead], 1)


@pytest.mark.parametrize(
    ("leads", "success"), [((3.0, -1.0, -1.0), False), ((-3.0, 1.0, 1.0), True), ((2.0, -3.0, 0.9), True)]
)
def test_success_is_judged_on_the_mean_logits_when_draws_disagree(leads, success):
    images, labels = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    result = fgsm(Script(*(4.0, 4.0, 4.0), *leads), images, labels, Budget(0.1), eot=3)
    assert result.success.item() == success
    assert result.loss.item() == pytest.approx(sum(torch.tensor(leads).neg().exp().log1p().tolist()) / 3)
    clean = Script(*leads, *(4.0, 4.0, 4.0))
    assert (fgsm(clean, images, labels, Budget(0.1), eot=3).first_successful_step.item() == 0) == success


def test_passes_are_multiplied_when_draws_are_averaged(toys):
    model, images = toys.Counting(toys.Linear(torch.ones(1, 1, 1), 5.0)), torch.rand(4, 1, 1, 1)
    result = pgd(model, images, torch.ones(4, dtype=torch.int64), Budget(0.01), steps=3, eot=5)
    assert (result.forwards == 5 * (3 + 2)).all() and (result.backwards == 5 * 3).all()
    assert model.samples == result.forwards.sum()


@pytest.mark.parametrize("attack", [fgsm, pgd, apgd])
def test_eot_changes_nothing_but_the_cost_when_the_model_is_not_random(attack, toys):
    model = toys.wavy()
    images, labels = toys.images_for(model, 16, size=4)
    options = {} if attack is fgsm else {"steps": 5}
    once, thrice = (attack(model, images, labels, Budget(0.02), eot=eot, **options) for eot in (1, 3))
    assert once.success.any() and torch.equal(once.success, thrice.success)
    torch.testing.assert_close(once.adversarial, thrice.adversarial, rtol=0, atol=1e-9)
    assert torch.equal(3 * once.forwards, thrice.forwards)


@pytest.mark.parametrize("space", ["image", "encoded"])
@pytest.mark.parametrize("eot", [1, 3])
def test_poisson_noise_of_a_sample_depends_neither_on_batch_nor_order(space, eot):
    model, budget = Poisson(), Budget(0.04, space=space)
    images, labels = images_and_labels(10)

    def attack(index, seed=4):
        generator = torch.Generator().manual_seed(seed)
        return pgd(model, images[index], labels[index], budget, steps=4, eot=eot, generator=generator)

    whole = attack(torch.arange(10))
    assert len(whole.first_successful_step.unique()) > 1 and not (whole.first_successful_step == 0).all()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    pieces = concatenate([attack(index) for index in order.split(3)])
    for field in ("success", "first_successful_step", "forwards", "backwards"):
        assert torch.equal(getattr(pieces, field), getattr(whole, field)[order]), field
    torch.testing.assert_close(pieces.loss, whole.loss[order])
    assert not torch.equal(attack(torch.arange(10), seed=5).loss, whole.loss)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_same_call_gives_the_same_bytes_and_leaves_the_global_generator_alone_when_a_module_is_random(attack, brief):
    model = Noisy(Poisson(seed=2))
    images, labels = images_and_labels()
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(brief(attack)(model, images, labels, Budget(0.1)))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(results[0].adversarial, results[1].adversarial)
    assert torch.equal(results[0].loss, results[1].loss)


def test_encoders_seed_is_the_callers_again_when_the_attack_ends_or_breaks():
    model, fixed = Poisson(), Poisson(seed=7)
    images, labels = images_and_labels()
    for seed_inside, one in ((None, model), (7, fixed)):
        with pytest.raises(ArithmeticError), controlled_draws(one, None, images.device) as use:
            use(torch.tensor([1]))
            assert (one.encoder.seed == 7) == (seed_inside == 7)
            raise ArithmeticError
        fgsm(one, images, labels, Budget(0.1))
        assert one.encoder.seed == seed_inside


def test_draws_change_from_pass_to_pass_and_with_the_seed():
    model = Poisson()
    seen = set()
    for seed in (None, 1, -1):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        with controlled_draws(model, generator, torch.device("cpu")) as use:
            for number in range(3):
                use(torch.tensor([number]))
                seen.add(model.encoder.seed)
    assert len(seen) == 9


@pytest.mark.parametrize("eot", [0, -1, 1.5, True, "3"])
def test_attack_refuses_in_one_line_when_eot_is_no_count(eot, toys):
    with pytest.raises(InputError, match=f"eot is {eot!r}; expected a whole number of at least 1"):
        pgd(toys.wavy(), torch.rand(2, 2, 4, 4), torch.tensor([0, 1]), Budget(0.1), eot=eot)
