"""The model comes back as it went in, and is in the right mode in between."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from torch import nn

from snnlib.attacks import ATTACKS, Budget, fgsm, pgd, rays, spsa, square
from snnlib.attacks.prepared import prepared
from snnlib.errors import InputError
from snnlib.neurons import surrogates
from snnlib.neurons.kernels import use_kernel
from snnlib.neurons.modules import IF, LIF

BATCH_NORM_MODES = ("eval", "train", "train-and-keep")


def state_of(model):
    return {
        "training": [module.training for module in model.modules()],
        "buffers": {name: buffer.clone() for name, buffer in model.named_buffers()},
        "buffer objects": [id(buffer) for buffer in model.buffers()],
        "requires_grad": [weight.requires_grad for weight in model.parameters()],
        "weights": [weight.detach().clone() for weight in model.parameters()],
        "grad": [None if weight.grad is None else weight.grad.clone() for weight in model.parameters()],
    }


def short(attack):
    """Options that keep an attack of many steps short; what it does to the model does not depend on their number."""
    sizes = {"steps": 3, "queries": 20, "directions": 4}
    return {name: size for name, size in sizes.items() if name in inspect.signature(attack).parameters}


@pytest.fixture
def mixed_model(toys):
    """Mixed flags: one BatchNorm frozen by the user, one weight frozen, one gradient waiting."""
    model = toys.convolutional()
    model[1].eval()
    model[4].weight.requires_grad_(False)
    model[8].bias.grad = torch.arange(4.0, dtype=torch.float64)
    return model


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_model_is_unchanged_when_attack_ends(attack, batch_norm, mixed_model, toys):
    if batch_norm != "eval" and attack in (square, spsa, rays):
        pytest.skip("attacks without a gradient only ask the deployed network")
    images, labels = toys.images_for(mixed_model, 6)
    before = state_of(mixed_model)
    attack(mixed_model, images, labels, Budget(0.02), batch_norm=batch_norm, **short(attack))
    torch.testing.assert_close(state_of(mixed_model), before, rtol=0, atol=0)


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
@pytest.mark.parametrize("fails_at", [1, 3])
def test_model_is_unchanged_when_it_breaks_during_the_attack(fails_at, batch_norm, mixed_model, toys):
    images, labels = toys.images_for(mixed_model, 6)
    model = toys.Counting(mixed_model, fails_at)
    before = state_of(model)
    with pytest.raises(ArithmeticError, match="the model broke"):
        pgd(model, images, labels, Budget(0.02), batch_norm=batch_norm)
    torch.testing.assert_close(state_of(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("batch_norm", BATCH_NORM_MODES)
def test_only_batch_norm_trains_when_the_threat_model_says_so(batch_norm, mixed_model):
    with prepared(mixed_model, batch_norm=batch_norm):
        for module in mixed_model.modules():
            assert module.training == (isinstance(module, nn.BatchNorm2d) and batch_norm != "eval")
        assert not any(weight.requires_grad for weight in mixed_model.parameters())


def test_statistics_stay_where_the_attack_moved_them_when_they_are_kept(toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 6)
    before = copy.deepcopy(model)
    pgd(model, images, labels, Budget(0.02), steps=3, start="none", batch_norm="train-and-keep")
    # Three gradient passes in train mode, the score in eval; the first layer's input stays near the images.
    assert model[1].num_batches_tracked == before[1].num_batches_tracked + 3
    batch_mean = before[0](images).mean((0, 2, 3)).detach()
    drifted = before[1].running_mean * 0.9**3 + batch_mean * (1 - 0.9**3)
    torch.testing.assert_close(model[1].running_mean, drifted, rtol=0, atol=0.02)
    assert (model[1].running_mean - before[1].running_mean).abs().max() > 0.02


@pytest.mark.parametrize("batch_norm", BATCH_NORM_MODES)
def test_earlier_graph_still_runs_backward_when_attack_came_in_between(batch_norm, toys):
    model, twin = toys.convolutional(), toys.convolutional()
    images, labels = toys.images_for(model, 6)
    model[3].p = twin[3].p = 0.0
    loss = nn.functional.cross_entropy(model(images), labels)
    fgsm(model, images, labels, Budget(0.02), batch_norm=batch_norm)
    loss.backward()
    nn.functional.cross_entropy(twin(images), labels).backward()
    for weight, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, expected.grad)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_attack_gives_the_same_when_caller_has_gradients_off(attack, context, toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 6)
    expected = attack(model, images, labels, Budget(0.02), **short(attack))
    with context():
        result = attack(model, images + 0, labels + 0, Budget(0.02), **short(attack))
    assert torch.equal(result.adversarial, expected.adversarial) and not result.adversarial.requires_grad


def spiking(surrogate):
    with torch.random.fork_rng():
        torch.manual_seed(0)

        class Repeat(nn.Module):
            def forward(self, x):
                return x.flatten(1).expand(4, -1, -1)

        class Mean(nn.Module):
            def forward(self, x):
                return x.mean(0)

        return nn.Sequential(
            Repeat(), nn.Linear(8, 32), LIF(leak=0.9, threshold=0.3, surrogate=surrogate),
            nn.Linear(32, 32), IF(threshold=0.2, surrogate=surrogate), nn.Linear(32, 3), Mean(),
        )  # fmt: skip


def test_attacker_differentiates_by_the_given_surrogate_when_one_is_given():
    narrow, wide = surrogates.rectangular(width=0.02), surrogates.atan(alpha=2.0)
    model = spiking(narrow)
    images = torch.rand(10, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    with use_kernel("reference"):
        labels = model(images).argmax(1)
        own = fgsm(model, images, labels, Budget(0.1))
        override = fgsm(model, images, labels, Budget(0.1), gradient=wide)
        expected = fgsm(spiking(wide), images, labels, Budget(0.1))
    assert torch.equal(override.adversarial, expected.adversarial)
    assert not torch.equal(override.adversarial, own.adversarial)
    assert [model[2].surrogate, model[4].surrogate] == [narrow, narrow]


def test_zero_gradient_marks_samples_when_the_surrogate_is_too_narrow():
    model = spiking(surrogates.rectangular(width=1e-6))
    images = torch.rand(10, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    with use_kernel("reference"):
        labels = model(images).argmax(1)
        masked = fgsm(model, images, labels, Budget(0.1))
        seen = fgsm(model, images, labels, Budget(0.1), gradient=surrogates.atan())
    assert masked.zero_gradient.all() and (masked.linf == 0).all()
    assert not seen.zero_gradient.any() and (seen.linf > 0.09).all()


def test_surrogate_is_restored_when_model_breaks(toys):
    own = surrogates.rectangular()
    model = toys.Counting(spiking(own), fails_at=3)
    images = torch.rand(4, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    with use_kernel("reference"):
        labels = model(images).argmax(1)
        with pytest.raises(ArithmeticError):
            pgd(model, images, labels, Budget(0.01), gradient=surrogates.atan())
    assert model.model[2].surrogate is own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_norm": "frozen"}, "batch_norm is 'frozen'; expected one of eval, train, train-and-keep"),
        ({"gradient": "atan"}, "gradient is 'atan'; expected None or"),
        ({"gradient": surrogates.atan()}, "gradient is atan(alpha=2), but the model has no snnlib neuron"),
    ],
)
def test_preparing_refuses_in_one_line_when_an_option_does_not_fit(options, message, mixed_model):
    before = state_of(mixed_model)
    with pytest.raises(InputError) as error, prepared(mixed_model, **options):
        pass
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    torch.testing.assert_close(state_of(mixed_model), before, rtol=0, atol=0)
