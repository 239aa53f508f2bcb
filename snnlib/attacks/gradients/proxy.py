"""The network as if it had no spikes: the same weights with ReLU in the place of the neurons."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from snnlib.attacks.gradients.base import SpikeGradient, SpikeRule
from snnlib.neurons import LIF


class _Rectified(SpikeRule):
    def __call__(self, layer: LIF, currents: Tensor) -> Tensor:
        return currents.relu()


def _mean_over_time(body: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    (encoded,) = inputs
    return encoded.mean(0, keepdim=True)


@dataclass(frozen=True)
class ReluProxy(SpikeGradient):
    """See `relu_proxy`."""

    same_forward: ClassVar[bool] = False
    family: ClassVar[str] = "relu_proxy"

    def new_rule(self) -> SpikeRule:
        return _Rectified()

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[SpikeRule]:
        with super().applied(model) as rule:
            body = getattr(model, "body", None)
            hook = body.register_forward_pre_hook(_mean_over_time) if isinstance(body, nn.Module) else None
            try:
                yield rule
            finally:
                if hook is not None:
                    hook.remove()


def relu_proxy() -> SpikeGradient:
    """Conversion-based gradient: the network's weights and BatchNorm statistics, ReLU instead of neurons, T = 1.

    Where the model keeps its `body` apart, the body runs on the mean over time of the encoded input, which for direct
    coding is the image. A model with neurons but without a `body` runs all its time steps through ReLU.
    The values of this forward are not the network's (`same_forward` is False): they serve the gradient, never the
    verdict. Thresholds do not enter.
    **Source:** member 19 of Özdenizci & Legenstein 2024, authors' code (T = 0), where coding is direct; the mean over
    time for other encoders is ours.
    """
    return ReluProxy()
