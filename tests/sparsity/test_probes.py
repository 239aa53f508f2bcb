"""Probes on networks small enough to count the zeros by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.neurons import LIF, surrogates, use_kernel
from snnlib.sparsity import gradient_by_operation, input_gradient, input_gradient_measures

LABELS = torch.tensor([0, 1, 2, 0, 1])


@pytest.fixture(autouse=True)
def plain_neurons():
    """The reference loop needs no compilation, and the zeros do not depend on the kernel."""
    with use_kernel("reference"):
        yield


def images(samples: int = 5, channels: int = 1, side: int = 8) -> Tensor:
    return torch.rand(samples, channels, side, side, generator=torch.Generator().manual_seed(1))


def seeded(*modules: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(*modules)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def row(table, operation: str):
    return table[table.operation == operation].iloc[0]


class Repeat(nn.Module):
    """Direct coding as a view: all T steps share one memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(3, *x.shape)


class StaticBody(nn.Module):
    """A body that runs a static input once, as direct coding allows; T = 3."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 3)

    def forward(self, encoded: Tensor) -> Tensor:
        if encoded.stride(0) == 0:
            return self.fc(encoded[0].flatten(1))
        return self.fc(encoded.flatten(2).flatten(0, 1)).unflatten(0, encoded.shape[:2]).mean(0)


class Block(nn.Module):
    """Input shared by a stride-2 shortcut and a neuron over T = 1."""

    is_residual_block = True

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.sn = LIF(leak=1.0)
        self.shortcut = nn.Conv2d(1, 4, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.sn(self.conv(x)[None])[0] + self.shortcut(x)


@pytest.mark.parametrize(("pool", "expected"), [(nn.MaxPool2d, 0.75), (nn.AvgPool2d, 0.0)])
def test_pool_zeros_are_counted_exactly_when_windows_overlap(pool, expected):
    # Falling ramp 8x8, kernel 3, stride 2, padding 1: each of the 16 windows takes its own upper left pixel
    # that is not padding: rows and columns 0, 1, 3, 5. So 16 distinct winners among 64.
    ramp = torch.arange(64, 0, -1.0).div(64).view(1, 1, 8, 8)
    model = seeded(pool(3, stride=2, padding=1), nn.Flatten(), nn.Linear(16, 3))
    table = gradient_by_operation(model, ramp, LABELS[:1])
    assert row(table, "0").zero_share_grad_input == expected
    assert row(table, "0").elements == 64
    assert row(table, "0").zero_share_grad_output == 0


def test_max_pool_leaves_at_least_three_quarters_zero_when_ties_share_a_winner():
    model = seeded(nn.MaxPool2d(3, stride=2, padding=1), nn.Flatten(), nn.Linear(16, 3))
    spike = torch.zeros(1, 1, 8, 8)
    spike[0, 0, 3, 3] = 1  # wins the four windows around it; the other twelve take their first entry
    share = row(gradient_by_operation(model, spike, LABELS[:1]), "0").zero_share_grad_input
    assert share >= 0.75
    assert share == pytest.approx(1 - self_counted_winners(spike) / 64)


def self_counted_winners(x: Tensor) -> int:
    winners = set()
    for top in range(-1, 6, 2):
        for left in range(-1, 6, 2):
            window = [(r, c) for r in range(top, top + 3) for c in range(left, left + 3) if min(r, c) >= 0]
            winners.add(max(window, key=lambda at: (x[0, 0, at[0], at[1]].item(), -at[0], -at[1])))
    return len(winners)


def test_strided_1x1_convolution_has_three_quarters_zeros_when_batches_are_uneven():
    model = seeded(nn.Conv2d(1, 2, 1, stride=2), nn.Flatten(), nn.Linear(32, 3))
    table = gradient_by_operation(model, images(), LABELS, batch_size=2)
    assert row(table, "0").zero_share_grad_input == 0.75
    assert row(table, "0").small_share_grad_input == 0.75
    assert row(table, "2").zero_share_grad_input == 0


def test_shared_input_is_split_between_operations_when_shortcut_and_convolution_both_read_it():
    model = seeded(nn.Conv2d(1, 1, 3, padding=1), Block(), nn.Flatten(), nn.Linear(64, 3))
    table = gradient_by_operation(model, images(), LABELS)
    assert row(table, "1.shortcut").zero_share_grad_input == 0.75
    assert row(table, "1.conv").zero_share_grad_input == 0
    assert row(table, "0").zero_share_grad_output == 0  # the sum over both consumers


def test_block_names_follow_the_attribute_when_operations_lie_inside_and_outside():
    model = seeded(nn.Conv2d(1, 1, 3, padding=1), Block(), nn.Flatten(), nn.Linear(64, 3))
    table = gradient_by_operation(model, images(), LABELS)
    assert table.operation.tolist() == ["0", "1.conv", "1.sn", "1.shortcut", "3"]
    assert table.kind.tolist() == ["Conv2d", "Conv2d", "LIF", "Conv2d", "Linear"]
    assert table.block.tolist() == ["", "1", "1", "1", ""]
    assert table.inside_residual_block.tolist() == [False, True, True, True, False]


def test_norm_and_zero_share_equal_autograd_when_a_module_runs_once_per_time_step():
    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()
            self.fc = seeded(nn.Linear(64, 3))

        def forward(self, x: Tensor) -> Tensor:
            return sum(self.fc(self.relu((step + 1) * x.flatten(1) - 0.5)) for step in range(2))

    model, x = Unrolled(), images()
    table = gradient_by_operation(model, x, LABELS, batch_size=2)
    fed = [((step + 1) * x.flatten(1) - 0.5).requires_grad_(True) for step in range(2)]
    logits = sum(model.fc(model.relu(one)) for one in fed)
    loss = nn.functional.cross_entropy(logits, LABELS, reduction="sum")
    grads = torch.stack(torch.autograd.grad(loss, fed), 1)
    relu = row(table, "relu")
    assert relu.zero_share_grad_input == pytest.approx((grads == 0).double().mean().item())
    assert relu.l2_grad_input == pytest.approx(grads.flatten(1).norm(dim=1).mean().item(), rel=1e-6)
    assert relu.elements == 128


def test_in_place_layers_are_read_before_they_overwrite():
    plain = seeded(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    in_place = nn.Sequential(plain[0], nn.ReLU(inplace=True), plain[2], plain[3])
    expected = gradient_by_operation(plain, images(), LABELS)
    assert gradient_by_operation(in_place, images(), LABELS).equals(expected)
    assert 0.1 < row(expected, "1").zero_share_grad_input < 0.9


def test_dead_share_counts_channels_when_a_neuron_cannot_fire():
    add_time, drop_time = nn.Unflatten(0, (1, -1)), nn.Flatten(0, 1)
    model = seeded(nn.Conv2d(1, 4, 1), add_time, LIF(leak=1.0), drop_time, nn.Flatten(), nn.Linear(256, 3))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.copy_(torch.tensor([1.0, -9.0, 1.0, -9.0]))
    table = gradient_by_operation(model, images(), LABELS)
    assert row(table, "2").dead_share == 0.5
    assert math.isnan(row(table, "0").dead_share)


class Features(nn.Module):
    """Two linear layers with neurons between, dropout behind, on [T, N, F]: as it is, or flattened to [T·N, F]."""

    def __init__(self, time_steps: int, flatten: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.time_steps, self.flatten = time_steps, flatten
        self.first, self.sn, self.drop, self.head = nn.Linear(64, 20), LIF(), nn.Dropout(), nn.Linear(20, 3)

    def over_time(self, layer: nn.Module, x: Tensor) -> Tensor:
        return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2]) if self.flatten else layer(x)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.linspace(1, 2, self.time_steps).view(-1, 1, 1) * x.flatten(1)
        return self.over_time(self.head, self.over_time(self.drop, self.sn(self.over_time(self.first, steps)))).sum(0)


@pytest.mark.parametrize("time_steps", [1, 4, 5, 10])
@pytest.mark.parametrize("batch_size", [5, 2])
def test_layers_fed_with_the_time_axis_are_read_as_their_flattened_twins(time_steps, batch_size):
    tables = [
        gradient_by_operation(Features(time_steps, flatten), images(), LABELS, batch_size=batch_size)
        for flatten in (True, False)
    ]
    flattened, with_time = (table.set_index("operation") for table in tables)
    assert with_time.loc["first", "elements"] == time_steps * 64
    pd.testing.assert_frame_equal(with_time, flattened)


def test_a_network_without_neurons_may_have_a_time_axis_too():
    for flatten in (True, False):
        model = Features(4, flatten)
        model.sn = nn.ReLU()
        table = gradient_by_operation(model, images(), LABELS)
        assert row(table, "head").elements == 4 * 20


@pytest.mark.parametrize("encoder", ["direct", "phase"])
@pytest.mark.parametrize("spiking", [True, False])
@pytest.mark.parametrize("time_steps", [2, 5])
def test_elements_of_a_vgg_count_every_time_step(encoder, spiking, time_steps):
    model = build_model(
        "vgg11", 3, time_steps, encoder, width=1, image_size=8, threshold=0.1, spiking=spiking, seed=0
    )
    pictures = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    table = gradient_by_operation(model, pictures, LABELS)
    steps = time_steps if spiking or encoder == "phase" else 1
    for name in ("hidden.0.sn", "hidden.0.dropout", "hidden.1.fc", "fc"):
        assert row(table, f"body.{name}").elements == steps * 64


class Twice(nn.Module):
    """One neuron for maps of 4 and then of 2 channels, or one for each."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.sn = LIF()
        self.sn2 = self.sn if shared else LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.sn2(self.second(self.sn(self.first(8 * x)[None])[0])[None])[0].flatten(1)


