"""P4's radius, by hand and against perturbations just inside and just outside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.models import build_model
from snnlib.neurons import LIF
from snnlib.theory import NoRadius, TrueClassProbability, check_constancy, check_ratio, constancy_radius
from snnlib.theory.checks import NO_BYPASS


class OneNeuron(nn.Module):
    """x [N, 2] → one neuron with weights (1, −2), T steps → logits (0, number of spikes)."""

    def __init__(self, time_steps: int, **options) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.linear = nn.Linear(2, 1, bias=False)
        self.linear.weight.data = torch.tensor([[1.0, -2.0]])
        self.neuron = LIF(**options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        currents = self.linear(x)
        spikes = self.neuron(currents.expand(self.time_steps, *currents.shape)).sum(0)
        return torch.cat([torch.zeros_like(spikes), spikes], 1)


@pytest.mark.parametrize(
    "options, current, expected",
    [
        # T = 2, leak 1, current 0.4: h = 0.4, 0.8; distances 0.6 / (3·1) and 0.2 / (3·2).
        ({"leak": 1.0}, 0.4, 0.2 / 6),
        # leak 0.5: h = 0.4, 0.6; Λ = 1, 1.5: 0.4 / 4.5.
        ({"leak": 0.5}, 0.4, 0.4 / 4.5),
        # A spike at the first step, hard reset: h = 1.5, 1.5 again, and the memory starts anew: 0.5 / 3.
        ({"leak": 1.0, "threshold": 1.0}, 1.5, 0.5 / 3),
        # Soft reset keeps the memory: h = 1.5, 0.5 + 1.5 = 2.0; 0.5 / 3 and 1 / 6.
        ({"leak": 1.0, "reset": "soft"}, 1.3, 0.3 / 3),
    ],
)
def test_by_hand(options, current, expected):
    model = OneNeuron(2, **options)
    scale = 1.0
    if current > 1:  # pixels end at 1
        model.linear.weight.data *= 2
        scale = 2.0
    x = torch.tensor([[current / scale, 0.0]])
    assert constancy_radius(model, x, torch.tensor([0])).item() == pytest.approx(expected / scale, rel=1e-5)


def test_just_inside_nothing_moves_and_just_outside_something_does():
    model = OneNeuron(2, leak=1.0)
    x, label = torch.tensor([[0.6, 0.1]]), torch.tensor([0])
    radius = constancy_radius(model, x, label).item()
    function = TrueClassProbability(model, x, label)
    worst = torch.tensor([[1.0, -1.0]])
    assert function.change(x + 0.99 * radius * worst).item() == 0
    assert function.change(x + 1.01 * radius * worst).item() != 0


@pytest.mark.parametrize("encoder, space", [("direct", "image"), ("phase", "encoded")])
def test_whole_networks_keep_every_logit_within_it(encoder, space):
    model = build_model("sew_resnet18", 10, 3, encoder, width=4, seed=1, leak=0.9).eval()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_var, 0.5, 2.0, generator=torch.Generator().manual_seed(0))
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    radius = constancy_radius(model, images, torch.zeros(4, dtype=torch.int64), space=space)
    x = images if space == "image" else model.encoder(images)
    per_sample = (0.9 * radius).float().view([4 if side == 4 else 1 for side in x.shape[: x.dim() - 3]] + [1, 1, 1])
    run = model if space == "image" else model.body
    with torch.no_grad():
        for seed in range(4):
            sign = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
            assert torch.equal(run(x + per_sample * sign), run(x))


def test_what_has_no_radius_is_said():
    images, labels = torch.rand(1, 3, 16, 16), torch.tensor([0])
    with pytest.raises(NoRadius, match="PhaseEncoder is a step"):
        constancy_radius(build_model("sew_resnet18", 10, 2, "phase", width=4, seed=0), images, labels)
    front = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(192, 3), OneTimeStep())
    with pytest.raises(NoRadius, match="max_pool2d_with_indices, which is no layer"):
        constancy_radius(front, images, labels)
    with pytest.raises(NoRadius, match="mul, which is no layer, changes the input of LIF"):
        constancy_radius(Doubled(2, leak=1.0), torch.tensor([[0.3, 0.1]]), labels)


class Doubled(OneNeuron):
    """A product that no module stands for: a path of hooks alone would miss it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        currents = 2 * self.linear(x)
        spikes = self.neuron(currents.expand(self.time_steps, *currents.shape)).sum(0)
        return torch.cat([torch.zeros_like(spikes), spikes], 1)


