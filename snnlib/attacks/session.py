"""One attack under way: the problem seen sample-first, what it has cost, and the best point found per sample.

Every attack is a loop over `Session`; the bookkeeping that a fair evaluation needs is written here once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.entrance import PROBED, check_repeatable, explained, is_stateless
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.inputs import check_count, check_flag, check_inputs, check_logits, check_logits_shape
from snnlib.attacks.keyed_noise import KeyedNoise, controlled_draws
from snnlib.attacks.losses import Context, find_loss, wrong_classes
from snnlib.attacks.prepared import PreparedModel, check_exchange, prepared
from snnlib.attacks.result import AttackResult, checked_result
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate

NO_GRADIENT = (
    "the logits do not depend on the {space} in a differentiable way: if neurons have no gradient in eval "
    "mode, use neurons that do; if the encoder cuts it, build it with another gradient or attack with "
    'Budget(space="encoded")'
)


class Visit(NamedTuple):
    """What a visit to some points tells. stay: [n] positions in the points, of the samples that stay. slope:
    [n, ...] loss gradient there. loss: [n]."""

    stay: Tensor
    slope: Tensor
    loss: Tensor


class Session:
    """Tensors are sample-first, `[N, ...]`: an encoded input `[T, N, ...]` is seen as `[N, T, ...]`.

    `active` holds the indices of the samples still under attack; points handed in are `[len(active), ...]`.
    Samples leave it once they are fooled, except where BatchNorm looks at the whole batch or the caller wants every
    step (`fixed_batch`). A step waits for the device at most once, to learn who is left.

    Whether a sample is fooled is always judged on the deployed network: by the mean logits over `eot` draws of its
    random numbers (one pass for a network that has none). The gradient is the mean over the same draws; where the
    attacker differentiates a stand-in (`same_forward` False), it comes from passes of its own.
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
        eot: int,
        early_stop: bool,
        use_draw: Callable[[Tensor], None],
    ) -> None:
        self._lent = lent
        self._loss_name, self._loss = loss, find_loss(loss)
        self._images = images.detach().clone()
        self._generator = generator
        self._use_draw = use_draw
        self._passes = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        self.budget = budget
        self.eot = eot
        self.labels = labels.to(images.device, torch.int64, copy=True)
        self.origin = self._starting_points()
        self.fixed_batch = lent.batch_norm != "eval" or not early_stop

        count, device = len(images), images.device
        self.active = self._read = torch.arange(count, device=device)
        self._numbers = list(range(count))  # of the samples in `_read`, for the host
        self.forwards = torch.zeros(count, dtype=torch.int64, device=device)
        self.backwards = torch.zeros(count, dtype=torch.int64, device=device)
        self._best = self.origin.clone()
        self._best_loss = torch.full((count,), -torch.inf, dtype=self.origin.dtype, device=device)
        self._success = torch.zeros(count, dtype=torch.bool, device=device)
        self._first_successful_step = torch.full((count,), -1, dtype=torch.int64, device=device)
        self._zero_gradient = torch.zeros(count, dtype=torch.bool, device=device)
        self._logits_seen = self._gradient_seen = False
        self._all_finite = torch.ones((), dtype=torch.bool, device=device)
        self._clean_logits = self._score_clean() if self._loss.needs_clean else None
        self._targets = None
        if self._loss.needs_targets:
            self.aim(1)

    @property
    def active_origin(self) -> Tensor:
        """The unperturbed samples still under attack."""
        return select(self.origin, self.active)

    @property
    def classes(self) -> int:
        """How many classes the model has; for a loss that needs the clean logits."""
        return self._clean_logits.shape[1]

    def generators(self, draw: int) -> list[torch.Generator]:
        """One CPU generator per active sample for the draw number `draw`."""
        if self._read is not self.active:
            self._read, self._numbers = self.active, self.active.tolist()
        return self._noise.generators(self._numbers, draw)

    def aim(self, rank: int) -> None:
        """From here on a targeted loss pulls each sample to its `rank`-th strongest wrong class when clean (from 1)."""
        self._targets = wrong_classes(self._clean_logits, self.labels)[:, rank - 1]

    def record_clean(self) -> None:
        """Score the unperturbed samples, step 0; the misclassified leave. Free where the loss has asked already."""
        with torch.no_grad():
            if self._clean_logits is None:
                logits, loss = self._score(self.origin)
            else:
                logits, loss = self._clean_logits, self._loss_of(self._clean_logits)
            self._drop_fooled(self.origin, logits, loss, step=0)

    def record(self, x: Tensor, step: int) -> Tensor:
        """Score the points `x`, reached after `step` steps; the fooled leave.

        Returns the positions in `x` of those who stay, [len(active)] int64.
        """
        with torch.no_grad():
            return self._drop_fooled(x, *self._score(x), step)

    def record_with_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """`record`, and the loss gradient [len(active), ...] of those who stay.

        With a fixed batch nothing is recorded and everybody stays.
        """
        return self.visit(x, step)[:2]

    def visit(self, x: Tensor, step: int) -> Visit:
        """`record_with_gradient`, and the loss [len(active)] of those who stay, at `x`."""
        if self.fixed_batch:
            return Visit(torch.arange(len(x), device=x.device), *self._slope_and_loss(x))
        if not self._lent.same_forward:
            with torch.no_grad():
                logits, loss = self._score(x)
            stay = self._drop_fooled(x, logits, loss, step)
            return Visit(stay, self.gradient(select(x, stay)), select(loss, stay))
        if self.eot > 1:
            logits, loss, slope = self._draws_with_gradient(x)
            stay = self._drop_fooled(x, logits, loss, step)
            return Visit(stay, select(slope, stay), select(loss, stay))
        return self._visit_once(x, step)

    def gradient(self, x: Tensor) -> Tensor:
        """The loss gradient at `x`, [len(active), ...]; nothing is recorded and nobody leaves."""
        return self._slope_and_loss(x)[0]

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
        self._use_draw(self._passes)
        with torch.no_grad(), explained(self._lent.model, images):
            encoded = self._lent.model.encoder(images)
        if encoded.dim() < 2 or encoded.shape[1] != len(images):
            raise InputError(f"the encoder returned {list(encoded.shape)}; expected [T, {len(images)}, ...]")
        if not (encoded.amin() >= 0 and encoded.amax() <= 1):
            raise InputError(
                f"encoded values span {encoded.amin():.4g}..{encoded.amax():.4g}; expected 0..1; "
                "use another encoder"
            )
        return encoded.transpose(0, 1).to(images.dtype).contiguous()

    def _score_clean(self) -> Tensor:
        """Logits of the unperturbed samples with BatchNorm in eval, whatever the threat model says for the attack."""
        self._lent.freeze_batch_norm()
        with torch.no_grad():
            logits = _mean([self._logits(self.origin, draw) for draw in range(self.eot)])
        self._lent.switch_modes()
        return logits

    def _score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean logits and mean losses of the active samples at `x`, over the draws."""
        logits = [self._logits(x, draw) for draw in range(self.eot)]
        return _mean(logits), _mean([self._loss_of(one) for one in logits])

    def _visit_once(self, x: Tensor, step: int) -> Visit:
        """One pass for the score and the gradient; the graph is followed only for those who stay."""
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            logits, loss = self._score(x)
            stay = self._drop_fooled(x.detach(), logits.detach(), loss.detach(), step)
            loss_of_stayers = select(loss, stay)
        if len(stay) == 0:
            return Visit(stay, x.detach()[:0], loss.detach()[:0])
        slope = select(self._differentiate(loss_of_stayers, x), stay)
        return Visit(stay, self._checked(slope), loss_of_stayers.detach())

    def _slope_and_loss(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if len(x) == 0:
            return x.detach(), x.new_zeros(0)
        with self._lent.differentiable():
            _, loss, slope = self._draws_with_gradient(x)
        return slope, loss

    def _draws_with_gradient(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, losses and gradients at `x`, each the mean over the draws; a draw's graph is gone before the next."""
        x = x.detach().requires_grad_(True)
        draws = []
        for draw in range(self.eot):
            with torch.enable_grad():
                logits = self._logits(x, draw)
                loss = self._loss_of(logits)
            draws.append((logits.detach(), loss.detach(), self._differentiate(loss, x)))
        logits, losses, slopes = (_mean(values) for values in zip(*draws, strict=True))
        return logits, losses, self._checked(slopes)

    def _logits(self, x: Tensor, draw: int) -> Tensor:
        """One pass of the active samples, by the random numbers of the next draw."""
        self.forwards[self.active] += 1
        if not self._logits_seen:
            self._check_repeatable()
        self._passes[self.active] += 1
        self._use_draw(self._passes[self.active])
        self._lent.active(self.active, repeat=draw > 0)
        logits = self._first_forward(x) if not self._logits_seen else self._forward(x)
        check_logits_shape(logits, len(x))
        if not self._logits_seen:
            check_logits(logits, self.labels, self._loss_name, self._loss.fewest_classes)
            self._logits_seen = True
        self._all_finite &= logits.detach().isfinite().all()
        return logits

    def _check_repeatable(self) -> None:
        """Errors: InputError for a model that answers the same images differently twice; see `entrance`."""
        if is_stateless(self._lent.model):
            return
        self._use_draw(self._passes[:PROBED])
        with self._lent.frozen_batch_norm():
            check_repeatable(self._lent.model, self._forward, self.origin, randomised=self.eot > 1)

    def _forward(self, x: Tensor) -> Tensor:
        if self.budget.space == "encoded":
            return self._lent.model.body(x.transpose(0, 1).contiguous())
        return self._lent.model(x)

    def _first_forward(self, x: Tensor) -> Tensor:
        with explained(self._lent.model, x):
            return self._forward(x)

    def _loss_of(self, logits: Tensor) -> Tensor:
        known = (self._clean_logits, self._targets)
        context = Context(*(None if values is None else select(values, self.active) for values in known))
        return self._loss.function(logits, select(self.labels, self.active), context).to(self.origin.dtype)

    def _differentiate(self, loss: Tensor, x: Tensor) -> Tensor:
        """Gradient of the summed losses: a mean would scale a sample's gradient by the size of its batch."""
        gradient = None
        if loss.requires_grad:
            (gradient,) = torch.autograd.grad(loss, x, torch.ones_like(loss), allow_unused=True)
        if gradient is None:
            raise InputError(
                NO_GRADIENT.format(space="images" if self.budget.space == "image" else "encoded input")
            )
        self.backwards[self.active] += 1
        return gradient

    def _checked(self, slope: Tensor) -> Tensor:
        """Note whether the gradients of the active samples are finite, and who of them had none at the first."""
        self._all_finite &= slope.isfinite().all()
        if not self._gradient_seen:
            self._zero_gradient[self.active] = (slope == 0).flatten(1).all(1)
            self._gradient_seen = True
        return slope

    def _is_fooled(self, logits: Tensor) -> Tensor:
        return logits.argmax(1) != select(self.labels, self.active)

    def _drop_fooled(self, x: Tensor, logits: Tensor, loss: Tensor, step: int) -> Tensor:
        fooled = self._is_fooled(logits)
        self._write(x, loss, fooled, step)
        stay = (~fooled).nonzero().squeeze(1)
        self.active = select(self.active, stay)
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