def test_one_neuron_module_at_two_places_is_two_operations():
    shared, apart = (gradient_by_operation(Twice(shared), images(), LABELS, batch_size=2) for shared in (True, False))
    assert shared.operation.tolist() == ["first", "sn", "second", "sn (call 2)"]
    assert shared.drop(columns="operation").equals(apart.drop(columns="operation"))
    assert not shared.dead_share[[1, 3]].isna().any()


def test_a_float64_network_is_read_with_float32_images():
    model = Features(3, flatten=True).double()
    table = gradient_by_operation(model, images(), LABELS)
    assert table.equals(gradient_by_operation(model, images().double(), LABELS))
    assert input_gradient(model, images(), LABELS).dtype == torch.float64
    assert len(input_gradient_measures(model, images(), LABELS, batch_size=np.int64(2))) == 5


def test_gradient_at_a_sample_ignores_its_batch_when_batch_norm_is_in_eval():
    model = seeded(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3))
    whole = input_gradient(model, images(), LABELS)
    torch.testing.assert_close(whole, input_gradient(model, images(), LABELS, batch_size=1))
    coupled = input_gradient(model, images(), LABELS, batch_norm="train")
    assert not torch.allclose(whole, coupled)


def test_every_time_step_has_its_own_gradient_when_direct_coding_repeats_a_view():
    model = nn.Module()
    model.encoder, model.body = Repeat(), StaticBody()
    grad = input_gradient(model, images(), LABELS, space="encoded")
    assert grad.shape == (5, 3, 1, 8, 8)
    torch.testing.assert_close(grad[:, 0], grad[:, 2])
    assert grad[:, 2].abs().amax() > 0


