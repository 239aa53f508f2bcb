"""Residual blocks: SEW (spikes are added) and Spiking-ResNet (currents are added), basic and bottleneck.

Submodules carry torchvision's ResNet names (`conv1`, `bn1`, `downsample.0`, ...), so weights move between an ANN, an
SNN and other projects' checkpoints by name.
"""

from __future__ import annotations

from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.models.layers import NeuronFactory, conv1x1, conv3x3, over_time

CONNECTIONS = {
    "ADD": lambda residual, shortcut: residual + shortcut,
    "AND": lambda residual, shortcut: residual * shortcut,
    "IAND": lambda residual, shortcut: (1 - residual) * shortcut,
}


def check_connection(name: str) -> None:
    """Raise `InputError` for a connection that SEW blocks do not have."""
    if name not in CONNECTIONS:
        raise InputError(f"connection is {name!r}; expected one of {', '.join(CONNECTIONS)}; use 'ADD'")


def _basic_stages(in_channels: int, channels: int, stride: int) -> list[nn.Conv2d]:
    return [conv3x3(in_channels, channels, stride), conv3x3(channels, channels)]


def _bottleneck_stages(in_channels: int, channels: int, stride: int) -> list[nn.Conv2d]:
    return [conv1x1(in_channels, channels), conv3x3(channels, channels, stride), conv1x1(channels, 4 * channels)]


STAGES = {"basic": _basic_stages, "bottleneck": _bottleneck_stages}


class ResidualBlock(nn.Module):
    """Shared construction: convolutions with BatchNorm and neurons, and a 1x1 shortcut where the shape changes."""

    is_residual_block = True

    def __init__(self, kind: str, in_channels: int, channels: int, stride: int, neuron: NeuronFactory) -> None:
        super().__init__()
        convolutions = STAGES[kind](in_channels, channels, stride)
        self.depth = len(convolutions)
        for number, convolution in enumerate(convolutions, start=1):
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", nn.BatchNorm2d(convolution.out_channels))
            self.add_module(f"sn{number}", neuron())
        self.out_channels = convolutions[-1].out_channels
        self.downsample = None
        if stride != 1 or in_channels != self.out_channels:
            self.downsample = nn.Sequential(
                conv1x1(in_channels, self.out_channels, stride), nn.BatchNorm2d(self.out_channels)
            )

    def currents(self, x: Tensor, number: int) -> Tensor:
        """Convolution and BatchNorm of one stage, `[T, N, C, H, W]`."""
        convolution, norm = getattr(self, f"conv{number}"), getattr(self, f"bn{number}")
        return over_time(norm, over_time(convolution, x))

    def stage(self, x: Tensor, number: int) -> Tensor:
        """One whole stage: convolution, BatchNorm, neuron."""
        return getattr(self, f"sn{number}")(self.currents(x, number))

    def shortcut_currents(self, x: Tensor) -> Tensor:
        convolution, norm = self.downsample
        return over_time(norm, over_time(convolution, x))


class SEWBlock(ResidualBlock):
    """Spike-element-wise block: `out = g(spikes of the residual path, spikes of the shortcut)`.

    **Source:** Fang et al. 2021 (SEW-ResNet), table 1 for g = ADD, AND, IAND.
    """

    def __init__(
        self, kind: str, in_channels: int, channels: int, stride: int, neuron: NeuronFactory, connection: str = "ADD"
    ) -> None:
        super().__init__(kind, in_channels, channels, stride, neuron)
        check_connection(connection)
        self.connection = connection
        if self.downsample is not None:
            self.downsample_sn = neuron()

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for number in range(1, self.depth + 1):
            out = self.stage(out, number)
        shortcut = x if self.downsample is None else self.downsample_sn(self.shortcut_currents(x))
        return CONNECTIONS[self.connection](out, shortcut)

    def extra_repr(self) -> str:
        return f"connection={self.connection}"


class SpikingBlock(ResidualBlock):
    """ResNet block with neurons in the place of ReLU: currents of both paths are added, then the neuron fires.

    With ReLU in the place of the neurons this is the ordinary ResNet block.
    **Source:** He et al. 2016; as Spiking-ResNet in Fang et al. 2021, section 3.
    """

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for number in range(1, self.depth):
            out = self.stage(out, number)
        shortcut = x if self.downsample is None else self.shortcut_currents(x)
        return getattr(self, f"sn{self.depth}")(self.currents(out, self.depth) + shortcut)
