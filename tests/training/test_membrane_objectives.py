"""MPD-SGR, TGO and TG-Reg: the membranes that they see, their formulas, and that they do what they are for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.neurons import LIF, neurons_of, surrogates
from snnlib.sparsity import input_gradient
from snnlib.training.objectives import membrane_guard, membrane_overlap, natural, step_slopes
from snnlib.training.objectives.membrane import recorded_membranes


class Charged(nn.Module):
    """The pixel is the current of one neuron over three steps; logits (0, spikes)."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.sn = LIF(leak=0.5, threshold=1.0, surrogate=surrogates.piecewise_linear(), **options)

    def forward(self, images):
        rate = self.sn((self.gain * images).expand(3, *images.shape)).mean(0).flatten(1)
        return torch.cat([torch.zeros_like(rate), rate], 1)


def vgg() -> nn.Module:
    return build_model("vgg11", 10, 3, width=4, dropout=0.0, seed=0).train()


def pictures(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(count)


@pytest.mark.parametrize("options", [{}, {"reset": "soft"}, {"detach_reset": False}], ids=str)
def test_recording_changes_neither_spikes_nor_gradients(options):
    images = torch.tensor([0.3, 0.7, 1.2]).view(3, 1, 1, 1)
    plain, recorded = Charged(**options), Charged(**options)
    wanted = plain(images)
    with recorded_membranes(recorded) as membranes:
        found = recorded(images)
    assert torch.equal(found, wanted) and recorded.sn.rule is None and len(membranes) == 1
    (found[:, 1].sum() * 3).backward()
    (wanted[:, 1].sum() * 3).backward()
    assert torch.allclose(recorded.gain.grad, plain.gain.grad)


def test_the_membrane_is_that_before_the_spike_less_the_threshold():
    images = torch.tensor([0.8]).view(1, 1, 1, 1)
    with recorded_membranes(model := Charged()) as (membranes):
        model(images)
    # 0.8; 0.8 + 0.4 = 1.2 fires and is reset to 0; 0.8.
    assert membranes[0].flatten().tolist() == pytest.approx([-0.2, 0.2, -0.2])


def test_the_overlap_is_the_normal_mass_near_the_threshold():
    images = torch.tensor([0.2, 0.6]).view(2, 1, 1, 1)
    _, parts = membrane_overlap(Charged(), images, torch.tensor([0, 1]), weight=1.0, width=0.5)
    first, second = torch.tensor([-0.8, -0.4]), torch.tensor([-0.7, -0.1])  # 0.3 and 0.9 after half of the leak
    third = torch.tensor([-0.65, 0.05])

    def mass(u: torch.Tensor) -> float:
        mean, deviation = u.mean().item(), u.std(correction=0).item()
        phi = torch.distributions.Normal(0.0, 1.0).cdf
        return (phi(torch.tensor((mean + 0.5) / deviation)) - phi(torch.tensor((mean - 0.5) / deviation))).item()

    assert parts["overlap"].item() == pytest.approx((mass(first) + mass(second) + mass(third)) / 3, rel=1e-4)


def test_the_guard_is_the_hinge_of_the_distance():
    images = torch.tensor([0.8]).view(1, 1, 1, 1)
    loss, parts = membrane_guard(Charged(), images, torch.tensor([1]), weight=2.0, margin=0.5)
    assert parts["constraint"].item() == pytest.approx(0.3)
    assert loss.item() == pytest.approx(natural(Charged(), images, torch.tensor([1]))[0].item() + 0.6)


@pytest.mark.parametrize("objective, part", [(membrane_overlap, "overlap"), (membrane_guard, "constraint")])
def test_a_few_steps_make_the_part_smaller(objective, part):
    model, (images, labels) = vgg(), pictures()
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    found = []
    for _ in range(8):
        loss, parts = objective(model, images, labels, weight=5.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(parts[part].item())
    assert found[-1] < 0.9 * found[0]
    assert all(layer.rule is None for layer in neurons_of(model))


@pytest.mark.parametrize(
    ("objective", "options"), [(membrane_overlap, {}), (membrane_guard, {"margin": 1.0})], ids=["overlap", "guard"]
)
def test_what_is_pushed_from_the_threshold_has_no_gradient_left_for_the_networks_own_surrogate(objective, options):
    """A wider surrogate still sees the membranes: the attacker is blind, and the audit's ensemble has to find it."""
    model, (images, labels) = vgg(), pictures()
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    wide = surrogates.exponential(height=1.0, rate=0.5)

    def slopes() -> list[float]:
        seen = {"batch_norm": "train", "gradient": None}, {"batch_norm": "train", "gradient": wide}
        return [input_gradient(model, images, labels, **each).norm().item() for each in seen]

    assert min(slopes()) > 0
    for _ in range(10):
        loss, _ = objective(model, images, labels, weight=10.0, **options)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    own, by_wide = slopes()
    assert own == 0 and by_wide > 1


def test_noise_is_fixed_by_the_global_generator_and_moves_the_membranes():
    model, (images, labels) = vgg(), pictures()
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(membrane_guard(model, images, labels, weight=1.0, noise=0.3)[1]["constraint"].item())
    assert found[0] == found[1] != found[2]


def test_the_step_sensitivity_is_the_squared_sum_of_the_log_likelihoods_slope():
    """Against the same sum taken frame by frame from a pass of its own."""
    model, (images, labels) = vgg(), pictures(3)
    torch.manual_seed(0)
    loss, parts = step_slopes(model, images, labels, weight=2.0)
    torch.manual_seed(0)
    total = 0.0
    for step in range(3):
        frames = model.encoder(images).clone().requires_grad_(True)
        logits = model.body.read_out(model.body.normalise(frames))[: step + 1].mean(0)
        drawn = torch.multinomial(logits.detach().softmax(1), 1)
        (slope,) = torch.autograd.grad(logits.log_softmax(1).gather(1, drawn).sum(), frames)
        total += slope[step].flatten(1).sum(1).square().mean().item()
    assert parts["sensitivity"].item() == pytest.approx(total, rel=1e-3)
    assert math.isfinite(loss.item()) and loss.item() > 2 * parts["sensitivity"].item()


def test_the_step_sensitivity_has_a_gradient_of_its_own():
    model, (images, labels) = vgg(), pictures(3)
    step_slopes(model, images, labels, weight=1.0)[0].backward()
    with_it = model.body.fc.weight.grad.clone()
    model.zero_grad()
    step_slopes(model, images, labels, weight=0.0)[0].backward()
    assert (with_it - model.body.fc.weight.grad).norm() > 0


def test_input_error_when_a_model_has_no_membrane_or_no_read_out_per_step():
    with pytest.raises(InputError, match="no spiking layer of snnlib"):
        membrane_guard(nn.Flatten(), *pictures(), weight=1.0)
    with pytest.raises(InputError, match="no read-out per step"):
        step_slopes(Charged(), *pictures(), weight=1.0)