def test_true_class_probability_gradient_equals_softmax_rule_when_model_is_linear():
    model = seeded(nn.Flatten(), nn.Linear(64, 3))
    grad = input_gradient(model, images(), LABELS, target="true_class_probability").flatten(1)
    p = model(images()).softmax(1).detach()
    one_hot = torch.eye(3)[LABELS]
    p_true = p.gather(1, LABELS[:, None])
    torch.testing.assert_close(grad, p_true * (one_hot - p) @ model[1].weight.detach())


def test_measures_table_has_one_row_per_sample_when_input_gradient_is_partly_zero():
    model = seeded(nn.Conv2d(1, 2, 1, stride=2), nn.Flatten(), nn.Linear(32, 3))
    table = input_gradient_measures(model, images(), LABELS, batch_size=2)
    assert table["sample"].tolist() == [0, 1, 2, 3, 4]
    assert table.label.tolist() == LABELS.tolist()
    assert table.zero_share.tolist() == [0.75] * 5
    assert table.l0.tolist() == [16.0] * 5


@pytest.mark.parametrize("probe", [gradient_by_operation, input_gradient])
@pytest.mark.parametrize("fails", [False, True])
def test_model_comes_back_as_it_was_when_the_probe_ends_or_fails(probe, fails):
    model = seeded(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(72, 3))
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if fails:
        with pytest.raises(InputError, match="classes 0..2"):
            probe(model, images(), LABELS + 5, batch_norm="train")
    else:
        probe(model, images(), LABELS, batch_norm="train")
    assert [module.training for module in model] == [True, False, True, True, True]
    assert [weight.requires_grad for weight in model.parameters()] == [False] + [True] * 5
    assert model[4].weight.grad.eq(1).all()
    assert model[4].bias.grad is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_another_surrogate_changes_the_gradient_and_leaves_the_neuron_alone():
    model = seeded(nn.Conv2d(1, 1, 3, padding=1), Block(), nn.Flatten(), nn.Linear(64, 3))
    own = model[1].sn.surrogate
    table = gradient_by_operation(model, images(), LABELS, gradient=surrogates.rectangular(width=1e-6))
    assert row(table, "1.sn").zero_share_grad_input == 1
    assert row(gradient_by_operation(model, images(), LABELS), "1.sn").zero_share_grad_input == 0
    assert model[1].sn.surrogate is own


