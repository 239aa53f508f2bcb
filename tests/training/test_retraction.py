"""SNN-RAT's retraction and projection: by hand, by their limits, and which rows they touch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from snnlib.models.convertible import MixedBranches
from snnlib.training import fit
from snnlib.training.retraction import nearest_on_simplex, project_mixing, retract_weights


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(weight: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.clone())
    return layer


def test_small_matrix_is_retracted_when_computed_by_hand():
    layer = linear(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    retract_weights(layer, 0.1, generator())
    # W Wᵀ W = [[5, 2], [2, 1]] W = [[5, 12], [2, 5]]
    assert torch.allclose(layer.weight, torch.tensor([[1.1 - 0.5, 2.2 - 1.2], [0.0 - 0.2, 1.1 - 0.5]]))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_convolution_is_one_matrix_of_outputs_by_taps_when_retracted(memory_format):
    layer = nn.Conv2d(3, 300, 2).to(memory_format=memory_format)
    before = layer.weight.detach().clone()
    matrix = before.reshape(300, 12)
    retract_weights(nn.Sequential(layer), 0.01, generator())
    expected = (1.01 * matrix - 0.01 * matrix @ matrix.T @ matrix).view(300, 3, 2, 2)
    assert torch.allclose(layer.weight, expected, atol=1e-6)
    assert layer.weight.is_contiguous(memory_format=memory_format) and not torch.equal(layer.weight, before)


def test_singular_values_go_to_one_when_retracted_often():
    layer = linear(torch.tensor([[1.5, 0.0, 0.0], [0.3, 0.2, 0.1]]))
    for _ in range(400):
        retract_weights(layer, 0.05, generator())
    assert torch.allclose(torch.linalg.svdvals(layer.weight), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize(("rows", "touched"), [(199, 199), (200, 60), (205, 61)])
def test_thirty_percent_of_the_rows_take_part_when_a_linear_layer_is_large(rows, touched):
    before = torch.randn(rows, 5, generator=generator())
    layers = [linear(before), linear(before), linear(before)]
    for layer, seed in zip(layers, (1, 1, 2), strict=True):
        retract_weights(layer, 0.01, generator(seed))
    changed = [(layer.weight != before).any(1) for layer in layers]
    assert changed[0].sum() == touched
    part = before[changed[0]]
    assert torch.allclose(layers[0].weight[changed[0]], 1.01 * part - 0.01 * part @ part.T @ part, atol=1e-5)
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert torch.equal(changed[0], changed[2]) == (touched == rows)


def test_frozen_weights_biases_and_norms_stay_when_retracted():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    model[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    retract_weights(model, 0.1, generator())
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["2.weight"] and model[2].weight.requires_grad


@pytest.mark.parametrize(
    ("vector", "nearest"),
    [
        ([0.5, 0.9], [0.3, 0.7]),
        ([2.0, -1.0], [1.0, 0.0]),
        ([0.25, 0.75], [0.25, 0.75]),
        ([0.1, 0.1], [0.5, 0.5]),
        ([0.6, 0.5, -0.3], [0.55, 0.45, 0.0]),
    ],
)
def test_projection_is_the_nearest_point_of_the_simplex_when_computed_by_hand(vector, nearest):
    assert torch.allclose(nearest_on_simplex(torch.tensor(vector)), torch.tensor(nearest), atol=1e-6)


def test_mixing_weights_are_projected_when_asked_for_and_free_otherwise(tiny, tmp_path):
    class Mixing(tiny.TinyNet):
        def __init__(self):
            super().__init__()
            self.mix = MixedBranches()

        def forward(self, images):
            return 3 * self.mix(super().forward(images), super().forward(images))

    sums = []
    for number, wanted in enumerate((True, False)):
        model = Mixing()
        recipe = replace(tiny.RECIPE, epochs=1, project_mixing=wanted)
        fit(model, tiny.make_splits(), recipe, directory=tmp_path / str(number))
        sums.append(model.mix.weight.sum().item())
        assert model.mix.weight.requires_grad
    assert sums[0] == pytest.approx(1, abs=1e-6) and abs(sums[1] - 1) > 1e-3
    frozen = Mixing()
    frozen.mix.requires_grad_(False).weight.fill_(0.9)
    project_mixing(frozen)
    assert frozen.mix.weight.tolist() == pytest.approx([0.9, 0.9])


def test_training_retracts_after_every_step_by_the_place_of_the_step(tiny, tmp_path, monkeypatch):
    draws = []
    monkeypatch.setattr(
        tiny.epoch, "retract_weights", lambda model, beta, given: draws.append((beta, given.initial_seed()))
    )
    recipe = replace(tiny.RECIPE, epochs=2, weight_retraction=0.02)
    fit(tiny.make_model(), tiny.make_splits(), recipe, directory=tmp_path)
    assert len(draws) == len(set(draws)) == 2 * 4 and {beta for beta, _ in draws} == {0.02}
