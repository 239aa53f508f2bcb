"""A function around the points x: what Definitions A.1 and A.2 need to know about it, its change and its slope."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.inputs import check_inputs, check_logits, check_logits_shape
from snnlib.attacks.prepared import prepared
from snnlib.attacks.session import NO_GRADIENT
from snnlib.errors import InputError
from snnlib.neurons import Surrogate, neurons_of
from snnlib.theory.relaxation import ROUGH, relaxed

ROUNDING = 16
"""Changes of the log-odds up to so many units of the last place count as none."""


class LocalFunction:
    """f at the samples x [N, ...], one function value per sample; points around them come as [K·N, ...].

    Row k·N + n of the points belongs to sample n. `gradient` [N, ...] is what stands for ∇f(x), float64. It need not
    be the derivative of f: for a deployed spiking network it is made of surrogates.
    """

    x: Tensor

    def __init__(self, x: Tensor) -> None:
        self.x = x.detach().clone()
        _, gradient = self.slope(self.x)
        self.gradient = gradient

    def change(self, points: Tensor) -> Tensor:
        """f(points) − f(x), float64 [K, N]."""
        raise NotImplementedError

    def slope(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """f(points) − f(x), float64 [K, N], and the gradient at the points, float64 [K·N, ...]."""
        raise NotImplementedError

    @property
    def largest_change(self) -> Tensor:
        """The most that (f(x') − f(x))² can be at any x', float64 [N]; infinite where the range of f is not known."""
        return torch.full((len(self.x),), torch.inf, dtype=torch.float64, device=self.x.device)

    def roughness(self) -> list[str]:
        """Why f may lack a continuous derivative; empty where nothing speaks against one."""
        return []


class ClosedForm(LocalFunction):
    """Any function `[M, ...] -> [M]` that PyTorch differentiates; for examples whose answer is known.

    values: the interval that its values lie in, where one is known.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        x: Tensor,
        values: tuple[float, float] = (-math.inf, math.inf),
    ) -> None:
        self._function, self._values = function, values
        self._start = function(x.detach()).detach().double()
        super().__init__(x)

    @property
    def largest_change(self) -> Tensor:
        return torch.maximum(self._start - self._values[0], self._values[1] - self._start).square()

    def change(self, points: Tensor) -> Tensor:
        with torch.no_grad():
            return self._function(points).double().view(-1, len(self._start)) - self._start

    def slope(self, points: Tensor) -> tuple[Tensor, Tensor]:
        points = points.detach().requires_grad_(True)
        with torch.enable_grad():
            values = self._function(points)
            (gradient,) = torch.autograd.grad(values.sum(), points)
        return values.detach().double().view(-1, len(self._start)) - self._start, gradient.double()


class Restricted(LocalFunction):
    """A function of which only the coordinates in `mask` (like x, or broadcast to it) may be moved.

    Its gradient has zeros elsewhere, by construction: ‖g‖₀ set by hand, with everything else as it was.
    """

    def __init__(self, function: LocalFunction, mask: Tensor) -> None:
        self._function = function
        self._mask = mask.to(torch.bool).expand_as(function.x)
        self.x = function.x
        self.gradient = function.gradient * self._mask

    def change(self, points: Tensor) -> Tensor:
        return self._function.change(self._projected(points))

    def slope(self, points: Tensor) -> tuple[Tensor, Tensor]:
        change, gradient = self._function.slope(self._projected(points))
        return change, gradient * self._mask.repeat(_copies(gradient, self._mask))

    @property
    def largest_change(self) -> Tensor:
        return self._function.largest_change

    def roughness(self) -> list[str]:
        return self._function.roughness()

    def _projected(self, points: Tensor) -> Tensor:
        copies = _copies(points, self.x)
        return torch.where(self._mask.repeat(copies), points, self.x.repeat(copies))


class TrueClassProbability(LocalFunction):
    """f_y(x) = softmax(logits)_y of a classifier with BatchNorm in eval: the function of the theorems.

    images [N, C, H, W], labels [N]. space "image": x are the images. "encoded": x are the encoded inputs, [N, T, C, H,
    W]. relax: the smooth relaxation in the place of the deployed network (`snnlib.theory.relaxation`). surrogate: by
    which spikes are differentiated, None for the model's own. batch_size: points per forward pass.

    Points are not clipped to [0, 1]: the theorems' ball is not. Changes are taken from log-odds, log f − log(1 − f), so
    that those of a network that is sure are not lost in rounding; nor does its gradient underflow.
    The model comes back as it was after every call.
    Errors: InputError for inputs that do not fit, logits that are not finite, and a model without input gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        space: str = "image",
        relax: bool = False,
        surrogate: Surrogate | None = None,
        batch_size: int = 64,
    ) -> None:
        check_inputs(model, images, labels, Budget(0, space=space), None)
        self.model, self.space, self.relax = model, space, relax
        self._labels = labels.to(images.device, torch.int64)
        self._surrogate = surrogate
        self._batch_size = batch_size
        x = images
        if space == "encoded":
            with torch.no_grad():
                x = model.encoder(images).transpose(0, 1).to(images.dtype).contiguous()
        self._dtype = x.dtype
        self._log_odds = self._of(x, self._measure)
        super().__init__(x)

    @property
    def value(self) -> Tensor:
        """f_y(x), float64 [N]."""
        return self._log_odds.sigmoid()

    @property
    def largest_change(self) -> Tensor:
        return torch.maximum(self.value, 1 - self.value).square()

    def change(self, points: Tensor) -> Tensor:
        return self._change(self._of(points, self._measure))

    def slope(self, points: Tensor) -> tuple[Tensor, Tensor]:
        log_odds, slope = self._of(points, self._differentiate)
        height = log_odds.sigmoid() * (-log_odds).sigmoid()
        return self._change(log_odds), slope * height.view(-1, *[1] * (points.dim() - 1))

    def roughness(self) -> list[str]:
        reasons = []
        neurons = neurons_of(self.model)
        if neurons and not self.relax:
            reasons.append("spikes are steps: the deployed network is piecewise constant, its gradient a surrogate")
        rough = sorted({layer.surrogate.name for layer in neurons if layer.surrogate.name in ROUGH})
        if self.relax and rough:
            reasons.append(f"the surrogate jumps: {', '.join(rough)}")
        for kind in ("MaxPool", "AdaptiveMaxPool", "ReLU"):
            if any(type(module).__name__.startswith(kind) for module in self.model.modules()):
                reasons.append(f"{kind} has kinks")
        encoder = getattr(self.model, "encoder", None)
        if self.space == "image" and "exact" not in getattr(encoder, "gradients", ("exact",)):
            reasons.append(f"{type(encoder).__name__} is a step of the image; its gradient is declared, not derived")
        return reasons

    def _change(self, log_odds: Tensor) -> Tensor:
        """σ(a) − σ(b) of log-odds [K·N] against those at x, without cancellation: [K, N]."""
        a = log_odds.view(-1, len(self._labels))
        b = self._log_odds
        # A batch of another size rounds otherwise; that is no change of f.
        rounding = ROUNDING * torch.finfo(self._dtype).eps * b.abs().clamp_min(1)
        a = torch.where((a - b).abs() <= rounding, b, a)
        larger, smaller = torch.maximum(a, b), torch.minimum(a, b)
        return (a - b).sign() * larger.sigmoid() * (-smaller).sigmoid() * -torch.expm1(smaller - larger)

    def _of(self, points: Tensor, measure: Callable) -> Tensor | tuple[Tensor, ...]:
        labels = self._labels.repeat(_copies(points, self._labels))
        parts = []
        # The graph is needed whatever the caller has switched off.
        with torch.inference_mode(False), torch.enable_grad(), prepared(self.model, gradient=self._surrogate):
            for start in range(0, len(points), self._batch_size):
                batch = slice(start, start + self._batch_size)
                parts.append(self._relaxed(measure, points[batch].clone(), labels[batch]))
        return torch.cat(parts) if isinstance(parts[0], Tensor) else tuple(map(torch.cat, zip(*parts, strict=True)))

    def _relaxed(self, measure: Callable, points: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if not self.relax:
            return measure(points, labels)
        with relaxed(self.model):
            return measure(points, labels)

    def _measure(self, points: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            return self._odds(points, labels)

    def _differentiate(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        points = points.detach().requires_grad_(True)
        log_odds = self._odds(points, labels)
        slope = None
        if log_odds.requires_grad:
            (slope,) = torch.autograd.grad(log_odds.sum(), points, allow_unused=True)
        if slope is None:
            raise InputError(NO_GRADIENT.format(space="images" if self.space == "image" else "encoded input"))
        if not slope.isfinite().all():
            raise InputError("the gradient at the input holds NaN or infinity; check the model's weights")
        return log_odds.detach(), slope.double()

    def _odds(self, points: Tensor, labels: Tensor) -> Tensor:
        encoded = self.space == "encoded"
        logits = self.model.body(points.transpose(0, 1).contiguous()) if encoded else self.model(points)
        check_logits_shape(logits, len(labels))
        check_logits(logits.detach(), labels)
        others = logits.double().scatter(1, labels[:, None], -torch.inf).logsumexp(1)
        return logits.double().gather(1, labels[:, None]).squeeze(1) - others


def inner(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ of each row of two [M, ...] tensors, float64 [M]."""
    return (a.double().flatten(1) * b.double().flatten(1)).sum(1)


def _copies(points: Tensor, samples: Tensor) -> tuple[int, ...]:
    """How often to repeat tensors over N samples, along axis 0, to meet points [K·N, ...]."""
    count, rest = divmod(len(points), len(samples))
    if rest:
        raise InputError(f"{len(points)} points for {len(samples)} samples; expected a whole multiple of them")
    return (count, *[1] * (samples.dim() - 1))
