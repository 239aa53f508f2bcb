"""Density of weight gradients: by hand, on a thousand random networks, and with bounds that are wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from snnlib.companion.luu2025.statements.counterexamples import PreActivation
from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.models.layers import over_time
from snnlib.neurons import LIF, Surrogate, surrogates
from snnlib.theory import check_density, weight_gradient_density
from snnlib.theory.checks import BEHIND_NEURON

SHARPEST_FIRST = ["density", "union", "rows_columns", "spikes"]


class Small(nn.Module):
    """Two spiking layers, dense or convolutional with BatchNorm, on a static input; then a linear read-out."""

    def __init__(self, convolutional: bool, time_steps: int, surrogate: Surrogate, bias: float = 0.0) -> None:
        super().__init__()
        self.time_steps, self.convolutional = time_steps, convolutional
        if convolutional:
            self.first = nn.Conv2d(2, 4, 3, padding=1, bias=False)
            self.second = nn.Conv2d(4, 3, 3, stride=2, bias=False)
            self.norm = nn.BatchNorm2d(4)
            nn.init.uniform_(self.norm.running_var, 0.5, 2.0)
        else:
            self.first, self.second = nn.Linear(6, 8, bias=False), nn.Linear(8, 5, bias=False)
            self.norm = nn.Identity()
        self.sn1 = LIF(leak=0.8, threshold=1.0 + bias, surrogate=surrogate, detach_reset=False)
        self.sn2 = LIF(leak=0.8, surrogate=surrogate, reset="soft")
        self.last = nn.Linear(3 if convolutional else 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(self.time_steps, *x.shape)
        s = self.sn1(over_time(self.norm, over_time(self.first, 2 * x)))
        s = self.sn2(over_time(self.second, s))
        return over_time(self.last, s.flatten(3).sum(3) if self.convolutional else s).mean(0)


def random_networks(count: int):
    families = list(surrogates.FAMILIES.values())
    for seed in range(count):
        torch.manual_seed(seed)
        convolutional = seed % 2 == 1
        model = Small(convolutional, 1 + seed // 2 % 8, families[seed // 16 % 8](), bias=0.5 * torch.rand(()).item())
        shape = (2, 5, 5) if convolutional else (6,)
        yield model, torch.rand(2, *shape) * (torch.rand(2, *shape) < 0.7), torch.randint(0, 3, (2,))


@pytest.fixture(autouse=True)
def own_random_state():
    with torch.random.fork_rng(devices=[]):
        yield


def test_a_thousand_random_networks_violate_no_bound():
    spread = set()
    for model, images, labels in random_networks(1000):
        table = weight_gradient_density(model, images, labels)
        assert table.behind_neuron.all() and not table.outside_union.any()
        for sharper, wider in zip(SHARPEST_FIRST, SHARPEST_FIRST[1:], strict=False):
            assert (table[sharper] <= table[wider] + 1e-12).all()
        assert (table.rows_columns <= table.architecture_spikes + 1e-12).all()
        assert (table.density <= table.time_sum + 1e-12).all()
        spread |= {round(value, 1) for value in table.density}
    assert len(spread) > 6, "densities of all sizes, else the test says little"


def by_hand() -> tuple[nn.Module, Tensor, Tensor]:
    """Three inputs, of which the second is 0; two neurons, of which one is never listened to."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.sn, self.last = nn.Linear(3, 2, bias=False), LIF(), nn.Linear(2, 2, bias=False)
            self.first.weight.data = torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]])
            self.last.weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.sn(self.first(x)[None])[0])

    return Model(), torch.tensor([[0.9, 0.0, 0.5]]), torch.tensor([0])


def test_two_layers_by_hand():
    table = weight_gradient_density(*by_hand()).set_index("layer")
    first, last = table.loc["first"], table.loc["last"]
    # δ reaches neuron 0 alone, s is (0.9, 0, 0.5): 2 of 6 entries; both neurons fire, both logits have a gradient.
    expected = [1 / 3, 1 / 3, 1 / 3, 2 / 3, 0.5, 2 / 3]
    assert [first[name] for name in (*SHARPEST_FIRST, "S", "r")] == pytest.approx(expected)
    assert first.architecture_spikes == first.time_sum == pytest.approx(1 / 3)
    assert [last[name] for name in SHARPEST_FIRST] == [1, 1, 1, 1]


