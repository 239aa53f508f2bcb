"""Ensembles as stored rows: one row per sample and member, so that the worst case of a sample is a query over rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd
import torch
from torch import Tensor

from snnlib.attacks import Budget
from snnlib.attacks.ensemble import EnsembleResult, ensemble_attack
from snnlib.attacks.gradients import SpikeGradient
from snnlib.companion.measure.evaluation import AttackPlan, ThreatModel, crossed_by, described, measured, predictions
from snnlib.companion.measure.rows import ROW_COLUMNS
from snnlib.data import ImageSet
from snnlib.encoding import encoder_gradient
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.progress import progress

Attacked = Callable[[Tensor, Tensor], EnsembleResult]


def ensemble_rows(
    model: Model,
    image_set: ImageSet,
    threat: ThreatModel,
    plan: AttackPlan,
    *,
    run: str,
    model_name: str,
    dataset: str,
    members: Mapping[str, SpikeGradient] | None = None,
    alone: bool = False,
    seed: int = 0,
    split: str = "test",
    batch_size: int = 100,
    device: str = "cpu",
) -> pd.DataFrame:
    """Rows of `ROW_SCHEMA`, one per image and member that ran on it; `surrogate` names the member.

    plan: the attack that each member runs, with surrogate "own". alone: see `ensemble_attack`; without it the members
    after the first have no rows for samples that fell before, so `robust_accuracy(rows)` over all members is the
    ensemble's, while `by=["surrogate"]` is the table of single members only of rows made with `alone`.
    Other arguments as in `attack_rows`. Errors: InputError for a plan with a surrogate of its own.
    """
    plan.check()
    if plan.surrogate != "own":
        raise InputError(f"the plan's surrogate is {plan.surrogate!r}; the members bring theirs; leave it at 'own'")

    def attacked(images: Tensor, labels: Tensor) -> EnsembleResult:
        return ensemble_attack(
            model,
            images,
            labels,
            Budget(plan.eps, norm=plan.norm, space=threat.space),
            attack=plan.attack,
            members=members,
            generator=torch.Generator().manual_seed(seed),
            batch_norm=threat.batch_norm,
            alone=alone,
            **plan.options(),
        )

    names = {"run": run, "model": model_name, "dataset": dataset, "split": split, "seed": seed}
    steps, restarts = plan.repetitions("steps"), plan.repetitions("restarts")
    return rows_of(attacked, model, image_set, threat, plan, steps, restarts, names, batch_size, device)


def rows_of(
    attacked: Attacked,
    model: Model,
    image_set: ImageSet,
    threat: ThreatModel,
    plan: AttackPlan,
    steps: int,
    restarts: int,
    names: dict,
    batch_size: int,
    device: str,
) -> pd.DataFrame:
    """Attack `image_set` batch by batch and write down each member's part as rows; `names` fills the naming columns."""
    clean_correct = predictions(model, image_set, batch_size, device) == image_set.labels
    label, parts = f"{plan.attack} ensemble, {255 * plan.eps:g}/255 on {names['model']}, {threat.name}", []
    for index in progress(torch.arange(len(image_set)).split(batch_size), label=label):
        images, labels = image_set.batch(index, device), image_set.labels[index].to(device)
        with encoder_gradient(model, crossed_by(model, threat)):
            outcome = attacked(images, labels)
        for member, part in outcome.by_member.items():
            parts.append(measured(part.result, index[part.index.cpu()]).assign(surrogate=member))
    rows = pd.concat(parts, ignore_index=True)
    sample = rows["sample"].to_numpy()
    rows = rows.assign(
        label=image_set.labels.numpy()[sample],
        steps=steps,
        restarts=restarts,
        clean_correct=clean_correct.numpy()[sample],
        **described(model, threat, plan, device),
        **names,
    )
    return rows[list(ROW_COLUMNS)]
