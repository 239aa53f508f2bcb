"""The pre-activation block: what its shortcut carries, and where."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.models import build_model
from snnlib.models.wide_resnet import PreActivationBlock
from snnlib.neurons import IF


def _frames(channels: int) -> torch.Tensor:
    """Analog values, no spikes, `[T, N, C, H, W]`."""
    return torch.randn(4, 2, channels, 6, 6, generator=torch.Generator().manual_seed(0))


def test_shortcut_carries_the_analog_input_when_the_shape_stays():
    block = PreActivationBlock(3, 3, 1, IF).eval()
    block.mix.weight.data = torch.tensor([1.0, 0.0])
    x = _frames(3)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("stride", [1, 2])
def test_shortcut_is_a_convolution_of_spikes_when_channels_change(stride):
    block = PreActivationBlock(3, 6, stride, IF).eval()
    block.mix.weight.data = torch.tensor([1.0, 0.0])
    seen = {}
    block.sn1.register_forward_hook(lambda module, inputs, output: seen.update(spikes=output))
    x = _frames(3)
    out = block(x)
    assert set(seen["spikes"].unique().tolist()) == {0.0, 1.0}
    weight = block.downsample.weight
    assert block.downsample.bias is None and weight.shape == (6, 3, 1, 1)
    wanted = torch.einsum("oc,tnchw->tnohw", weight[:, :, 0, 0], seen["spikes"][..., ::stride, ::stride])
    torch.testing.assert_close(out, wanted)


def test_first_stage_widens_and_later_stages_halve_the_map():
    body = build_model("wrn16_4", 5, 2, width=1).body
    seen = []
    for stage in (body.layer1, body.layer2, body.layer3):
        stage.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[2:])))
    body(torch.rand(2, 1, 3, 32, 32))
    assert seen == [(4, 32, 32), (8, 16, 16), (16, 8, 8)]
    with_convolution = [
        name for name, module in body.named_modules() if isinstance(module, nn.Conv2d) and "downsample" in name
    ]
    assert with_convolution == [f"layer{stage}.0.downsample" for stage in (1, 2, 3)]


def test_current_of_the_first_block_is_static_when_coding_is_direct():
    body = build_model("wrn16_4", 5, 6, width=1).body.eval()
    seen = []
    body.layer1[0].bn1.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    body(torch.rand(2, 3, 8, 8).expand(6, 2, 3, 8, 8))
    assert seen == [2]
