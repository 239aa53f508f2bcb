"""The adaptive ensemble as stored rows, beside those of the fixed one."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor

from snnlib.attacks import Budget
from snnlib.attacks.adaptive import ADAPTIVE, STEPS, AdaptiveResult, adaptive_ensemble
from snnlib.attacks.gradients import SpikeGradient
from snnlib.companion.measure.ensemble_rows import rows_of
from snnlib.companion.measure.evaluation import AttackPlan, ThreatModel
from snnlib.data import ImageSet
from snnlib.models import Model


def adaptive_rows(
    model: Model,
    image_set: ImageSet,
    threat: ThreatModel,
    eps: float,
    *,
    run: str,
    model_name: str,
    dataset: str,
    steps: int = STEPS,
    norm: str = "linf",
    members: Mapping[str, SpikeGradient] | None = None,
    seed: int = 0,
    split: str = "test",
    batch_size: int = 100,
    device: str = "cpu",
) -> pd.DataFrame:
    """Rows of `adaptive_ensemble`, one per image; attack and surrogate are "adaptive_ensemble" and "adaptive"."""

    def attacked(images: Tensor, labels: Tensor) -> AdaptiveResult:
        return adaptive_ensemble(
            model,
            images,
            labels,
            Budget(eps, norm=norm, space=threat.space),
            steps=steps,
            members=members,
            generator=torch.Generator().manual_seed(seed),
            batch_norm=threat.batch_norm,
        )

    names = {"run": run, "model": model_name, "dataset": dataset, "split": split, "seed": seed}
    plan = AttackPlan("adaptive_ensemble", eps, norm=norm, surrogate=ADAPTIVE)
    return rows_of(attacked, model, image_set, threat, plan, steps, 1, names, batch_size, device)
