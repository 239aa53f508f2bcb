"""Wide ResNets of pre-activation blocks: WRN-16-4 and WRN-28-4."""

from __future__ import annotations

from torch import Tensor, nn

from snnlib.models.convertible import ConvertibleBody, MixedBranches, initialise_convertible, residual_stages
from snnlib.models.layers import NeuronFactory, conv1x1, conv3x3, over_static_time, over_time


class PreActivationBlock(nn.Module):
    """BatchNorm, neuron, convolution, twice; mixed with a shortcut.

    Where the shape stays, the shortcut is the block's raw input, analog values and not spikes; where the number of
    channels changes, it is a 1x1 convolution of the *first neuron's spikes*.

    **Source:** Özdenizci & Legenstein 2024, authors' code (models/WideResNet.py), after SNN-RAT (Ding et al. 2022).
    """

    is_residual_block = True

    def __init__(self, in_channels: int, channels: int, stride: int, neuron: NeuronFactory) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.sn1 = neuron()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.sn2 = neuron()
        self.conv2 = conv3x3(channels, channels)
        self.downsample = None if in_channels == channels else conv1x1(in_channels, channels, stride)
        self.mix = MixedBranches()

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.sn1(over_static_time(self.bn1, x))
        shortcut = x if self.downsample is None else over_time(self.downsample, spikes)
        out = self.sn2(over_time(self.bn2, over_time(self.conv1, spikes)))
        return self.mix(shortcut, over_time(self.conv2, out))


class WideResNetBody(ConvertibleBody):
    """Stem convolution, three stages of pre-activation blocks, BatchNorm, neuron, global average, read-out.

    `width` is the stem's channels, 16 in the paper; the stages have `widen` times 1, 2 and 4 of it. `bias` is the
    read-out's. On 32x32 images the global average is the paper's pool 8x8.

    **Source:** Zagoruyko & Komodakis 2016; Özdenizci & Legenstein 2024, authors' code (models/WideResNet.py).
    """

    def __init__(
        self,
        depth: int,
        widen: int,
        num_classes: int,
        neuron: NeuronFactory,
        *,
        width: int,
        in_channels: int,
        bias: bool,
        normalisation: str | None,
        image_size: int,
    ) -> None:
        super().__init__(normalisation=normalisation, in_channels=in_channels, image_size=image_size)
        channels = [widen * width * 2**stage for stage in range(3)]
        self.conv1 = conv3x3(in_channels, width)
        self.layer1, self.layer2, self.layer3 = residual_stages(
            lambda *shape: PreActivationBlock(*shape, neuron), width, channels, blocks=(depth - 4) // 6
        )
        self.bn = nn.BatchNorm2d(channels[-1])
        self.sn = neuron()
        self.head_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels[-1], num_classes, bias=bias)
        initialise_convertible(self)

    def read_out(self, frames: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(over_static_time(self.conv1, frames))))
        x = over_time(self.head_pool, self.sn(over_time(self.bn, x))).flatten(2)
        return over_time(self.fc, x)
