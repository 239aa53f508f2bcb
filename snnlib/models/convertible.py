"""What the networks of the conversion paper share: pixels normalised inside, mixed branches, the mean read-out.

Their bodies are built with spiking layers or with ReLU from one definition, so that the weights of a trained ANN carry
over to the SNN by name.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.models.layers import initialise, is_static, over_static_time, over_time
from snnlib.neurons import LIF

PIXEL_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "svhn": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "tinyimagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and deviation per channel, as in the authors' code (data_loaders.py)."""


class Normalise(nn.Module):
    """(x - mean) / deviation per channel. Constants, not weights: they are no part of the state dict."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        for key, values in zip(("mean", "deviation"), PIXEL_STATISTICS[name], strict=True):
            self.register_buffer(key, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        return (frames - self.mean) / self.deviation

    def extra_repr(self) -> str:
        return self.name


def pixel_normalisation(name: str | None, in_channels: int) -> nn.Module:
    """The normalisation of a data set by name, or nothing for None; `InputError` for another name or not 3 channels."""
    if name is None:
        return nn.Identity()
    if name not in PIXEL_STATISTICS:
        raise InputError(f"normalisation is {name!r}; expected None or one of {', '.join(PIXEL_STATISTICS)}")
    if in_channels != 3:
        raise InputError(f"normalisation is {name!r}, for 3 channels; in_channels is {in_channels}; use None")
    return Normalise(name)


def spiking_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Name and module of every activation in forward order: `LIF` layers of an SNN, `ReLU` layers of its ANN twin."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, LIF | nn.ReLU)]


class OverTime(nn.Module):
    """A layer that knows no time, for use in `nn.Sequential` on `[T, N, ...]`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return over_time(self.layer, x)


class MixedBranches(nn.Module):
    """w₀ · shortcut + w₁ · residual, two trainable scalars that start at ½ and are not kept on the simplex.

    **Source:** Özdenizci & Legenstein 2024, authors' code (layers.py, `ConvexCombination`); Ding et al. 2022 (SNN-RAT)
    also project them on the simplex.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), 0.5))

    def forward(self, shortcut: Tensor, residual: Tensor) -> Tensor:
        return self.weight[0] * shortcut + self.weight[1] * residual


class ConvertibleBody(nn.Module):
    """Encoded images `[T, N, C, H, W]` to logits `[N, classes]`: the mean over time of what `read_out` gives.

    normalisation: name of the pixel statistics that the body applies first, or None. image_size: side of the images
    that the network is meant for; only those that flatten the last map insist on it.
    With ReLU in the place of all neurons every time step of a static input (direct coding) is the same computation; it
    is done once, so an ANN costs the same for any `time_steps`.

    **Source:** Özdenizci & Legenstein 2024, authors' code; the follow-up (Schmolli et al. 2025) words the mean as an
    integrated membrane, T times as large.
    """

    def __init__(self, *, normalisation: str | None, in_channels: int, image_size: int) -> None:
        super().__init__()
        self.normalise = pixel_normalisation(normalisation, in_channels)
        self.image_size = image_size

    def read_out(self, frames: Tensor) -> Tensor:
        """Normalised frames `[T, N, C, H, W]` to the linear read-out at every step, `[T, N, classes]`."""
        raise NotImplementedError

    def forward(self, encoded: Tensor) -> Tensor:
        if is_static(encoded) and self._knows_no_time():
            encoded = encoded[:1]
        return self.read_out(over_static_time(self.normalise, encoded)).mean(0)

    def _knows_no_time(self) -> bool:
        layers = spiking_layers(self)
        return bool(layers) and all(isinstance(module, nn.ReLU) for _, module in layers)


def residual_stages(
    make_block: Callable[[int, int, int], nn.Module], in_channels: int, channels: list[int], blocks: int
) -> list[nn.Sequential]:
    """Stages of `blocks` blocks, each by `make_block(in_channels, channels, stride)`; stride 2 opens a later stage."""
    stages = []
    for number, width in enumerate(channels):
        strides = [2 if number > 0 else 1] + [1] * (blocks - 1)
        stages.append(nn.Sequential())
        for stride in strides:
            stages[-1].append(make_block(in_channels, width, stride))
            in_channels = width
    return stages


def initialise_convertible(body: nn.Module) -> None:
    """`initialise`, and zero for the bias of every convolution and linear layer; linear weights stay PyTorch's own.

    **Source:** Özdenizci & Legenstein 2024, authors' code (models/*.py).
    """
    initialise(body)
    for module in body.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
