"""The adaptive ensemble: it finds what its members find, keeps its books, and does not mix its samples up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from snnlib.attacks import Budget, pgd
from snnlib.attacks.adaptive import ADAPTIVE, CLIMB, FIRST, TRIAL, adaptive_ensemble
from snnlib.attacks.ensemble import MEMBERS
from snnlib.attacks.gradients import backward_through_rate, bptt, relu_proxy, straight_through
from snnlib.attacks.gradients.per_sample import PerSample
from snnlib.attacks.prepared import prepared
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.neurons import LIF, surrogates, use_kernel

EPS = 0.05
WIDE, NARROW = bptt(surrogates.piecewise_linear(width=2.0)), bptt(surrogates.rectangular(width=1e-6))
FEW = {"wide": WIDE, "rate": backward_through_rate(), "straight": straight_through()}


@pytest.fixture(autouse=True)
def plain_loops():
    with use_kernel("reference"):
        yield


@pytest.fixture(scope="module")
def case(small_spiking) -> tuple[Model, Tensor, Tensor]:
    model, image_set = small_spiking
    return model, image_set.batch(slice(None)), image_set.labels


def run(case, **options):
    model, images, labels = case
    generator = torch.Generator().manual_seed(3)
    return adaptive_ensemble(
        model, images, labels, Budget(EPS), **{"members": FEW, "steps": 24, "generator": generator, **options}
    )


def test_points_stay_in_the_ball_and_success_is_that_of_the_deployed_network(case):
    model, images, labels = case
    result = run(case).result
    assert (result.adversarial - images).abs().max() <= EPS + 1e-6
    assert result.adversarial.amin() >= 0 and result.adversarial.amax() <= 1
    with torch.no_grad():
        fooled = model(result.adversarial).argmax(1) != labels
    assert torch.equal(result.success, fooled)


def test_it_breaks_whoever_one_of_its_members_breaks_with_as_many_steps(case):
    model, images, labels = case
    found = run(case, steps=40).result.success
    for member in FEW.values():
        alone = pgd(model, images, labels, Budget(EPS), steps=10, gradient=member, start="none").success
        assert found.sum() >= alone.sum()
    assert 5 < found.sum() < 30  # the case can tell attacks apart


def test_a_blind_member_beside_a_seeing_one_does_not_stop_it(case):
    seeing = run(case, members={"wide": WIDE}).result.success.sum()
    both = run(case, members={"blind": NARROW, "wide": WIDE}, steps=48).result.success.sum()
    blind = run(case, members={"blind": NARROW}).result.success.sum()
    assert blind < seeing and both > blind


def test_steps_are_booked_by_member_and_end_with_success(case):
    outcome = run(case)
    result, pulls = outcome.result, outcome.pulls
    assert pulls.shape == (30, 3) and (pulls.sum(1) == result.backwards).all()
    wrong_before = result.first_successful_step == 0
    assert wrong_before.sum() == 5 and (pulls[wrong_before] == 0).all()
    assert (outcome.fooled_by[wrong_before] == -1).all()
    stood = ~result.success
    assert (pulls[stood].sum(1) == 24).all() and (outcome.fooled_by[stood] == -1).all()
    fell = result.success & ~wrong_before
    assert (outcome.fooled_by[fell] >= 0).all() and (pulls[fell].sum(1) <= 24).all()
    assert list(outcome.by_member) == [ADAPTIVE]


def test_whoever_falls_is_booked_to_the_member_whose_turn_it_was(case):
    outcome = run(case, steps=2 * TRIAL + CLIMB)
    steps, fell = outcome.pulls.sum(1), outcome.fooled_by >= 0
    first, second = fell & (steps < TRIAL), fell & (steps > TRIAL) & (steps < 2 * TRIAL)
    assert first.any() and (outcome.fooled_by[first] == 0).all()
    assert second.any() and (outcome.fooled_by[second] == 1).all()


def test_a_climb_is_by_the_member_that_came_highest_in_its_trial(case):
    both = {"blind": NARROW, "wide": WIDE}
    for order in (both, dict(reversed(both.items()))):
        pulls = run(case, members=order, steps=2 * TRIAL + CLIMB).pulls
        standing = (pulls.sum(1) == 2 * TRIAL + CLIMB).nonzero().flatten()
        assert len(standing) and (pulls[standing].sort(1).values == torch.tensor([TRIAL, TRIAL + CLIMB])).all()
        seeing = list(order).index("wide")
        assert (pulls[standing, seeing] > TRIAL).double().mean() > 0.5  # a blind member may come higher by chance


def test_favoured_members_are_tried_first_wherever_they_stand_and_others_fill_up(case):
    assert set(FIRST) <= set(MEMBERS)
    members = {"wide": WIDE, "rate": backward_through_rate(), FIRST[1]: MEMBERS[FIRST[1]]}
    pulls = run(case, members=members, steps=2 * TRIAL).pulls
    standing = pulls.sum(1) == 2 * TRIAL
    assert standing.any() and (pulls[standing] == torch.tensor([TRIAL, 0, TRIAL])).all()


def test_with_enough_steps_every_member_gets_its_trial(case):
    steps = 3 * TRIAL + 2 * CLIMB
    pulls = run(case, steps=steps).pulls
    standing = pulls.sum(1) == steps
    assert standing.any() and (pulls[standing] >= TRIAL).all() and (pulls[standing, 2] == TRIAL).all()


def test_result_depends_on_samples_and_seed_not_on_batch_mates(case):
    model, images, labels = case
    whole = run(case)
    order = torch.arange(30).flip(0)
    flipped = run((model, images[order], labels[order]))
    part = run((model, images[7:19], labels[7:19]))
    for name in ("success", "first_successful_step", "forwards", "backwards"):
        assert torch.equal(getattr(whole.result, name)[order], getattr(flipped.result, name))
        assert torch.equal(getattr(whole.result, name)[7:19], getattr(part.result, name))
    assert torch.equal(whole.pulls[order], flipped.pulls)
    other = run(case, generator=torch.Generator().manual_seed(4))
    moved = whole.pulls.sum(1) > 0
    assert moved.any() and not torch.equal(whole.result.adversarial[moved], other.result.adversarial[moved])


def test_every_sample_is_differentiated_by_its_own_member(case):
    model, images, labels = case
    members = (WIDE, backward_through_rate(), straight_through())
    choice = torch.arange(30) % 3

    def slope(gradient, chosen=None):
        with prepared(model, gradient=gradient), torch.enable_grad():
            if chosen is not None:
                gradient.choose(chosen)
            x = images.clone().requires_grad_(True)
            loss = nn.functional.cross_entropy(model(x), labels, reduction="sum")
            return torch.autograd.grad(loss, x)[0]

    mixed = slope(PerSample(members), choice)
    for number, member in enumerate(members):
        torch.testing.assert_close(mixed[choice == number], slope(member)[choice == number])


def test_model_comes_back_as_it_was(case):
    model = case[0]
    run(case)
    assert not model.training and all(layer.rule is None for layer in model.modules() if isinstance(layer, LIF))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_norm": "train"}, "batch_norm is 'train'"),
        ({"members": {}}, "expected at least one"),
        ({"members": {"proxy": relu_proxy()}}, "relu_proxy"),
    ],
)
def test_one_line_error_for_what_does_not_fit(case, options, message):
    with pytest.raises(InputError, match=message) as caught:
        run(case, **options)
    assert "\n" not in str(caught.value)
