"""Networks of snnTorch, SpikingJelly, Norse and of nobody in particular, wrapped, attacked, and given back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from snnlib import wrap
from snnlib.attacks import (
    MEMBERS,
    Budget,
    adaptive_ensemble,
    ensemble_attack,
    pgd,
)
from snnlib.attacks.ensemble import members_for
from snnlib.attacks.gradients import backward_through_rate, bptt
from snnlib.attacks.gradients.per_sample import PerSample
from snnlib.audit import Effort, audit
from snnlib.encoding import build_encoder
from snnlib.errors import InputError
from snnlib.neurons import LIF, attacker_surrogate, foreign_neurons, surrogates

STEPS = 4
SMALL = Effort(
    steps=3, queries=10, members=tuple(MEMBERS)[:2], restarts=2, draws=2, eot=2, grid=3, pictured=3, eps_factors=(1.0,)
)


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return build()


def snntorch_net() -> nn.Module:
    """One step per call; the inner neuron sits where `snntorch.utils.reset` does not look."""
    snn = pytest.importorskip("snntorch")

    def leaky(**options):
        return snn.Leaky(beta=0.8, threshold=0.5, init_hidden=True, **options)

    inner = nn.Sequential(nn.Conv2d(1, 4, 3), leaky())
    return seeded(lambda: nn.Sequential(inner, nn.Flatten(), nn.Linear(64, 3), leaky(output=True)))


def spikingjelly_net(step_mode: str = "m") -> nn.Module:
    pytest.importorskip("spikingjelly.activation_based")
    from spikingjelly.activation_based import functional, layer, neuron

    def build():
        return nn.Sequential(
            layer.Conv2d(1, 4, 3), neuron.LIFNode(v_threshold=0.3), layer.Flatten(), layer.Linear(64, 3),
            neuron.IFNode(v_threshold=0.3),
        )  # fmt: skip

    net = seeded(build)
    functional.set_step_mode(net, step_mode)
    return net


def norse_net() -> nn.Module:
    norse = pytest.importorskip("norse.torch")
    fast, low = torch.tensor(900.0), torch.tensor(0.2)
    strong = norse.LIFParameters(tau_mem_inv=fast, tau_syn_inv=fast, v_th=low)
    return seeded(
        lambda: norse.SequentialState(
            nn.Conv2d(1, 4, 3), norse.LIFCell(p=strong), nn.Flatten(), nn.Linear(64, 3), norse.LICell()
        )
    )


class OwnLoop(nn.Module):
    """Neither framework's loop: `(spikes, membrane)`, both [T, N, 3], and a surrogate as snnTorch keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = seeded(lambda: nn.Linear(36, 3))
        self.spike_grad = surrogates.atan().spike

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        membrane, spikes, membranes = 0, [], []
        for _ in range(STEPS):
            membrane = 0.9 * membrane + self.layer(x.flatten(1))
            fired = self.spike_grad(membrane - 0.3)
            membrane = membrane - 0.3 * fired
            spikes.append(fired)
            membranes.append(membrane)
        return torch.stack(spikes), torch.stack(membranes)


class SinabsNet(nn.Module):
    """Batch first, as sinabs has it, and a state that somebody has to reset."""

    def __init__(self) -> None:
        super().__init__()
        layers = pytest.importorskip("sinabs.layers")
        self.layer, self.neuron = seeded(lambda: nn.Linear(36, 3)), layers.IAF(spike_threshold=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.layer(x.flatten(1))[:, None].expand(-1, STEPS, -1)).transpose(0, 1)


WRAPPED = {
    "snnTorch": lambda: wrap.snntorch(snntorch_net(), time_steps=STEPS),
    "SpikingJelly": lambda: wrap.spikingjelly(spikingjelly_net(), time_steps=STEPS),
    "Norse": lambda: wrap.norse(norse_net(), time_steps=12, readout="max"),
    "sinabs": lambda: wrap.callable(SinabsNet(), reset=lambda net: net.neuron.reset_states()),
    "anybody": lambda: wrap.callable(OwnLoop(), readout="count"),
}
each = pytest.mark.parametrize("make", WRAPPED.values(), ids=WRAPPED.keys())


def answered(model: nn.Module, count: int = 12) -> tuple[Tensor, Tensor]:
    images = torch.randint(0, 256, (count, 1, 6, 6), generator=torch.Generator().manual_seed(3)) / 255
    with torch.no_grad():
        return images, model.eval()(images).argmax(1)


@each
def test_a_wrapped_network_answers_alike_whatever_was_asked_before(make):
    model = make()
    images, _ = answered(model)
    with torch.no_grad():
        first = model(images)
        model(images.flip(0)[:5])
        assert torch.equal(model(images), first) and first.shape == (12, 3)
        assert torch.allclose(model(images[:1]), first[:1], atol=1e-6)
    assert first.std(0).max() > 0, "the logits depend on the image"


