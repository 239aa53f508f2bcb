"""Residual blocks on spikes, by hand: 1x1 maps, one channel, each path set to a known current."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from snnlib.errors import InputError
from snnlib.models.blocks import CONNECTIONS, SEWBlock, SpikingBlock
from snnlib.neurons import IF

TRUTH_TABLES = {"ADD": [0.0, 1.0, 1.0, 2.0], "AND": [0.0, 0.0, 0.0, 1.0], "IAND": [0.0, 1.0, 0.0, 0.0]}
"""For (residual, shortcut) = (0, 0), (0, 1), (1, 0), (1, 1)."""


def _block(kind: type[nn.Module], residual: float, shortcut: float | None = None, **options) -> nn.Module:
    """A block in eval mode: `residual` is the current of its last convolution; with `shortcut` it has a convolution on
    the shortcut whose current is that. The currents are the same whatever comes in."""
    block = kind("basic", 1, 1, 1, IF, **options)
    if shortcut is not None:
        block.downsample = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
        block.downsample_sn = IF()
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    nn.init.constant_(block.bn2.bias, residual)
    if shortcut is not None:
        nn.init.constant_(block.downsample[1].bias, shortcut)
    return block.eval()


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_spikes_combine_by_the_truth_table_when_the_shortcut_is_the_identity(connection):
    outputs = []
    for residual, shortcut in itertools.product((0.0, 1.0), repeat=2):
        block = _block(SEWBlock, residual, connection=connection)
        outputs.append(block(torch.full((1, 1, 1, 1, 1), shortcut)).item())
    assert outputs == TRUTH_TABLES[connection]


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_gradients_are_those_of_the_formula(connection):
    residual, shortcut = torch.tensor(0.25, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    gradients = torch.autograd.grad(CONNECTIONS[connection](residual, shortcut), [residual, shortcut])
    assert [g.item() for g in gradients] == {"ADD": [1.0, 1.0], "AND": [0.5, 0.25], "IAND": [-0.5, 0.75]}[connection]


def test_each_path_fires_on_its_own_when_the_block_is_sew():
    silent = torch.zeros(2, 1, 1, 1, 1)
    assert _block(SEWBlock, 0.6, 0.6)(silent).flatten().tolist() == [0.0, 2.0], "0.6, then 1.2: both paths at once"
    assert _block(SEWBlock, 0.6, 1.0)(silent).flatten().tolist() == [1.0, 2.0]


def test_currents_add_before_the_neuron_when_the_block_is_spiking():
    silent = torch.zeros(3, 1, 1, 1, 1)
    assert _block(SpikingBlock, 0.6, 0.6)(silent).flatten().tolist() == [1.0, 1.0, 1.0], "1.2 at every step"
    assert _block(SpikingBlock, 0.3, 0.1)(silent).flatten().tolist() == [0.0, 0.0, 1.0], "0.4, 0.8, 1.2"
    assert _block(SpikingBlock, 0.5)(torch.full((3, 1, 1, 1, 1), 0.5)).flatten().tolist() == [1.0, 1.0, 1.0]


def test_block_is_an_ordinary_residual_block_when_neurons_are_relus():
    block = SpikingBlock("basic", 1, 1, 1, nn.ReLU)
    for number, weight in ((1, 2.0), (2, 3.0)):
        convolution = getattr(block, f"conv{number}")
        nn.init.zeros_(convolution.weight)
        convolution.weight.data[0, 0, 1, 1] = weight
    block.eval().bn1.eps = block.bn2.eps = 0.0
    assert block(torch.full((1, 1, 1, 1, 1), 0.5)).item() == 0.5 * 2 * 3 + 0.5
    assert block(torch.full((1, 1, 1, 1, 1), -0.5)).item() == 0.0, "relu(0) + (-0.5), then relu"


@pytest.mark.parametrize("kind, out_channels, strided", [("basic", 8, "conv1"), ("bottleneck", 32, "conv2")])
def test_shape_changes_at_the_published_convolution_when_the_stride_is_2(kind, out_channels, strided):
    for block in (SEWBlock(kind, 4, 8, 2, IF), SpikingBlock(kind, 4, 8, 2, IF)):
        assert block(torch.rand(3, 2, 4, 6, 6)).shape == (3, 2, out_channels, 3, 3)
        with_stride = [name for name, module in block.named_modules() if getattr(module, "stride", 1) == (2, 2)]
        assert with_stride == [strided, "downsample.0"]


def test_shortcut_is_the_identity_when_the_shape_stays():
    assert SEWBlock("basic", 8, 8, 1, IF).downsample is None
    assert SEWBlock("bottleneck", 32, 8, 1, IF).downsample is None
    assert SEWBlock("bottleneck", 8, 8, 1, IF).downsample is not None, "8 channels in, 32 out"


def test_one_line_error_when_the_connection_is_unknown():
    with pytest.raises(InputError, match="connection is 'OR'; expected one of ADD, AND, IAND") as error:
        SEWBlock("basic", 1, 1, 1, IF, connection="OR")
    assert "\n" not in str(error.value)
