"""VGG-11 and VGG-16 with average pooling and two hidden linear layers, and VGG-11 for TinyImageNet."""

from __future__ import annotations

from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.models.convertible import ConvertibleBody, OverTime, initialise_convertible
from snnlib.models.layers import NeuronFactory, conv3x3, over_static_time, over_time

PLANS: dict[str, tuple[int | str, ...]] = {
    "vgg11": (1, "P", 2, 4, "P", 8, 8, 8, "P", 8, 8),
    "vgg16": (1, 1, "P", 2, 2, "P", 4, 4, 4, "P", 8, 8, 8, "P", 8, 8, 8, "P"),
    "vgg11_tinyimagenet": (1, "P", 2, "P", 4, 4, "P", 8, 8, "P", 8, 8),
}
"""Channels of each convolution in units of `width` (64 in the paper); "P" is a pool 2x2."""

POOLS = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}
HIDDEN = 64  # hidden linear units in units of `width`: 4096


class ConvolutionLayer(nn.Module):
    """3x3 convolution, BatchNorm, neuron; a static input is convolved once."""

    def __init__(self, in_channels: int, channels: int, neuron: NeuronFactory, bias: bool) -> None:
        super().__init__()
        self.conv = conv3x3(in_channels, channels, bias=bias)
        self.bn = nn.BatchNorm2d(channels)
        self.sn = neuron()

    def forward(self, x: Tensor) -> Tensor:
        return self.sn(over_static_time(lambda frames: self.bn(self.conv(frames)), x))


class HiddenLayer(nn.Module):
    """Linear layer, neuron, dropout (a new mask at every time step)."""

    def __init__(self, in_features: int, features: int, neuron: NeuronFactory, bias: bool, dropout: float) -> None:
        super().__init__()
        self.fc = nn.Linear(in_features, features, bias=bias)
        self.sn = neuron()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.sn(over_time(self.fc, x)))


class VGGBody(ConvertibleBody):
    """`features` (convolutions and pools), then `hidden` linear layers, then the read-out `fc`.

    `vgg11` and `vgg16` flatten the last map, so they fit one `image_size`; `vgg11_tinyimagenet` averages it.
    `bias` is that of every convolution and linear layer. Raises `InputError` for images of another size.

    **Source:** Özdenizci & Legenstein 2024, authors' code (models/VGG.py). Max pooling is ours, for comparison.
    """

    def __init__(
        self,
        plan: str,
        num_classes: int,
        neuron: NeuronFactory,
        *,
        pool: str,
        width: int,
        in_channels: int,
        bias: bool,
        dropout: float,
        normalisation: str | None,
        image_size: int,
    ) -> None:
        super().__init__(normalisation=normalisation, in_channels=in_channels, image_size=image_size)
        if pool not in POOLS:
            raise InputError(f"pool is {pool!r}; expected 'avg' or 'max' in a VGG; the paper has 'avg'")
        side = image_size // 2 ** PLANS[plan].count("P")
        if side == 0:
            smallest = 2 ** PLANS[plan].count("P")
            raise InputError(f"image_size is {image_size}; expected at least {smallest} for {plan}; take larger images")
        self.pools_globally = plan == "vgg11_tinyimagenet"
        layers: list[nn.Module] = []
        for entry in PLANS[plan]:
            if entry == "P":
                layers.append(OverTime(POOLS[pool](2)))
            else:
                layers.append(ConvolutionLayer(in_channels, entry * width, neuron, bias))
                in_channels = entry * width
        self.features = nn.Sequential(*layers)
        self.head_pool = nn.AdaptiveAvgPool2d(1) if self.pools_globally else nn.Identity()
        features = in_channels * (1 if self.pools_globally else side * side)
        self.hidden = nn.Sequential(HiddenLayer(features, HIDDEN * width, neuron, bias, dropout))
        if not self.pools_globally:
            self.hidden.append(HiddenLayer(HIDDEN * width, HIDDEN * width, neuron, bias, dropout))
        self.fc = nn.Linear(HIDDEN * width, num_classes, bias=bias)
        initialise_convertible(self)

    def read_out(self, frames: Tensor) -> Tensor:
        (height, width), side = frames.shape[-2:], self.image_size
        if not self.pools_globally and (height, width) != (side, side):
            raise InputError(
                f"images are {height}x{width}; this VGG takes {side}x{side}; build it with image_size={height}"
            )
        x = over_time(self.head_pool, self.features(frames)).flatten(2)
        return over_time(self.fc, self.hidden(x))
