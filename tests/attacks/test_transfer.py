"""Transfer: crafted on one network, judged on another, and paid for in verdicts alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.attacks import Budget, concatenate, pgd
from snnlib.attacks.transfer import transfer
from snnlib.errors import InputError

pytestmark = pytest.mark.usefixtures("unprobed")


@pytest.fixture
def pair(toys):
    """Two linear models whose weights differ, and images near the boundary of the first."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 4, 4, generator=generator)
    other = weights + 0.7 * torch.randn(2, 4, 4, generator=generator)
    model, source = toys.Linear(weights / weights.abs().sum(), 0.0), toys.Linear(other / other.abs().sum(), 0.0)
    images = 0.3 + 0.4 * torch.rand(40, 2, 4, 4, generator=generator)
    return model, source, images, model(images).argmax(1)


def test_last_point_is_the_sources_worst_and_the_model_alone_judges(pair):
    model, source, images, labels = pair
    result = transfer(model, images, labels, Budget(0.05), source=source, steps=5)
    uphill = torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1) * source.weights.sign()
    crafted = images + 0.05 * uphill
    fooled = model(crafted).argmax(1) != labels
    assert torch.equal(result.success, fooled) and fooled.any() and not fooled.all()
    torch.testing.assert_close(result.adversarial[fooled], crafted[fooled])
    assert (source(images).argmax(1) != labels).any(), "also where the source is wrong from the start"


def test_transfer_to_itself_is_the_attack_itself(pair):
    model, _, images, labels = pair
    itself = transfer(model, images, labels, Budget(0.04), source=model, steps=5)
    assert torch.equal(itself.success, pgd(model, images, labels, Budget(0.04), steps=5).success)


def test_best_point_stops_behind_the_sources_boundary_and_fools_fewer(pair):
    model, source, images, labels = pair
    found = {
        points: transfer(model, images, labels, Budget(0.05), source=source, points=points).success
        for points in (("last",), ("best",), ("best", "last"))
    }
    assert found[("best",)].sum() < found[("last",)].sum()
    assert torch.equal(found[("best", "last")], found[("best",)] | found[("last",)])


def test_counts_are_the_passes_through_the_model_alone(toys, pair):
    model, source, images, labels = pair
    judged, crafted_on = toys.Counting(model), toys.Counting(source)
    labels = labels.clone()
    labels[:4] = 1 - labels[:4]
    result = transfer(judged, images, labels, Budget(0.05), source=crafted_on, points=("best", "last"))
    assert judged.samples == result.forwards.sum() and (result.backwards == 0).all()
    assert set(result.first_successful_step.tolist()) == {-1, 0, 1, 2}
    expected = torch.where(result.success, result.first_successful_step + 1, 3)
    assert torch.equal(result.forwards, expected)
    assert crafted_on.samples > 0 and (result.first_successful_step[:4] == 0).all()


@pytest.mark.parametrize("attack", ["fgsm", "mi_fgsm", "apgd"])
def test_any_attack_can_craft(attack, pair):
    model, source, images, labels = pair
    options = {} if attack == "fgsm" else {"steps": 4}
    result = transfer(model, images, labels, Budget(0.05), source=source, attack=attack, **options)
    assert result.success.any() and (result.linf <= 0.05 + 1e-6).all()


def test_result_of_a_sample_is_the_same_when_batch_size_and_order_change(toys):
    model, source = toys.convolutional(), toys.convolutional()
    with torch.no_grad():
        source[0].weight += 0.05
    images, labels = toys.images_for(model, 10)

    def attack(positions):
        return transfer(model, images[positions], labels[positions], Budget(0.1), source=source)

    whole, order = attack(torch.arange(10)), torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert whole.success.any() and not whole.success.all()
    pieces = concatenate([attack(positions) for positions in order.split(3)])
    for field in ("success", "forwards", "adversarial"):
        assert torch.equal(getattr(pieces, field), getattr(whole, field)[order]), field


def test_both_models_come_back_as_they_were_when_the_source_breaks(toys):
    model, inner = toys.convolutional(), toys.convolutional()
    images, labels = toys.images_for(model, 4)
    with pytest.raises(ArithmeticError):
        transfer(model, images, labels, Budget(0.001), source=toys.Counting(inner, fails_at=3))
    for each in (model, inner):
        assert all(module.training for module in each.modules())
        assert all(weight.requires_grad for weight in each.parameters())


def test_codes_transfer_where_both_networks_encode_alike(toys):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 2, 4, 4, generator=generator)
    model, source = toys.Encoded(weights, 0.0), toys.Encoded(weights + 0.1, 0.0)
    images = torch.rand(20, 2, 4, 4, generator=generator)
    labels = model(images).argmax(1)
    budget = Budget(0.3, space="encoded")
    result = transfer(model, images, labels, budget, source=source)
    assert result.success.any() and result.adversarial.shape == (3, 20, 2, 4, 4)
    source.encoder = lambda images: 1 - toys.Encoded.encoder(source, images)
    with pytest.raises(InputError, match="source encodes these images differently"):
        transfer(model, images, labels, budget, source=source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": None}, "source is a NoneType"),
        ({"attack": "guess"}, "attack is 'guess'"),
        ({"queries": 5}, "attack 'pgd' takes no queries"),
        ({"points": ()}, "points is ()"),
        ({"points": ("first",)}, "points is ('first',)"),
        ({"restarts": 2}, "restarts is 2 with early_stop=False"),
    ],
)
def test_transfer_refuses_in_one_line_when_a_parameter_does_not_fit(options, message, pair):
    model, source, images, labels = pair
    with pytest.raises(InputError) as error:
        transfer(model, images, labels, Budget(0.1), **({"source": source} | options))
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_source_must_be_a_network_of_the_same_classes(pair):
    model, _, images, labels = pair

    class OneLogit(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :1]

    with pytest.raises(InputError, match="the model returned"):
        transfer(model, images, labels, Budget(0.1), source=OneLogit())