@each
def test_a_wrapped_network_is_attacked_by_other_surrogates_and_comes_back(make):
    model = make()
    images, labels = answered(model)
    state, own = copy.deepcopy(model.state_dict()), [getattr(m, name) for m, name in foreign_neurons(model)]
    budget = Budget(0.2)
    with torch.no_grad():
        logits = model(images)
    x = images.clone().requires_grad_(True)
    model(x).sum().backward()
    assert x.grad.abs().sum() > 0

    found = ensemble_attack(model, images, labels, budget, steps=2)
    adaptive = adaptive_ensemble(model, images, labels, budget, steps=14)
    one = pgd(model, images, labels, budget, gradient=surrogates.atan(), steps=2)
    assert list(members_for(model)) == list(MEMBERS)[:17] and set(found.by_member) <= set(MEMBERS)
    assert adaptive.members == tuple(MEMBERS)[:17] and adaptive.pulls.sum() > 0
    assert one.backwards.sum() > 0
    assert [getattr(m, name) for m, name in foreign_neurons(model)] == own and own
    assert torch.equal(model(images), logits)
    after = model.state_dict()
    assert after.keys() == state.keys()
    copy.deepcopy(model)  # no graph is left in a state


@each
def test_other_surrogates_give_other_gradients_and_the_same_spikes(make):
    model = make()
    images, labels = answered(model)
    slopes = []
    for surrogate in (surrogates.atan(2.0), surrogates.rectangular(0.05)):
        x = images.clone().requires_grad_(True)
        with attacker_surrogate(model, surrogate):
            logits = model(x)
        assert torch.equal(logits, model(images))
        slopes.append(torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), x)[0])
    assert not torch.allclose(*slopes)


@each
def test_a_wrapped_network_is_audited(make):
    model = make()
    report = audit(model, *answered(model), Budget(0.05), effort=SMALL)
    assert report.model == type(model.net).__name__ and report.correct == 12
    assert report.finding("ensemble_gain").outcome != "not done"
    assert "snnlib's neurons" in report.finding("backward_rule_gain").remark


def test_adaptive_choices_reach_each_sample_of_a_foreign_neuron():
    """What sample i gets from the mixture is what the surrogate that it chose gives to everybody."""
    model = wrap.snntorch(snntorch_net(), time_steps=STEPS)
    images, _ = answered(model, 6)
    both = tuple(bptt(each) for each in (surrogates.atan(), surrogates.rectangular(0.3)))
    choice = torch.tensor([0, 1, 1, 0, 1, 0])

    def slope(gradient) -> Tensor:
        x = images.clone().requires_grad_(True)
        with gradient.applied(model):
            return torch.autograd.grad(model(x)[:, 0].sum(), x)[0]

    mixture = PerSample(both)
    mixture.choose(choice)
    mixed, alone = slope(mixture), [slope(gradient) for gradient in both]
    for row, number in enumerate(choice.tolist()):
        torch.testing.assert_close(mixed[row], alone[number][row])


def test_a_rule_for_our_neurons_is_refused_with_what_to_take_instead():
    model = wrap.callable(OwnLoop(), readout="count")
    with pytest.raises(InputError, match="backward_through_rate, a rule for snnlib's neurons.*expected a surrogate"):
        pgd(model, *answered(model), Budget(0.1), gradient=backward_through_rate())


def test_neurons_that_fire_otherwise_with_another_surrogate_are_refused():
    class Peculiar(OwnLoop):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            other = type(self.spike_grad).__name__ == "function"
            spikes, membranes = super().forward(x)
            return (1 - spikes if other else spikes), membranes

    model = wrap.callable(Peculiar(), readout="count")
    images, labels = answered(model)
    with pytest.raises(InputError, match="atan.* the model's neurons fire otherwise: this would be another function"):
        pgd(model, images, labels, Budget(0.1), gradient=surrogates.atan())
    report = audit(model, images, labels, Budget(0.05), effort=SMALL)
    assert "another function" in report.finding("ensemble_gain").remark


@pytest.mark.parametrize("mode", ["s", "m"])
def test_spikingjelly_networks_run_in_either_step_mode(mode):
    net = spikingjelly_net(mode)
    images, _ = answered(wrap.callable(OwnLoop()))
    model = wrap.spikingjelly(net, time_steps=STEPS)
    reference = wrap.spikingjelly(spikingjelly_net("m"), time_steps=STEPS)
    assert torch.allclose(model(images), reference(images))
    net[1].step_mode = "m" if mode == "s" else "s"
    with pytest.raises(InputError, match='some layers have step mode "s", others "m"'):
        model(images)


