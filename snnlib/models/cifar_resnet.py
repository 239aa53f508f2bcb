"""ResNets for 32x32 images: ResNet-20 and ResNet-32, three stages, a projection where the shape changes."""

from __future__ import annotations

from torch import Tensor, nn

from snnlib.models.blocks import ResidualBlock
from snnlib.models.convertible import ConvertibleBody, MixedBranches, initialise_convertible, residual_stages
from snnlib.models.layers import NeuronFactory, conv3x3, over_static_time, over_time


class MixedBlock(ResidualBlock):
    """Two convolutions with BatchNorm; the currents of both paths are mixed, then the second neuron fires.

    **Source:** Özdenizci & Legenstein 2024, authors' code (models/ResNet.py).
    """

    def __init__(self, in_channels: int, channels: int, stride: int, neuron: NeuronFactory) -> None:
        super().__init__("basic", in_channels, channels, stride, neuron)
        self.mix = MixedBranches()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.shortcut_currents(x)
        return self.sn2(self.mix(shortcut, self.currents(self.stage(x, 1), 2)))


class CifarResNetBody(ConvertibleBody):
    """Stem convolution, three stages of (depth - 2) / 6 blocks, global average pool, read-out.

    `width` is the channels of stem and first stage, 16 in the paper; `bias` is the read-out's.

    **Source:** He et al. 2016, section 4.2; Özdenizci & Legenstein 2024, authors' code (models/ResNet.py).
    """

    def __init__(
        self,
        depth: int,
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
        self.conv1 = conv3x3(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.sn1 = neuron()
        self.layer1, self.layer2, self.layer3 = residual_stages(
            lambda *shape: MixedBlock(*shape, neuron), width, [width, 2 * width, 4 * width], blocks=(depth - 2) // 6
        )
        self.head_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes, bias=bias)
        initialise_convertible(self)

    def read_out(self, frames: Tensor) -> Tensor:
        x = self.sn1(over_static_time(lambda x: self.bn1(self.conv1(x)), frames))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = over_time(self.head_pool, x).flatten(2)
        return over_time(self.fc, x)
