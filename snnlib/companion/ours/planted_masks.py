"""Masks: ways in which a network's gradient lies to an attacker while its answers stay.

A mask is planted on a network that was trained honestly, and changes backward passes alone; where it changes the
forward (noise, a wave of half a grey level, the scale of the logits), by no more than the network shrugs off. The
network before it is the *twin*, by whose gradient an attacker who knows the mask goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnlib.encoding import Encoder, PhaseEncoder
from snnlib.neurons import Surrogate, foreign_neurons, neurons_of, surrogates

PLANES = 4
GREY_LEVELS = 16


class Backward(torch.autograd.Function):
    """The identity, whose gradient is `change(gradient)`."""

    @staticmethod
    def forward(ctx, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return x.view_as(x)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.change(upstream), None


class Front(nn.Module):
    """Images as they are, plus Gaussian noise of deviation `noise`, drawn in each pass, and a wave of half a grey level
    with `frequency` radians per unit of a pixel, its phase drawn in each pass if `dithered`."""

    def __init__(self) -> None:
        super().__init__()
        self.noise, self.frequency, self.dithered = 0.0, 0.0, False

    def forward(self, images: Tensor) -> Tensor:
        if self.noise:
            images = images + self.noise * torch.randn_like(images)
        if self.frequency:
            phase = 2 * math.pi * torch.rand_like(images) if self.dithered else 0
            images = images + torch.sin(self.frequency * images + phase) / 510
        return images


class Quantiser(nn.Module):
    """Images rounded to `GREY_LEVELS` levels; the gradient is 1 at steepness 0, else that of a smooth staircase."""

    def __init__(self) -> None:
        super().__init__()
        self.steepness = 0.0

    def forward(self, images: Tensor) -> Tensor:
        place = (GREY_LEVELS - 1) * images
        slope = _bump(place - place.floor() - 0.5, self.steepness) if self.steepness else torch.ones_like(images)
        rounded = place.round() / (GREY_LEVELS - 1)
        return rounded.detach() + Backward.apply(images - images.detach(), lambda upstream: upstream * slope)


@dataclass(frozen=True)
class Mask:
    """One way to lie. front: makes the front that the network is trained with. plant(model, strength): puts the mask in
    place, strength 0..1 from weakest to strongest."""

    name: str
    front: Callable[[], nn.Module]
    plant: Callable[[nn.Module, float], None]


def phase_code() -> PhaseEncoder:
    """The highest bits of a pixel, one a step; of its declared gradients the smooth one is that which sees."""
    return PhaseEncoder(PLANES, gradient="smooth")


def _bump(distance: Tensor, steepness: float) -> Tensor:
    rise = torch.sigmoid(steepness * distance)
    return steepness * rise * (1 - rise)


def _between(low: float, high: float, strength: float) -> float:
    return low * (high / low) ** strength


def _the(model: nn.Module, kind: type[nn.Module]) -> nn.Module:
    return next(module for module in model.modules() if isinstance(module, kind))


def _norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def _hook(module: nn.Module, change: Callable[[Tensor], Tensor], in_eval_alone: bool = False) -> None:
    module.register_forward_hook(
        lambda module, _, output: output if in_eval_alone and module.training else Backward.apply(output, change)
    )


def _keep_channels(count: int) -> Callable[[Tensor], Tensor]:
    def change(upstream: Tensor) -> Tensor:
        kept = torch.zeros_like(upstream)
        kept[:, :count] = upstream[:, :count]
        return kept

    return change


def _narrow(make: Callable[[float], Surrogate]) -> Callable[[nn.Module, float], None]:
    def plant(model: nn.Module, strength: float) -> None:
        surrogate = make(strength)
        for layer in neurons_of(model):
            layer.surrogate = surrogate
        for layer, name in foreign_neurons(model):
            _replace(layer, name, surrogate.spike)

    return plant


class _Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, u: Tensor) -> Tensor:
        return self.function(u)


def _replace(layer: nn.Module, name: str, function: Callable) -> None:
    as_module = isinstance(getattr(layer, name), nn.Module)
    setattr(layer, name, _Function(function) if as_module else function)


def _encoder_gradient(name: str) -> Callable[[nn.Module, float], None]:
    def plant(model: nn.Module, strength: float) -> None:
        _the(model, Encoder).gradient = name

    return plant


def _staircase(model: nn.Module, strength: float) -> None:
    _the(model, Quantiser).steepness = _between(30, 1e4, strength)


def _detached(layer: int, most: int) -> Callable[[nn.Module, float], None]:
    def plant(model: nn.Module, strength: float) -> None:
        _hook(_norms(model)[layer], _keep_channels(round(most * (1 - strength))))

    return plant


def _clamped(model: nn.Module, strength: float) -> None:
    bound = _between(1e-6, 1e-9, strength)
    for norm in _norms(model):
        _hook(norm, lambda upstream: upstream.clamp(-bound, bound))


def _flushed(model: nn.Module, strength: float) -> None:
    least = 0.3 + 0.6 * strength

    def change(upstream: Tensor) -> Tensor:
        largest = upstream.abs().flatten(1).amax(1).view(-1, 1, 1, 1)
        return upstream * (upstream.abs() >= least * largest)

    for norm in _norms(model):
        _hook(norm, change)


def _saturated(model: nn.Module, strength: float) -> None:
    readout, scale = _the(model, nn.Linear), _between(100, 3000, strength)
    with torch.no_grad():
        readout.weight.mul_(scale)
        readout.bias.mul_(scale)


def _shattered(model: nn.Module, strength: float) -> None:
    _the(model, Front).frequency = _between(2e4, 2e5, strength)


def _dithered(model: nn.Module, strength: float) -> None:
    front = _the(model, Front)
    front.frequency, front.dithered = _between(2e4, 2e5, strength), True


def _noisy(model: nn.Module, strength: float) -> None:
    """Noise in the membranes, and a surrogate so narrow that a draw shows next to nothing of the mean."""
    _narrow(lambda strength: surrogates.rectangular(width=_between(0.03, 0.003, strength)))(model, strength)
    for norm in _norms(model):
        norm.register_forward_hook(lambda _, __, output: output + 0.3 * torch.randn_like(output))


def _no_statistics(count: int) -> Callable[[nn.Module, float], None]:
    def plant(model: nn.Module, strength: float) -> None:
        for norm in _norms(model):
            _hook(norm, _keep_channels(round(count * (1 - strength))), in_eval_alone=True)

    return plant


MASKS: Mapping[str, tuple[Mask, ...]] = {
    "encoder": (
        Mask("phase code, no gradient", phase_code, _encoder_gradient("none")),
        Mask("phase code, straight-through", phase_code, _encoder_gradient("straight_through")),
    ),
    "surrogate": (
        Mask("narrow box", Front, _narrow(lambda strength: surrogates.rectangular(_between(0.03, 0.003, strength)))),
        Mask("steep atan", Front, _narrow(lambda strength: surrogates.atan(_between(100, 1000, strength)))),
        Mask("steep sigmoid", Front, _narrow(lambda strength: surrogates.sigmoid(_between(100, 1000, strength)))),
    ),
    "membrane": (
        Mask("second layer's membranes detached", Front, _detached(1, 3)),
        Mask("first layer's membranes detached", Front, _detached(0, 2)),
    ),
    "quantiser": (Mask("staircase", Quantiser, _staircase),),
    "randomness": (
        Mask("dithered wave", Front, _dithered),
        Mask("noisy membranes, narrow surrogate", Front, _noisy),
    ),
    "clipping": (
        Mask("clamped", Front, _clamped),
        Mask("small ones flushed", Front, _flushed),
    ),
    "loss": (Mask("large logits", Front, _saturated),),
    "shattered": (Mask("wave on the image", Front, _shattered),),
    "batch norm": (
        Mask("few channels in eval", Front, _no_statistics(2)),
        Mask("nothing in eval", Front, _no_statistics(0)),
    ),
}
