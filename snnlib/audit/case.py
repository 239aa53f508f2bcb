"""One audit under way: the model on loan, the attacks already run, and what they have found."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from snnlib.attacks.budget import Budget
from snnlib.attacks.ensemble import member_generator
from snnlib.attacks.entrance import explained
from snnlib.attacks.inputs import check_count, check_logits, check_logits_shape
from snnlib.attacks.losses import Context, find_loss
from snnlib.attacks.prepared import prepared
from snnlib.attacks.projected_gradient import pgd
from snnlib.attacks.result import concatenate
from snnlib.audit.report import CLEAN, MASKED, SUSPICIOUS, AttackLine

MASKED_SHARE, MASKED_COUNT = 0.05, 5
"""An attack that finds this share of the correct images, and this many, beyond another one: that one was blind."""
SUSPICIOUS_SHARE, SUSPICIOUS_COUNT = 0.03, 3
GRADES = (
    f"of the correct images: {SUSPICIOUS_SHARE:.0%} and {SUSPICIOUS_COUNT} are suspicious, {MASKED_SHARE:.0%} and "
    f"{MASKED_COUNT} say masked"
)


@dataclass(frozen=True)
class Effort:
    """How much an audit spends.

    steps: of each run of PGD and APGD. queries: of Square. members: names of the gradients in the surrogate ensemble
    (`parse_gradient` reads them). restarts: of PGD by the model's own gradient, the ensemble's equal in runs. draws:
    forward passes that look for randomness. eot: draws averaged where it is found. grid: points per axis of the loss
    surface, on `pictured` images. eps_factors: multiples of eps on the accuracy curve.
    """

    steps: int
    queries: int
    members: tuple[str, ...]
    restarts: int
    draws: int = 3
    eot: int = 8
    grid: int = 9
    pictured: int = 20
    eps_factors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)

    def __post_init__(self) -> None:
        for name in ("steps", "queries", "restarts", "draws", "eot", "grid", "pictured"):
            object.__setattr__(self, name, check_count(name, getattr(self, name)))


class CouldNotDo(Exception):
    """A check does not apply to this model; the text says why."""


class Case:
    """Images, labels, budget and effort of an audit, with every attack run at most once.

    Attacks run on correctly classified images only, in batches of `batch_size`; `fooled[label]` is `[N]` bool over all
    images, False where an attack did not run.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        budget: Budget,
        effort: Effort,
        seed: int,
        batch_size: int,
    ) -> None:
        self.model, self.images, self.budget = model, images, budget
        self.labels = labels.to(images.device, torch.int64)
        self.effort, self.seed, self.batch_size = effort, seed, batch_size
        self.fooled: dict[str, Tensor] = {}
        self.lines: dict[str, AttackLine] = {}
        self.curves: dict[str, list] = {}
        self.other_gradients: list[str] = []
        self.randomised = False

    @cached_property
    def logits(self) -> Tensor:
        """[N, classes] of the clean images in eval mode. Errors: InputError for logits that cannot be audited."""
        with explained(self.model, self.images):
            logits = self.deployed(self.images)
        check_logits(logits, self.labels)
        return logits

    @cached_property
    def correct(self) -> Tensor:
        """[n] indices of the images classified correctly without attack."""
        return (self.logits.argmax(1) == self.labels).nonzero().squeeze(1)

    @property
    def standing(self) -> Tensor:
        """[n] indices of the correct images that no attack has fooled yet within the ball."""
        return self.left_by(*[label for label, line in self.lines.items() if line.same_ball])

    def left_by(self, *labels: str) -> Tensor:
        """[n] indices of the correct images that none of these attacks fooled."""
        found = torch.zeros(len(self.images), dtype=torch.bool, device=self.images.device)
        for label in labels:
            found |= self.fooled[label]
        return self.correct[~found[self.correct]]

    def deployed(self, x: Tensor) -> Tensor:
        """Logits in eval mode, without a graph. Errors: InputError for what are no logits."""
        parts = []
        with torch.no_grad(), prepared(self.model):
            for batch in x.split(self.batch_size):
                parts.append(self.model(batch))
                check_logits_shape(parts[-1], len(batch))
        return torch.cat(parts)

    def margins(self, x: Tensor, labels: Tensor) -> Tensor:
        """[n] strongest wrong logit minus the right one."""
        return find_loss("margin").function(self.deployed(x), labels, Context())

    def run(
        self,
        label: str,
        attack: Callable,
        *,
        on: Tensor | None = None,
        budget: Budget | None = None,
        around: AbstractContextManager | None = None,
        seed: int = 0,
        **options,
    ) -> Tensor:
        """[N] bool: whom `attack` fooled among the images `on` (all correct ones). Run once per label.

        around: a context that the attack runs in. A budget other than the audit's keeps the attack out of the worst
        case. seed: number of the run, for other starts. Errors: InputError where the model does not allow this attack.
        """
        if label not in self.fooled:
            indices = self.correct if on is None else on
            with around or nullcontext():
                self._book(label, attack, indices, budget or self.budget, seed, options)
        return self.fooled[label]

    def nobody(self, label: str) -> Tensor:
        """[N] bool, all False: the attack that this model gives nothing to start from."""
        self.lines.setdefault(label, AttackLine(label, 0, 0, True, len(self.standing), 0, 0))
        return self.fooled.setdefault(label, torch.zeros(len(self.images), dtype=torch.bool, device=self.images.device))

    def pgd(self, label: str, **options) -> Tensor:
        """`run` with PGD at the effort's number of steps."""
        return self.run(label, pgd, steps=self.effort.steps, **options)

    def beyond(self, found: Tensor, missed_by: Tensor) -> int:
        """How many correct images are in `found` and not in `missed_by`, both `[N]` bool."""
        return int((found & ~missed_by)[self.correct].sum())

    def share(self, count: float) -> float:
        """`count` as a share of the correct images."""
        return count / max(len(self.correct), 1)

    def again(self, label: str, runs: int) -> Tensor:
        """[N] bool: whom `runs` further runs of PGD from other starts fool of those that `label` left."""
        tried = [label]
        for number in range(1, runs + 1):
            self.pgd(f"{label}, run {number} more", on=self.left_by(*tried), seed=number)
            tried.append(f"{label}, run {number} more")
        return torch.stack([self.fooled[each] for each in tried[1:]]).any(0)

    def grade_gain(self, theirs: Tensor, control: Tensor) -> tuple[int, str]:
        """How many more correct images are in `theirs` than in `control`, [N] bool, and what that says.

        The two see the same images, so only those on which they differ tell: nothing, where the 95 % interval (Wilson)
        of their share in favour of `theirs` holds one half; else `grade` of the difference.
        """
        gained, lost = self.beyond(theirs, control), self.beyond(control, theirs)
        clear = wilson_lower(gained, gained + lost) > 0.5
        return gained - lost, self.grade(gained - lost) if clear else CLEAN

    def grade(self, count: int) -> str:
        """What it says that `count` correct images were missed: see `MASKED_SHARE` and `SUSPICIOUS_SHARE`."""
        if count >= MASKED_COUNT and self.share(count) >= MASKED_SHARE:
            return MASKED
        return SUSPICIOUS if count >= SUSPICIOUS_COUNT and self.share(count) >= SUSPICIOUS_SHARE else CLEAN

    @cached_property
    def ends(self) -> tuple[Tensor, Tensor, Tensor]:
        """Margins [n] of the correct images, the mean over `eot` draws of a random model: clean, at eps along the
        gradient, and at eps along noise."""
        x, labels = self.images[self.correct], self.labels[self.correct]
        uphill, sideways = self.ways
        points = (x, *((x + self.budget.eps * way).clamp(0, 1) for way in (uphill, sideways)))
        draws = self.effort.eot if self.randomised else 1
        return tuple(torch.stack([self.margins(point, labels) for _ in range(draws)]).mean(0) for point in points)

    @cached_property
    def ways(self) -> tuple[Tensor, Tensor]:
        """Directions of length 1 [n, C, H, W] from the correct images: up the margin, and one of noise for all."""
        x = self.images[self.correct]
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(x.shape[1:], dtype=x.dtype, generator=generator).to(x.device).expand_as(x)
        return self.budget.steepest(self.slopes["margin"]), self.budget.steepest(noise)

    @property
    def moving(self) -> Tensor:
        """[n] bool of the correct images: the margin is another one at either end of the ball. Nothing can hide where
        the function is constant: at eps 0, or below the level that an encoder sees."""
        start, along, beside = self.ends
        return (along != start) | (beside != start)

    @cached_property
    def differentiable(self) -> bool:
        """Whether autograd connects the logits to the images in eval mode, be the gradient all zero."""
        x = self.images[:1].detach().clone().requires_grad_(True)
        with prepared(self.model), torch.inference_mode(False), torch.enable_grad():
            logits = self.model(x)
            return logits.requires_grad and torch.autograd.grad(logits.sum(), x, allow_unused=True)[0] is not None

    @cached_property
    def slopes(self) -> dict[str, Tensor]:
        """Gradients [n, C, H, W] of "ce" and "margin" at the correct images, in eval mode; see `gradients`."""
        return self.gradients(training=False)

    def gradients(self, training: bool) -> dict[str, Tensor]:
        """As `slopes`; `training` puts all modules but BatchNorm and dropout in train mode. A gradient that does not
        exist is all zero."""
        parts: dict[str, list[Tensor]] = {"ce": [], "margin": []}
        x, labels = self.images[self.correct], self.labels[self.correct]
        with prepared(self.model), torch.inference_mode(False), torch.enable_grad():
            if training:
                _train_neurons(self.model)
            for batch, batch_labels in zip(x.split(self.batch_size), labels.split(self.batch_size), strict=True):
                start = batch.detach().clone().requires_grad_(True)
                logits = self.model(start)
                for loss, slopes in parts.items():
                    values = find_loss(loss).function(logits, batch_labels, Context())
                    slopes.append(_gradient(values, start))
        return {loss: torch.cat(slopes) if slopes else x for loss, slopes in parts.items()}

    def _book(
        self, label: str, attack: Callable, indices: Tensor, budget: Budget, seed: int, options: dict
    ) -> None:
        known = inspect.signature(attack).parameters
        if self.randomised and "eot" in known:
            options = {"eot": self.effort.eot, **options}
        generator = torch.Generator().manual_seed(self.seed)
        generator = member_generator(generator, seed) if seed else generator
        results = [
            attack(self.model, self.images[part], self.labels[part], budget, generator=generator, **options)
            for part in indices.split(self.batch_size)
            if len(part)
        ]
        fooled = torch.zeros(len(self.images), dtype=torch.bool, device=self.images.device)
        forwards = backwards = 0
        if results:
            joined = concatenate(results)
            fooled[indices] = joined.success
            forwards, backwards = int(joined.forwards.sum()), int(joined.backwards.sum())
        self.fooled[label] = fooled
        same_ball = budget == self.budget
        left = self.standing
        if same_ball:
            left = left[~fooled[left]]
        self.lines[label] = AttackLine(
            label, len(indices), int(fooled.sum()), same_ball, len(left), forwards, backwards
        )

    def at_eps(self, eps: float) -> Budget:
        """The audit's budget with another radius."""
        return replace(self.budget, eps=eps)


def wilson_lower(hits: int, count: int, z: float = 1.96) -> float:
    """Lower end of the 95 % interval of a share. **Source:** Wilson 1927."""
    if count == 0:
        return 0.0
    share = hits / count
    spread = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return (share + z**2 / (2 * count) - spread) / (1 + z**2 / count)


def _gradient(values: Tensor, start: Tensor) -> Tensor:
    """Gradient of the summed `values`; zero where they do not depend on `start`."""
    slope = None
    if values.requires_grad:
        (slope,) = torch.autograd.grad(values.sum(), start, retain_graph=True, allow_unused=True)
    return torch.zeros_like(start) if slope is None else slope.detach()


def _train_neurons(model: nn.Module) -> None:
    kept = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    for module in model.modules():
        if not isinstance(module, ScriptModule):  # which does not say what it is
            module.training = not isinstance(module, kept)
