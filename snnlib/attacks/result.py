"""What an attack returns: one entry per sample, checked against the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from snnlib.attacks.budget import Budget, l2_distance, linf_distance
from snnlib.errors import InputError
from snnlib.optional import axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class AttackResult:
    """Outcome of one attack on N samples; prints as a table of what was broken, how far away, and at what cost.

    adversarial: [N, C, H, W] in image space, [T, N, C, H, W] in encoded space; a sample that was never fooled
    carries the attack's best try.
    success: [N] bool, misclassified at `adversarial`.
    first_successful_step: [N] int64, 0 = the clean sample already was misclassified, k = after the k-th step
    (counted on over restarts), -1 = never.
    loss: [N] at `adversarial`.
    linf, l2: [N] length of the perturbation, in pixel units, in the attacked space.
    forwards: [N] int64, forward passes that the sample took part in. backwards: [N] int64, gradients taken of
    the sample's loss; the pass that finds it fooled takes none, though its batch may run on for the others (with
    `eot` above 1 it does, once per draw, as the verdict comes after the last draw).
    zero_gradient: [N] bool, the first gradient taken was exactly 0 everywhere (False where none was taken).
    """

    budget: Budget
    adversarial: Tensor
    success: Tensor
    first_successful_step: Tensor
    loss: Tensor
    linf: Tensor
    l2: Tensor
    forwards: Tensor
    backwards: Tensor
    zero_gradient: Tensor

    def __len__(self) -> int:
        return len(self.success)

    def table(self) -> pd.DataFrame:
        """A row for each sample, with the columns of this class but for the points themselves."""
        names = [field.name for field in fields(AttackResult) if field.name not in ("budget", "adversarial")]
        return pd.DataFrame({name: getattr(self, name).detach().cpu().numpy() for name in names})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Share of the samples left after each step, in percent; step 0 is the clean samples.

        ax: to draw into; None makes a figure. Errors: InputError where matplotlib is missing.
        """
        ax = axes_for(ax)
        found = self.first_successful_step[self.success].cpu()
        broken = torch.bincount(found, minlength=2).cumsum(0)
        ax.step(range(len(broken)), 100 * (1 - broken / max(len(self), 1)), where="post")
        ax.set(xlabel="step (0: no attack)", ylabel="samples left (%)", ylim=(0, 103))
        return ax

    def __repr__(self) -> str:
        rows, count = self.table(), len(self)
        broken, already = int(rows.success.sum()), int((rows.first_successful_step == 0).sum())
        lines = {"broken": f"{broken:,} ({broken / max(count, 1):.1%}), {already:,} of them without any change"}
        for name in ("linf", "l2", "loss"):
            lines[name] = f"median {rows[name].median():.4g}, largest {rows[name].max():.4g}"
        for name in ("forwards", "backwards"):
            lines[name] = f"{rows[name].sum():,} in all, {rows[name].mean():.1f} per sample"
        lines["no gradient"] = f"{int(rows.zero_gradient.sum()):,}"
        head = f"{type(self).__name__} on {count:,} samples, {self.budget}"
        return "\n".join([head, *(f"{name:>12}  {value}" for name, value in lines.items())])


def checked_result(budget: Budget, x: Tensor, origin: Tensor, **per_sample: Tensor) -> AttackResult:
    """Measure and check the sample-first points `x` found around `origin` ([N, ...]).

    Errors: RuntimeError if a point lies outside the ball or the box, which is a fault of the attack.
    """
    inside = budget.inside(x, origin)
    linf, l2 = linf_distance(x, origin), l2_distance(x, origin)
    if not inside.all():
        culprit = int((~inside).nonzero()[0])
        raise RuntimeError(
            f"attack left its budget {budget}: sample {culprit} has linf {linf[culprit]:.8g}, "
            f"l2 {l2[culprit]:.8g}, values {x[culprit].min():.8g}..{x[culprit].max():.8g}"
        )
    adversarial = x.transpose(0, 1).contiguous() if budget.space == "encoded" else x
    return AttackResult(budget=budget, adversarial=adversarial, linf=linf, l2=l2, **per_sample)


def concatenate(results: Sequence[AttackResult]) -> AttackResult:
    """Join results along the samples. Errors: InputError for none at all, or for unequal budgets."""
    if not results:
        raise InputError("no attack results to concatenate; expected at least one")
    budgets = {result.budget for result in results}
    if len(budgets) > 1:
        raise InputError(f"attack results have {len(budgets)} different budgets; join equal ones only")
    budget = results[0].budget
    joined = {}
    for field in fields(AttackResult):
        if field.name != "budget":
            sample_axis = 1 if field.name == "adversarial" and budget.space == "encoded" else 0
            parts = [getattr(result, field.name) for result in results]
            joined[field.name] = torch.cat(parts, dim=sample_axis)
    return AttackResult(budget=budget, **joined)
