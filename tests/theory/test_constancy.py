"""P4's radius, by hand and against perturbations just inside and just outside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.models import build_model
from snnlib.neurons import LIF
from snnlib.theory import NoRadius, TrueClassProbability, constancy_radius


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
    with pytest.raises(NoRadius, match="MaxPool2d lies before"):
        constancy_radius(front, images, labels)
    with pytest.raises(NoRadius, match="something that is no layer changes the input of LIF"):
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
