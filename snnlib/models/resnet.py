"""SEW-ResNet and Spiking-ResNet bodies, 18, 34 and 50 layers; with ReLU the second one is the ordinary ResNet."""

from __future__ import annotations

from torch import Tensor, nn

from snnlib.models.blocks import SEWBlock, SpikingBlock
from snnlib.models.layers import NeuronFactory, initialise, over_static_time, over_time, stem_convolution, stem_pool

BLOCKS_PER_LAYER = {18: ("basic", (2, 2, 2, 2)), 34: ("basic", (3, 4, 6, 3)), 50: ("bottleneck", (3, 4, 6, 3))}


class ResNetBody(nn.Module):
    """Encoded images `[T, N, C, H, W]` to logits `[N, classes]`: the mean of the linear read-out over time.

    **Source:** Fang et al. 2021 (networks); Luu et al. 2025 for the selectable stem pool and the read-out.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int,
        neuron: NeuronFactory,
        *,
        block: str,
        connection: str,
        pool: str,
        stem: str,
        width: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        kind, blocks_per_layer = BLOCKS_PER_LAYER[depth]

        def make_block(in_channels: int, channels: int, stride: int) -> nn.Module:
            if block == "sew":
                return SEWBlock(kind, in_channels, channels, stride, neuron, connection)
            return SpikingBlock(kind, in_channels, channels, stride, neuron)

        self.conv1 = stem_convolution(stem, in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.sn1 = neuron()
        self.pool = stem_pool(pool)
        channels_in = width
        for number, repeats in enumerate(blocks_per_layer, start=1):
            channels, layer = width * 2 ** (number - 1), []
            for index in range(repeats):
                layer.append(make_block(channels_in, channels, 2 if number > 1 and index == 0 else 1))
                channels_in = layer[-1].out_channels
            self.add_module(f"layer{number}", nn.Sequential(*layer))
        self.head_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels_in, num_classes)
        initialise(self)

    def forward(self, encoded: Tensor) -> Tensor:
        x = over_static_time(lambda frames: self.bn1(self.conv1(frames)), encoded)
        x = over_time(self.pool, self.sn1(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = over_time(self.head_pool, x).flatten(2)
        return over_time(self.fc, x).mean(0)
