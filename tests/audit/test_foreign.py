"""Models of snnTorch and SpikingJelly: audited as they are, their surrogates exchanged without moving a spike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from snnlib.attacks import Budget
from snnlib.audit import Effort, audit
from snnlib.errors import InputError
from snnlib.neurons import exchanged_surrogates, foreign_neurons, surrogates

MEMBERS = ("piecewise_linear(width=1)", "exponential(height=0.3, rate=2)")
SMALL = Effort(steps=4, queries=20, members=MEMBERS, restarts=2, draws=2, eot=2, grid=3, pictured=3, eps_factors=(1.0,))
STEPS = 3


def _layers() -> tuple[nn.Linear, nn.Linear]:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return nn.Linear(36, 30), nn.Linear(30, 4)


class SnnTorchNet(nn.Module):
    """Its own time loop with explicit membranes, as the tutorials write it."""

    def __init__(self, spike_grad=None) -> None:
        super().__init__()
        snntorch = pytest.importorskip("snntorch")
        self.first, self.second = _layers()
        self.neuron = snntorch.Leaky(beta=0.8, threshold=0.5, spike_grad=spike_grad, reset_mechanism="zero")

    def forward(self, x: Tensor) -> Tensor:
        currents, membrane, outputs = 3 * self.first(x.flatten(1)), x.new_zeros(len(x), 30), []
        for _ in range(STEPS):
            spikes, membrane = self.neuron(currents, membrane)
            outputs.append(self.second(spikes))
        return torch.stack(outputs).mean(0)


class SpikingJellyNet(nn.Module):
    """Multi-step mode; resets its state at every call."""

    def __init__(self) -> None:
        super().__init__()
        pytest.importorskip("spikingjelly.activation_based")
        from spikingjelly.activation_based import functional, neuron, surrogate

        self.first, self.second = _layers()
        self.neuron = neuron.IFNode(v_threshold=0.5, surrogate_function=surrogate.ATan(alpha=2.0), step_mode="m")
        self.functional = functional

    def forward(self, x: Tensor) -> Tensor:
        self.functional.reset_net(self)
        currents = 3 * self.first(x.flatten(1)).expand(STEPS, -1, -1)
        return self.second(self.neuron(currents)).mean(0)


def _sharp_snntorch() -> nn.Module:
    needle = surrogates.rectangular(width=1e-4)
    return SnnTorchNet(lambda u: needle.spike(u))


def _sharp_spikingjelly() -> nn.Module:
    surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")
    model = SpikingJellyNet()
    model.neuron.surrogate_function = surrogate.PiecewiseQuadratic(alpha=1e4)
    return model


NETS = {"snnTorch": SnnTorchNet, "SpikingJelly": SpikingJellyNet}
each_net = pytest.mark.parametrize("make", NETS.values(), ids=NETS.keys())


def _answered(model: nn.Module, count: int = 24) -> tuple[Tensor, Tensor]:
    images = torch.randint(0, 256, (count, 1, 6, 6), generator=torch.Generator().manual_seed(3)) / 255
    with torch.no_grad():
        return images, model.eval()(images).argmax(1)


def _logits_and_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    x = images.clone().requires_grad_(True)
    logits = model(x)
    (slope,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), x)
    return logits.detach(), slope


@each_net
def test_exchange_keeps_every_spike_and_differentiates_by_the_given_curve(make):
    model = make()
    images, labels = _answered(model)
    own_logits, own_slope = _logits_and_gradient(model, images, labels)
    names, state = [name for name, _ in model.named_modules()], list(model.state_dict())
    slopes = []
    for surrogate in (surrogates.atan(2.0), surrogates.piecewise_linear(0.7)):
        with exchanged_surrogates(model, surrogate):
            logits, slope = _logits_and_gradient(model, images, labels)
        assert torch.equal(logits, own_logits)
        slopes.append(slope)
    torch.testing.assert_close(slopes[0], own_slope, msg="both frameworks' default is the arctangent, alpha = 2")
    assert not torch.allclose(slopes[1], own_slope, rtol=1e-3)
    assert torch.equal(_logits_and_gradient(model, images, labels)[1], own_slope)
    assert [name for name, _ in model.named_modules()] == names and list(model.state_dict()) == state
    assert len(foreign_neurons(model)) == 1


@each_net
def test_surrogates_are_restored_after_an_error(make):
    model = make()
    ((module, name),) = foreign_neurons(model)
    own = getattr(module, name)
    with pytest.raises(ArithmeticError), exchanged_surrogates(model, surrogates.atan()):
        assert getattr(module, name) is not own
        raise ArithmeticError
    assert getattr(module, name) is own


@each_net
def test_foreign_models_are_audited_as_far_as_they_allow(make):
    model = make().train()
    images, labels = _answered(model)
    model.train()
    report = audit(model, images, labels, Budget(0.05), effort=SMALL)
    assert report.correct == 24 and report.model == type(model).__name__
    missing = {found.name: found.remark for found in report.findings if found.outcome == "not done"}
    assert set(missing) == {
        "backward_rule_gain", "pool_gradient_gain", "encoder_gradient_gain", "batch_norm_mode", "draws_gain",
        "image_against_encoded",
    }  # fmt: skip
    assert "snnlib's neurons" in missing["backward_rule_gain"]
    assert {f"PGD, {name}" for name in MEMBERS} <= {line.label for line in report.attacks}
    assert report.finding("gradient_in_eval").numbers["eval"] > 0
    assert report.finding("randomised_output").outcome == "no", "state is reset between calls"
    assert model.training


@pytest.mark.parametrize("make", [_sharp_snntorch, _sharp_spikingjelly], ids=NETS.keys())
def test_a_needle_as_surrogate_is_found_in_foreign_models(make):
    report = audit(make(), *_answered(make()), Budget(0.1), effort=SMALL)
    assert report.finding("ensemble_gain").outcome == "masked", str(report)
    assert report.verdict == "masked" and report.robust < report.own_robust


@each_net
def test_a_network_that_nobody_resets_is_refused_with_the_remedies_before_any_attack(make, monkeypatch):
    model = make()
    images, labels = _answered(model)
    if make is SpikingJellyNet:
        monkeypatch.setattr(model.functional, "reset_net", lambda net: None)
    else:
        monkeypatch.setattr(model, "neuron", pytest.importorskip("snntorch").Leaky(beta=0.8, init_hidden=True))
        monkeypatch.setattr(SnnTorchNet, "forward", lambda net, x: net.second(net.neuron(3 * net.first(x.flatten(1)))))
    with pytest.raises(InputError, match="differently the second time, and neuron.(mem|v) has changed") as e:
        audit(model, images, labels, Budget(0.05), effort=SMALL)
    assert "snntorch.utils.reset(self)" in str(e.value) and "functional.reset_net(self)" in str(e.value)


def test_a_model_that_is_random_by_a_hidden_source_is_flagged_and_attacked_over_draws():
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.calls = nn.Linear(36, 4), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.first(x.flatten(1) + 0.1 * (self.calls % 2))

    model = Hidden()
    report = audit(model, *_answered(model), Budget(0.05), effort=SMALL)
    found = report.finding("randomised_output")
    assert found.outcome == "suspicious" and "reset" in found.remark
    assert report.finding("square_beats_white_box").outcome != "not done"
    assert report.finding("batch_mates").outcome == "not done"


def test_layers_that_a_cpu_trains_wrongly_are_named_and_the_audit_goes_on():
    """Strided 1x1 convolutions with few channels: oneDNN's backward pass of their weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1, stride=2), nn.Flatten(), nn.Linear(32, 4)).requires_grad_(False)
    images = torch.rand(8, 3, 4, 4)
    with pytest.warns(UserWarning, match=r"1 of the model's convolutions \(0: Conv2d\(3, 8, .* training is"):
        report = audit(model, images, model(images).argmax(1), Budget(2 / 255), effort="smoke")
    assert report.correct == 8