def select(values: Tensor, positions: Tensor) -> Tensor:
    """`values[positions]` for ascending positions; without a copy when that is everything."""
    return values if len(positions) == len(values) else values.index_select(0, positions)


def _mean(draws: Sequence[Tensor]) -> Tensor:
    return draws[0] if len(draws) == 1 else torch.stack(draws).mean(0)


@contextmanager
def open_session(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    gradient: Surrogate | SpikeGradient | None,
    generator: torch.Generator | None,
    batch_norm: str,
    loss: str = "ce",
    *,
    eot: int = 1,
    early_stop: bool = True,
) -> Iterator[Session]:
    """Check the inputs, prepare the model, and give both back on leaving (see `prepared`, `controlled_draws`).

    eot: draws of the model's random numbers over which logits and gradients are averaged. With few, a randomised
    network that is judged at every step is fooled by an unlucky draw sooner or later: raise it until success stops
    falling. early_stop: False keeps everybody in until `settle`.
    Works under `torch.no_grad()` and `torch.inference_mode()` too.
    """
    check_inputs(model, images, labels, budget, generator)
    eot = check_count("eot", eot)
    check_flag("early_stop", early_stop)
    find_loss(loss)
    with torch.inference_mode(False):
        check_exchange(model, gradient, images)
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        prepared(model, gradient=gradient, batch_norm=batch_norm) as lent,
        controlled_draws(model, generator, images.device) as use_draw,
    ):
        yield Session(
            lent,
            images,
            labels,
            budget,
            generator=generator,
            loss=loss,
            eot=eot,
            early_stop=early_stop,
            use_draw=use_draw,
        )
