"""One attack under way: the problem seen sample-first, what it has cost, and the best point found per sample.

Every attack is a loop over `Session`; the bookkeeping that a fair evaluation needs is written here once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.inputs import check_inputs, check_logits, check_logits_shape
from snnlib.attacks.keyed_noise import KeyedNoise
from snnlib.attacks.losses import find_loss
from snnlib.attacks.prepared import PreparedModel, prepared
from snnlib.attacks.result import AttackResult, checked_result
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate

NO_GRADIENT = (
    "the logits do not depend on the {space} in a differentiable way: if neurons have no gradient in eval "
    "mode, use neurons that do; if the encoder cuts it, build it with another gradient or attack with "
    'Budget(space="encoded")'
)


class Session:
    """Tensors are sample-first, `[N, ...]`: an encoded input `[T, N, ...]` is seen as `[N, T, ...]`.

    `active` holds the indices of the samples still under attack; points handed in are `[len(active), ...]`.
    Samples leave it once they are fooled, except where BatchNorm looks at the whole batch (`fixed_batch`).
    A step waits for the device at most once, to learn who is left.
    """

    def __init__(
        self,
        lent: PreparedModel,
        images: Tensor,
        labels: Tensor,
        budget: Budget,
        *,
        generator: torch.Generator | None,
        loss: str,
    ) -> None:
        self._lent = lent
        self._loss = find_loss(loss)
        self._images = images.detach().clone()
        self._generator = generator
        self.budget = budget
        self.labels = labels.to(images.device, torch.int64, copy=True)
        self.origin = self._starting_points()
        self.fixed_batch = lent.batch_norm != "eval"

        count, device = len(images), images.device
        self.active = torch.arange(count, device=device)
        self.forwards = torch.zeros(count, dtype=torch.int64, device=device)
        self.backwards = torch.zeros(count, dtype=torch.int64, device=device)
        self._best = self.origin.clone()
        self._best_loss = torch.full((count,), -torch.inf, dtype=self.origin.dtype, device=device)
        self._success = torch.zeros(count, dtype=torch.bool, device=device)
        self._first_successful_step = torch.full((count,), -1, dtype=torch.int64, device=device)
        self._zero_gradient = torch.zeros(count, dtype=torch.bool, device=device)
        self._logits_seen = self._gradient_seen = False
        self._all_finite = torch.ones((), dtype=torch.bool, device=device)

    @property
    def active_origin(self) -> Tensor:
        """The unperturbed samples still under attack."""
        return _select(self.origin, self.active)

    def generators(self, draw: int) -> list[torch.Generator]:
        """One CPU generator per active sample for the draw number `draw`."""
        return self._noise.generators(self.active, draw)

    def record(self, x: Tensor, step: int) -> Tensor:
        """Score the points `x`, reached after `step` steps; the fooled leave.

        Returns the positions in `x` of those who stay, [len(active)] int64.
        """
        with torch.no_grad():
            return self._drop_fooled(x, *self._score(x), step)

    def record_with_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """`record`, and the loss gradient [len(active), ...] of those who stay, from the same forward pass.

        With a fixed batch nothing is recorded and everybody stays.
        """
        if self.fixed_batch:
            return torch.arange(len(x), device=x.device), self.gradient(x)
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            logits, loss = self._score(x)
            stay = self._drop_fooled(x.detach(), logits.detach(), loss.detach(), step)
            loss_of_stayers = _select(loss, stay)
        if len(stay) == 0:
            return stay, x.detach()[:0]
        return stay, self._counted(_select(self._differentiate(loss_of_stayers, x), stay))

    def gradient(self, x: Tensor) -> Tensor:
        """The loss gradient at `x`, [len(active), ...]; nothing is recorded and nobody leaves."""
        if len(x) == 0:
            return x.detach()
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            _, loss = self._score(x)
        return self._counted(self._differentiate(loss, x))

    def settle(self, x: Tensor, step: int) -> None:
        """End the attack at `x` whatever its loss, scored with BatchNorm in eval."""
        self._lent.freeze_batch_norm()
        if len(x):
            with torch.no_grad():
                logits, loss = self._score(x)
                self._write(x, loss, self._is_fooled(logits), step, everywhere=True)

    def result(self) -> AttackResult:
        """The outcome.

        Errors: InputError for logits or gradients that were not finite; RuntimeError for a point off budget.
        """
        if not self._all_finite:
            raise InputError(
                "logits or their gradient became NaN or infinite in the attack; check the model's weights"
            )
        return checked_result(
            self.budget,
            self._best,
            self.origin,
            success=self._success,
            first_successful_step=self._first_successful_step,
            loss=self._best_loss,
            forwards=self.forwards,
            backwards=self.backwards,
            zero_gradient=self._zero_gradient,
        )

    @cached_property
    def _noise(self) -> KeyedNoise:
        return KeyedNoise(self._images, self._generator)

    def _starting_points(self) -> Tensor:
        images = self._images
        if self.budget.space == "image":
            return images
        with torch.no_grad():
            encoded = self._lent.model.encoder(images)
        if encoded.dim() < 2 or encoded.shape[1] != len(images):
            raise InputError(f"the encoder returned {list(encoded.shape)}; expected [T, {len(images)}, ...]")
        if not (encoded.amin() >= 0 and encoded.amax() <= 1):
            raise InputError(
                f"encoded values span {encoded.amin():.4g}..{encoded.amax():.4g}; expected 0..1; "
                "use another encoder"
            )
        return encoded.transpose(0, 1).to(images.dtype).contiguous()

    def _score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and per-sample losses of the active samples at `x`."""
        self.forwards[self.active] += 1
        if self.budget.space == "encoded":
            logits = self._lent.model.body(x.transpose(0, 1).contiguous())
        else:
            logits = self._lent.model(x)
        labels = _select(self.labels, self.active)
        check_logits_shape(logits, len(x))
        if not self._logits_seen:
            check_logits(logits, labels)
            self._logits_seen = True
        self._all_finite &= logits.detach().isfinite().all()
        return logits, self._loss(logits, labels).to(x.dtype)

    def _differentiate(self, loss: Tensor, x: Tensor) -> Tensor:
        """Gradient of the summed losses: a mean would scale a sample's gradient by the size of its batch."""
        gradient = None
        if loss.requires_grad:
            (gradient,) = torch.autograd.grad(loss, x, torch.ones_like(loss), allow_unused=True)
        if gradient is None:
            raise InputError(
                NO_GRADIENT.format(space="images" if self.budget.space == "image" else "encoded input")
            )
        return gradient

    def _counted(self, gradient: Tensor) -> Tensor:
        """Book the gradients of the active samples, and who of them had none at the first."""
        self.backwards[self.active] += 1
        self._all_finite &= gradient.isfinite().all()
        if not self._gradient_seen:
            self._zero_gradient[self.active] = (gradient == 0).flatten(1).all(1)
            self._gradient_seen = True
        return gradient

    def _is_fooled(self, logits: Tensor) -> Tensor:
        return logits.argmax(1) != _select(self.labels, self.active)

    def _drop_fooled(self, x: Tensor, logits: Tensor, loss: Tensor, step: int) -> Tensor:
        fooled = self._is_fooled(logits)
        self._write(x, loss, fooled, step)
        stay = (~fooled).nonzero().squeeze(1)
        self.active = _select(self.active, stay)
        return stay

    def _write(self, x: Tensor, loss: Tensor, fooled: Tensor, step: int, everywhere: bool = False) -> None:
        """Keep each point that fools or has the highest loss so far; by masks, without asking the device."""
        index = self.active
        better = torch.ones_like(fooled) if everywhere else fooled | (loss > self._best_loss[index])
        at_pixels = better.view(-1, *[1] * (x.dim() - 1))
        self._best[index] = torch.where(at_pixels, x, self._best[index])
        self._best_loss[index] = torch.where(better, loss, self._best_loss[index])
        self._success[index] = fooled
        self._first_successful_step[index] = torch.where(fooled, step, -1)


def _select(values: Tensor, positions: Tensor) -> Tensor:
    """`values[positions]` for ascending positions; without a copy when that is everything."""
    return values if len(positions) == len(values) else values.index_select(0, positions)


@contextmanager
def open_session(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    gradient: Surrogate | None,
    generator: torch.Generator | None,
    batch_norm: str,
    loss: str = "ce",
) -> Iterator[Session]:
    """Check the inputs, prepare the model, and give both back on leaving (see `prepared`).

    Works under `torch.no_grad()` and `torch.inference_mode()` too.
    """
    check_inputs(model, images, labels, budget, generator)
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        prepared(model, gradient=gradient, batch_norm=batch_norm) as lent,
    ):
        yield Session(lent, images, labels, budget, generator=generator, loss=loss)
