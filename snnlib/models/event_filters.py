"""Filters of event rasters, as defences before a network: what looks like noise is taken out.

Each keeps or drops whole events by a comparison. Its gradient reads the comparison as ½ + atan(margin)/π, so that an
attacker who differentiates the filtered network sees what would let an event through, or take others out.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from snnlib import checks
from snnlib.encoding.encoder import above_zero, atan_slope
from snnlib.models.build import Model


class BackgroundActivity(nn.Module):
    """Keeps an event of [T, N, 2, H, W] that has `support` others around it: within `radius` pixels, in its bin or in
    one of the `window` bins before; other pixels alone, both polarities.

    **Source:** the filter of Delbruck 2008 as DVS-Attacks (Marchisio et al. 2021) use it, on bins instead of events.
    """

    def __init__(self, support: int = 1, radius: int = 1, window: int = 1) -> None:
        super().__init__()
        self.support = checks.whole("support", support)
        self.radius = checks.whole("radius", radius)
        self.window = checks.whole("window", window, at_least=0)

    def forward(self, encoded: Tensor) -> Tensor:
        seen = encoded.sum(2)  # [T, N, H, W]
        recent = seen.clone()
        for back in range(1, min(self.window, len(seen) - 1) + 1):
            recent = recent + F.pad(seen[:-back], (0, 0, 0, 0, 0, 0, back, 0))
        side = 2 * self.radius + 1
        square = F.avg_pool2d(recent, side, 1, self.radius, divisor_override=1)
        return encoded * _keep(square - recent - (self.support - 0.5)).unsqueeze(2)

    def extra_repr(self) -> str:
        return f"support={self.support}, radius={self.radius}, window={self.window}"


class HotPixels(nn.Module):
    """Silences a pixel of [T, N, 2, H, W] that has events in more than `most` bins: the mask filter of DVS-Attacks."""

    def __init__(self, most: int = 5) -> None:
        super().__init__()
        self.most = checks.whole("most", most)

    def forward(self, encoded: Tensor) -> Tensor:
        busy = encoded.amax(2).sum(0)  # [N, H, W]
        return encoded * _keep(self.most + 0.5 - busy).unsqueeze(1)

    def extra_repr(self) -> str:
        return f"most={self.most}"


def filtered(model: Model, *filters: nn.Module) -> Model:
    """The network behind these filters, sharing its weights; an attack on it is the adaptive one."""
    config = {**model.config, "filters": [repr(one) for one in filters]}
    return Model(model.encoder, nn.Sequential(*filters, model.body), config).train(model.training)


def _keep(margin: Tensor) -> Tensor:
    return above_zero(margin, atan_slope)