def test_union_of_a_convolution_is_counted_entry_by_entry():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            corner = self.conv(x)[:, 0, 0, 0]
            return torch.stack([corner, -corner], 1)

    # The loss reads the upper left corner: its patch holds four pixels, of which one is zero here.
    images = torch.ones(1, 1, 4, 4)
    images[0, 0, 1, 1] = 0
    row = weight_gradient_density(Model(), images, torch.tensor([0])).iloc[0]
    assert row.density == row.union == row.time_sum == pytest.approx(3 / 9) and row.rows_columns == 1


def without_columns(model: nn.Module, table):
    """‖∂L/∂W‖₀ ≤ |R|, the factor |C| = r·n forgotten: as a density (1 − S) / n."""
    columns = [model.get_submodule(name).weight[0].numel() for name in table.layer]
    return (1 - table.S) / columns


def one_step(model: nn.Module, table):
    """Columns counted at one step of several, as by a firing rate: half of those that fire at all."""
    return table.architecture_spikes / 2


@pytest.mark.parametrize("wrong", [without_columns, one_step])
def test_wrong_bounds_are_caught(wrong):
    caught = 0
    for model, images, labels in random_networks(24):
        table = weight_gradient_density(model, images, labels)
        result = check_density(model, images, labels, table=table.assign(wrong=wrong(model, table)), bound="wrong")
        caught += result.holds is False
    assert caught > 18


def test_without_r_the_bound_is_still_one_but_wider():
    model, images, labels = by_hand()
    table = weight_gradient_density(model, images, labels)
    assert check_density(model, images, labels, table=table.assign(alone=1 - table.S), bound="alone").holds is True
    first = table[table.layer == "first"].iloc[0]
    assert first.density == first.architecture_spikes < 1 - first.S


def test_a_shortcut_around_the_neuron_is_named():
    images, labels = torch.rand(2, 6), torch.tensor([0, 1])
    result = check_density(PreActivation(), images, labels)
    assert result.failed == (BEHIND_NEURON,) and result.conclusion is False and "used elsewhere" in result.verdict
    assert check_density(PreActivation(), images, labels, bound="rows_columns").holds is True


def test_bounds_per_batch_survive_batch_norm_in_train_mode():
    for model, images, labels in random_networks(24):
        for bound in ("union", "rows_columns", "architecture_spikes", "spikes"):
            assert check_density(model, images, labels, bound=bound, batch_norm="train").holds is True


@pytest.mark.parametrize("name", ["sew_resnet18", "spiking_resnet18"])
@pytest.mark.parametrize("encoder, space", [("direct", "image"), ("phase", "encoded")])
def test_layers_of_the_real_networks_lie_before_their_neurons(name, encoder, space):
    model = build_model(name, 10, 2, encoder, width=4, seed=0).train()
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([3, 4])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    table = weight_gradient_density(model, images, labels, space=space, batch_norm="train")
    assert table.behind_neuron.all() and len(table) == 21 and not table.outside_union.any()
    assert model.training and all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_per_sample_gives_one_row_for_each():
    model, images, labels = next(random_networks(1))
    table = weight_gradient_density(model, images, labels, per="sample")
    assert table["sample"].tolist() == [0, 0, 0, 1, 1, 1]
    alone = weight_gradient_density(model, images[1:], labels[1:])
    assert table[table["sample"] == 1].density.tolist() == alone.density.tolist()


def test_bad_input_is_one_clear_line():
    model, images, labels = next(random_networks(1))
    with pytest.raises(InputError, match="expected a batch"):
        weight_gradient_density(model, images[:1], labels[:1], batch_norm="train")
    with pytest.raises(InputError, match="per is 'image'"):
        weight_gradient_density(model, images, labels, per="image")
    with pytest.raises(InputError, match="no convolution or linear"):
        weight_gradient_density(nn.Flatten(), images, labels)
    shared = nn.Linear(6, 6)
    with pytest.raises(InputError, match="runs 2 times"):
        weight_gradient_density(nn.Sequential(shared, nn.ReLU(), shared), images, labels)
    grouped = nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Flatten())
    with pytest.raises(InputError, match="2 groups"):
        weight_gradient_density(grouped, torch.rand(1, 2, 3, 3), labels[:1])