def test_unfit_requests_are_refused_with_one_line():
    model = seeded(nn.Flatten(), nn.Linear(64, 3))
    for call, message in (
        (lambda: gradient_by_operation(model, images(), LABELS, batch_norm="off"), "batch_norm is 'off'"),
        (lambda: gradient_by_operation(model, images(), LABELS, space="encoded"), "no .encoder"),
        (lambda: gradient_by_operation(model, images(), LABELS[:3]), "labels have shape"),
        (lambda: gradient_by_operation(model, images(), LABELS, batch_size=0), "batch_size is 0"),
        (lambda: input_gradient(model, images(), LABELS, target="logit"), "target is 'logit'"),
        (lambda: input_gradient(nn.Sequential(Cut(), model), images(), LABELS), "do not depend on"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


class Cut(nn.Module):
    """An encoder without a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0.5).to(x.dtype)


def test_operations_behind_a_cut_are_still_seen_when_no_gradient_reaches_the_image():
    model = nn.Sequential(Cut(), seeded(nn.Flatten(), nn.Linear(64, 3)))
    table = gradient_by_operation(model, images(), LABELS)
    assert table.operation.tolist() == ["0", "1.1"]
    assert table.elements.tolist() == [0, 64]
    assert math.isnan(row(table, "0").zero_share_grad_input)
    assert row(table, "1.1").l2_grad_input > 0


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_sew_resnet_has_63_operations_and_zeros_only_where_layers_skip_positions(pool):
    model = build_model("sew_resnet18", 10, 2, "phase", pool, 4, seed=0)
    pictures = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    table = gradient_by_operation(model, pictures, LABELS[:3], space="encoded", batch_norm="train")
    assert len(table) == 63
    assert table.inside_residual_block.sum() == 57
    skipping = table.operation.str.endswith("downsample.0")
    assert skipping.sum() == 3
    assert (table.zero_share_grad_input[skipping] >= 0.75).all()
    share = row(table, "body.pool").zero_share_grad_input
    assert share >= 0.75 if pool == "max" else share == 0
