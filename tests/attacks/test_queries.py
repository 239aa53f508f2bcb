"""What all attacks without a gradient share: counts, batches, budgets, the deployed network as it was."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from snnlib.attacks import Budget, concatenate, pgd
from snnlib.attacks.queries import QUERIES_AT_ONCE, Noise, losses_of, query, record_some
from snnlib.attacks.rays import rays
from snnlib.attacks.session import open_session
from snnlib.attacks.spsa import spsa
from snnlib.attacks.square import square
from snnlib.attacks.transfer import transfer
from snnlib.encoding import PoissonEncoder
from snnlib.errors import InputError

pytestmark = pytest.mark.usefixtures("unprobed")

QUERY_ATTACKS = {
    "square": functools.partial(square, queries=60),
    "spsa": functools.partial(spsa, steps=6, directions=10, step_size=0.004),
    "rays": functools.partial(rays, queries=80),
}
each_attack = pytest.mark.parametrize("attack", QUERY_ATTACKS.values(), ids=QUERY_ATTACKS)


def session_on(model, images, labels, budget=None):
    return open_session(model, images, labels, budget or Budget(0.1), None, None, "eval", "margin")


def test_queries_count_for_their_samples_alone_and_record_nothing(toys):
    inner = toys.convolutional()
    images, labels = toys.images_for(inner, 4)
    model = toys.Counting(inner)
    with session_on(model, images, labels) as session:
        session.record_clean()
        places = torch.tensor([2, 0, 2, 2, 1])
        points = torch.rand(5, 2, 8, 8, dtype=torch.float64)
        logits = query(session, points, places)
        assert session.forwards.tolist() == [2, 2, 4, 1] and session.active.tolist() == [0, 1, 2, 3]
        torch.testing.assert_close(logits, inner.eval()(points), rtol=1e-9, atol=1e-12)
        true = logits.gather(1, labels[places, None]).squeeze(1)
        rivals = logits.scatter(1, labels[places, None], -torch.inf).amax(1)
        assert torch.equal(losses_of(session, logits, "margin", places), rivals - true)
        assert model.samples == session.forwards.sum()
        assert torch.equal(session.result().adversarial, images)


def test_only_those_asked_about_can_leave_when_some_are_recorded(toys):
    model = toys.Linear(torch.ones(1, 1, 1), -0.5)
    images, labels = torch.full((4, 1, 1, 1), 0.6), torch.ones(4, dtype=torch.int64)
    with session_on(model, images, labels, Budget(0.2)) as session:
        x = torch.tensor([0.45, 0.55]).view(2, 1, 1, 1)
        stay = record_some(session, x, torch.tensor([1, 3]), torch.tensor([7, 9]))
        assert stay.tolist() == [0, 2, 3] and session.active.tolist() == [0, 2, 3]
        result = session.result()
    assert result.first_successful_step.tolist() == [-1, 7, -1, -1] and result.forwards.tolist() == [0, 1, 0, 1]
    assert result.adversarial.flatten().tolist() == pytest.approx([0.6, 0.45, 0.6, 0.55])


def test_numbers_of_a_sample_do_not_depend_on_who_is_left(toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 3)
    with session_on(model, images, labels) as session:
        whole = Noise(session, 4, first_draw=1)
        rows = torch.stack([whole.next() for _ in range(QUERIES_AT_ONCE + 2)])
        assert rows.unique().numel() == rows.numel() and rows.min() >= 0 and rows.max() < 1
    with session_on(model, images, labels) as session:
        noise = Noise(session, 4, first_draw=1)
        assert torch.equal(noise.next(), rows[0])
        session.active = torch.tensor([0, 2])
        noise.keep(session.active)
        for expected in rows[1:]:
            assert torch.equal(noise.next(), expected[[0, 2]])


@each_attack
def test_forwards_are_exact_and_success_is_that_of_the_deployed_network(attack, toys):
    inner = toys.convolutional()
    images, labels = toys.images_for(inner, 16)
    labels[:3] = (labels[:3] + 1) % 4
    model = toys.Counting(inner)
    result = attack(model, images, labels, Budget(0.02))
    assert model.samples == result.forwards.sum() and (result.backwards == 0).all()
    assert (result.first_successful_step[:3] == 0).all() and (result.forwards[:3] == 1).all()
    assert torch.equal(result.success, result.first_successful_step >= 0)
    assert result.success[3:].any() and not result.success.all()
    assert torch.equal(result.success, inner.eval()(result.adversarial).argmax(1) != labels)


@each_attack
def test_result_of_a_sample_is_the_same_when_batch_size_and_order_change(attack, toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 12)

    def attacked(positions):
        generator = torch.Generator().manual_seed(1)
        return attack(model, images[positions], labels[positions], Budget(0.02), generator=generator)

    whole = attacked(torch.arange(12))
    assert whole.success.any() and not whole.success.all()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for size in (3, 5):
        pieces = concatenate([attacked(positions) for positions in order.split(size)])
        for field in ("success", "first_successful_step", "forwards"):
            assert torch.equal(getattr(pieces, field), getattr(whole, field)[order]), field
        # Products of matrices may differ in the last bit between batch sizes, and SPSA multiplies by differences.
        torch.testing.assert_close(pieces.adversarial, whole.adversarial[order], rtol=0, atol=1e-9)


@each_attack
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_stay_on_budget_and_nothing_moves_when_eps_is_zero(norm, attack, toys):
    if attack is QUERY_ATTACKS["rays"] and norm == "l2":
        pytest.skip("RayS is made for linf")
    model = toys.convolutional(torch.float32)
    images, labels = toys.images_for(model, 8, torch.float32)
    images = images.round()
    labels = model.eval()(images).argmax(1)
    budget = Budget(0.02 if norm == "linf" else 0.1, norm)
    result = attack(model, images, labels, budget)
    lengths = result.linf if norm == "linf" else result.l2
    assert result.adversarial.min() >= 0 and result.adversarial.max() <= 1
    assert lengths.max() <= budget.eps + 1e-6 and lengths.max() > 0.5 * budget.eps
    still = attack(model, images, labels, Budget(0, norm))
    assert torch.equal(still.adversarial, images) and not still.success.any()


@each_attack
def test_seed_decides_where_there_is_chance_and_the_generator_does_not_move(attack, toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 6)

    def points(seed):
        generator = torch.Generator().manual_seed(seed)
        state = generator.get_state()
        result = attack(model, images, labels, Budget(0.01), generator=generator)
        assert torch.equal(generator.get_state(), state)
        return result.adversarial

    assert torch.equal(points(1), points(1))
    assert torch.equal(points(1), points(2)) == (attack is QUERY_ATTACKS["rays"])


@each_attack
@pytest.mark.parametrize("fails_at", [1, 4])
def test_model_is_unchanged_when_it_breaks_during_the_attack(fails_at, attack, toys):
    inner = toys.convolutional()
    images, labels = toys.images_for(inner, 4)
    model = toys.Counting(inner, fails_at)
    inner[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in inner.state_dict().items()}
    with pytest.raises(ArithmeticError):
        attack(model, images, labels, Budget(0.001))
    assert all(torch.equal(value, before[name]) for name, value in inner.state_dict().items())
    assert all(module.training for module in inner.modules())
    assert [weight.requires_grad for weight in inner.parameters()] == [False] + [True] * 9


@each_attack
def test_needs_no_gradient_and_works_on_codes(attack, toys):
    weights = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    model = toys.Encoded(weights / weights.abs().sum(), bias=0.0)
    images = torch.rand(40, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = model(images).argmax(1)
    with pytest.raises(InputError, match="differentiable"):
        pgd(model, images, labels, Budget(0.2))
    on_images = attack(model, images, labels, Budget(0.2))
    on_codes = attack(model, images, labels, Budget(0.2, space="encoded"))
    assert on_images.success.any() and on_codes.success.any()
    assert on_codes.adversarial.shape == (3, 40, 2, 4, 4)
    assert torch.equal(on_codes.success, model.body(on_codes.adversarial).argmax(1) != labels)


class Drawn(nn.Module):
    """Two classes by the number of Poisson spikes against its expectation: half of all draws fool a grey image."""

    def __init__(self):
        super().__init__()
        self.encoder = PoissonEncoder(1)

    def forward(self, x):
        score = self.encoder(x).sum((0, 2, 3, 4)) - x.flatten(1).sum(1) + 1.2
        return torch.stack([torch.zeros_like(score), score], 1)


@pytest.mark.parametrize("attack", [QUERY_ATTACKS["square"], QUERY_ATTACKS["rays"]], ids=["square", "rays"])
def test_one_lucky_draw_is_no_success_when_the_model_is_randomised(attack):
    """A query that fools is judged by another draw: it stands in the forwards, and a good part of them fails."""
    images = 0.45 + 0.1 * torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    result = attack(Drawn(), images, torch.ones(30, dtype=torch.int64), Budget(0.01))
    first, attacked = result.first_successful_step, result.first_successful_step != 0
    assert attacked.any() and result.success[attacked].any()
    if attack is QUERY_ATTACKS["square"]:
        tried = torch.where(result.success, first, 60)
        judged = result.forwards - 1 - tried
        assert (judged[attacked] >= 1).all() and judged[attacked].max() >= 2


@each_attack
def test_refuses_in_one_line_when_the_threat_model_is_another(attack, sure_linear):
    images = sure_linear.images.reshape(len(sure_linear.images), 1, 1, -1)
    model = type(sure_linear.model)(sure_linear.weights.reshape(1, 1, -1), 2.0)
    for options, message in (
        ({"batch_norm": "train"}, "batch_norm is 'train'"),
        ({"loss": "kl"}, "loss is 'kl'"),
        ({"loss": "hinge"}, "loss is 'hinge'"),
    ):
        with pytest.raises(InputError) as error:
            attack(model, images, sure_linear.labels, Budget(0.1), **options)
        assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_transfer_needs_verdicts_alone(toys):
    weights = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    model, source = toys.Encoded(weights, 0.0), toys.Linear(weights.sum(0), 0.0)
    images = torch.rand(40, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = model(images).argmax(1)
    assert transfer(model, images, labels, Budget(0.3), source=source).success.any()