class OneTimeStep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.neuron = LIF()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.neuron(x[None])[0]


class Beside(nn.Module):
    """x [N, 4] → z = W x → IF; `around(x, z)` [N, 3] is added to the spikes before the read-out."""

    def __init__(self, around, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first, self.last = nn.Linear(4, 3, bias=False).double(), nn.Linear(3, 3, bias=False).double()
        for layer in (self.first, self.last):
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
        self.around, self.neuron, self.other = around, LIF(leak=1.0), LIF(leak=1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.seen = self.first(x)
        return self.last(self.neuron(z[None])[0] + self.around(self, x, z))


BYPASSES = {
    "shortcut": lambda net, x, z: z,
    "detached": lambda net, x, z: z.detach(),
    "step": lambda net, x, z: (z > 0.3).double(),
    "gate that is shut here": lambda net, x, z: torch.relu(z - 5),
    "second layer of neurons": lambda net, x, z: net.other(3 * z[None])[0],
    "layer of its own": lambda net, x, z: net.first(x),
    "branch of the program": lambda net, x, z: torch.ones(3).double() * (1.0 if float(x[0, 0]) > 0.5 else 0.0),
    "written into a buffer": lambda net, x, z: torch.zeros(len(x), 3).double().index_copy_(1, torch.arange(3), z),
    "through the argument's name": lambda net, x, z: net.first(input=x),
}


@pytest.mark.parametrize("way", BYPASSES)
def test_whatever_goes_around_the_first_neuron_has_no_radius(way):
    x, labels = torch.rand(2, 4, generator=torch.Generator().manual_seed(1)).double(), torch.arange(2)
    with pytest.raises(NoRadius, match="carries the input past the first neuron"):
        constancy_radius(Beside(BYPASSES[way]), x, labels)


def test_what_reads_nothing_of_the_input_goes_around_nothing():
    model = Beside(lambda net, x, z: torch.ones(len(x), 3).double())
    x, labels = torch.rand(2, 4, generator=torch.Generator().manual_seed(1)).double(), torch.arange(2)
    assert (constancy_radius(model, x, labels) > 0).all() and check_constancy(model, x, labels).holds is True


def test_within_the_radius_of_the_spikes_a_shortcut_moves_the_logits_all_the_same():
    x, labels = torch.rand(20, 4, generator=torch.Generator().manual_seed(1)).double(), torch.arange(20) % 3
    result = check_constancy(Beside(BYPASSES["shortcut"]), x, labels, share=0.5)
    assert result.failed == (NO_BYPASS,) and result.conclusion is False
    assert "20 of 20 samples moved" in result.evidence and "says nothing here" in result.verdict


def test_a_shortcut_that_reads_spikes_goes_around_nothing():
    # The first block widens, so its shortcut is a convolution of the first neuron's spikes.
    model = build_model("wrn16_4", 10, 2, "direct", width=4, seed=0)
    assert constancy_radius(model, torch.rand(1, 3, 32, 32), torch.tensor([0])).item() > 0


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net.neuron, "rule", lambda layer, currents: currents),
        lambda net: net.first.register_forward_hook(lambda *call: 2 * call[2]),
        lambda net: net.neuron.register_forward_hook(lambda _, arguments, spikes: spikes + arguments[0]),
        lambda net: net.last.register_forward_hook(lambda _, __, logits: logits + net.seen),
    ],
    ids=["rule", "hook of a layer", "hook of the neuron", "hook behind the neuron"],
)
def test_a_network_that_is_not_what_its_weights_say_is_refused(change):
    model = Beside(lambda net, x, z: torch.zeros(len(x), 3).double())
    change(model)
    with pytest.raises(NoRadius):
        constancy_radius(model, torch.rand(1, 4).double(), torch.tensor([0]))


def test_squares_of_bits_are_no_affine_path():
    class Squared(OneNeuron):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x * x)

    # On bits x² = x: only other inputs tell the two apart.
    with pytest.raises(NoRadius, match="mul, which is no layer"):
        constancy_radius(Squared(2, leak=1.0), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))


def test_theorem_4_1_has_no_ratio_within_the_radius():
    model = OneNeuron(1, leak=1.0)
    x, label = torch.tensor([[0.6, 0.1]]), torch.tensor([0])
    eps = 0.9 * constancy_radius(model, x, label).item()
    result = check_ratio(TrueClassProbability(model, x, label), eps)
    assert result.holds is None and result.table.verdict.item() == "undefined: nothing moved f, 0/0"
    assert result.table.first_order.item() > 3