def test_the_state_of_other_networks_is_left_alone():
    bystander = snntorch_net()
    bystander(torch.rand(2, 1, 6, 6))
    kept = bystander[-1].mem.clone()
    model = wrap.snntorch(snntorch_net(), time_steps=STEPS)
    model(torch.rand(2, 1, 6, 6))
    assert torch.equal(bystander[-1].mem, kept) and kept.abs().sum() > 0
    assert model.net[0][1].mem.abs().sum() == 0, "the nested neuron is reset"


def test_readouts_are_what_they_say():
    net = OwnLoop()
    images = torch.rand(5, 1, 6, 6)
    spikes, membrane = net(images)
    wanted = {
        None: spikes.sum(0),
        "count": spikes.sum(0),
        "mean": spikes.mean(0),
        "last_membrane": membrane[-1],
        "max": membrane.amax(0),
    }
    for readout, logits in wanted.items():
        assert torch.equal(wrap.callable(net, readout=readout)(images), logits)
    own = wrap.callable(net, readout=lambda spikes, membrane: spikes[-1] - membrane[-1])
    assert torch.equal(own(images), spikes[-1] - membrane[-1])
    listed = wrap.callable(lambda x: ([*net(x)[0]], [*net(x)[1]]), readout="last_membrane")
    assert torch.equal(listed(images), membrane[-1])
    logits_with_extras = wrap.callable(lambda x: (net(x)[0].mean(0), {"rate": 0.1}))
    assert torch.equal(logits_with_extras(images), spikes.mean(0))


def test_preprocessing_is_in_the_graph_and_an_encoder_gives_the_frames():
    layer = seeded(lambda: nn.Linear(36, 3))
    model = wrap.callable(
        nn.Sequential(nn.Flatten(), layer), time_steps=2, readout="mean", preprocessing=lambda x: (x - 0.5) / 0.25
    )
    x = torch.rand(4, 1, 6, 6, requires_grad=True)
    torch.testing.assert_close(model(x), layer(((x - 0.5) / 0.25).flatten(1)))
    (slope,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    torch.testing.assert_close(slope[0].flatten(), layer.weight[0] / 0.25)

    encoder = build_encoder("phase", 8)
    coded = wrap.callable(nn.Flatten(), time_steps=8, readout="mean", preprocessing=encoder)
    torch.testing.assert_close(coded(x), encoder(x).mean(0).flatten(1))
    with pytest.raises(InputError, match="time_steps is 3, and there are 8 frames per sample"):
        wrap.callable(nn.Flatten(), time_steps=3, preprocessing=encoder)(x)


def test_frames_of_events_are_taken_sample_first():
    events = torch.rand(4, STEPS, 2, 3, 3)
    model = wrap.callable(nn.Flatten(), time_steps=STEPS, readout="count")
    torch.testing.assert_close(model(events), events.sum(1).flatten(1))


def test_the_wrapper_says_what_it_cannot_take():
    with pytest.raises(InputError, match="Linear has no layer of snnTorch; expected some; wrap.callable takes any"):
        wrap.snntorch(nn.Linear(2, 2), time_steps=2)
    with pytest.raises(InputError, match="net is 3; expected a module or a function"):
        wrap.callable(3)
    with pytest.raises(InputError, match="readout is 'sum'; expected one of count, mean, last_membrane, max"):
        wrap.callable(nn.Flatten(), readout="sum")
    with pytest.raises(InputError, match="time_steps is 0; expected a whole number of at least 1"):
        wrap.callable(nn.Flatten(), time_steps=0)
    batch_first = wrap.callable(lambda x: torch.rand(len(x), 7, 3), readout="count")
    with pytest.raises(InputError, match=r"returned \[5, 7, 3\]; expected \[T, 5, classes\], time first: transpose"):
        batch_first(torch.rand(5, 1, 6, 6))


@pytest.mark.parametrize("output", ["tuple", "tensor"])
def test_bare_tuples_and_time_first_outputs_are_refused_with_the_remedy(output):
    class Bare(OwnLoop):
        def forward(self, x: Tensor):
            return super().forward(x) if output == "tuple" else super().forward(x)[0]

    images, labels = torch.rand(5, 1, 6, 6), torch.zeros(5, dtype=torch.int64)
    kind = r"tuple of \[4, 5, 3\], \[4, 5, 3\]" if output == "tuple" else r"\[4, 5, 3\]"
    refused = rf"the model returned {kind}; expected logits \[5, classes\]; .* wrap it: snnlib.wrap.callable"
    for attempt in (pgd, ensemble_attack, adaptive_ensemble, lambda *inputs: audit(*inputs, effort=SMALL)):
        with pytest.raises(InputError, match=refused):
            attempt(Bare(), images, labels, Budget(0.1))


def test_models_with_our_neurons_and_others_follow_one_surrogate():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    model[1].spike_grad = surrogates.atan().spike
    assert members_for(model).keys() == {*list(MEMBERS)[:17]}
    assert members_for(nn.Sequential(model, LIF())).keys() == MEMBERS.keys()
