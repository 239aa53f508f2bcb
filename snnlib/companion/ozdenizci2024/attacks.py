"""Özdenizci & Legenstein 2024: the chapter's networks under attack, and their spikes, as stored rows."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from snnlib.attacks.ensemble import MEMBERS
from snnlib.companion.measure.ensemble_rows import ensemble_rows
from snnlib.companion.measure.evaluation import IMAGE, AttackPlan, attack_rows
from snnlib.companion.measure.networks import (
    TrainedNetwork,
    attack_code,
    attacked,
    attacked_images,
    code_of,
    row_options,
)
from snnlib.companion.measure.rows import robust_accuracy
from snnlib.companion.measure.store import load_or_make_rows
from snnlib.companion.ozdenizci2024.sizes import ConversionSize
from snnlib.energy import count_spikes, synaptic_operations
from snnlib.models import Model
from snnlib.training import evaluate_accuracy
from snnlib.training.checkpoint import state_digest

TRAINING_SURROGATE = next(iter(MEMBERS))
"""The member whose gradient the networks were trained with: piecewise linear of width 1."""


def plan_of(attack: str, level: int, size: ConversionSize) -> AttackPlan:
    """FGSM, or PGD and APGD with the chapter's steps, at `level`/255."""
    return AttackPlan(attack, level / 255, steps=None if attack in ("fgsm", "r_fgsm") else size.ensemble_steps)


def plain_rows(item: TrainedNetwork, size: ConversionSize, attack: str, levels: tuple[int, ...]) -> pd.DataFrame:
    """One attack by the network's own gradient, as the tables report for ANNs."""
    return attacked(item, size.profile, IMAGE, [plan_of(attack, level, size) for level in levels])


def ensemble(
    item: TrainedNetwork, size: ConversionSize, attack: str, levels: tuple[int, ...], alone: bool = False
) -> pd.DataFrame:
    """The 19-member ensemble at each level; `alone` lets every member run on every image (notebook 22)."""
    image_set = attacked_images(size.profile, item.splits)
    parts = []
    for level in levels:
        plan = plan_of(attack, level, size)

        def make(plan: AttackPlan = plan) -> pd.DataFrame:
            return ensemble_rows(item.model, image_set, IMAGE, plan, alone=alone, **row_options(item, size.profile))

        config = {
            "network": item.run,
            "label": item.network.label,
            "plan": plan.as_config(),
            "members": list(MEMBERS),
            "alone": alone,
            "images": len(image_set),
            "batch_size": size.profile.attack_batch_size,
            "code": [attack_code(attack), code_of("snnlib.companion.measure.ensemble_rows", "snnlib.attacks.ensemble")],
        }
        parts.append(load_or_make_rows("ensembles", config, make))
    return pd.concat(parts, ignore_index=True)


def accuracy_of_steps(
    steps: dict[str, Model], item: TrainedNetwork, size: ConversionSize, level: int = 2
) -> pd.DataFrame:
    """Each network of `steps`: accuracy on all test images, and under PGD by its own gradient on the attacked ones."""
    image_set, plan = attacked_images(size.profile, item.splits), plan_of("pgd", level, size)
    parts = []
    for name, model in steps.items():

        def make(model: Model = model, name: str = name) -> pd.DataFrame:
            options = row_options(item, size.profile) | {"model_name": name}
            rows = attack_rows(model, image_set, IMAGE, plan, **options)
            clean = evaluate_accuracy(model, item.splits.test, device=item.device)
            robust = robust_accuracy(rows).robust_accuracy.item()
            return pd.DataFrame([{"step": name, "seed": item.seed, "clean": clean, "robust": robust, "eps255": level}])

        config = {
            "network": item.run,
            "step": name,
            "model": model.config,
            "weights": state_digest(model.state_dict()),
            "plan": plan.as_config(),
            "images": len(image_set),
            "test_images": len(item.splits.test),
            "batch_size": size.profile.attack_batch_size,
            "code": attack_code("pgd"),
        }
        parts.append(load_or_make_rows("conversion_steps", config, make))
    return pd.concat(parts, ignore_index=True)


def spike_rows(item: TrainedNetwork, size: ConversionSize) -> pd.DataFrame:
    """Spikes per layer, mean per test image: see `snnlib.energy.count_spikes`."""
    return _counted("spikes", count_spikes, item, size)


def operation_rows(item: TrainedNetwork, size: ConversionSize) -> pd.DataFrame:
    """Synaptic operations per connection, mean per test image: see `snnlib.energy.synaptic_operations`."""
    return _counted("operations_per_layer", synaptic_operations, item, size)


def _counted(kind: str, count: Callable, item: TrainedNetwork, size: ConversionSize) -> pd.DataFrame:
    image_set = attacked_images(size.profile, item.splits)

    def make() -> pd.DataFrame:
        return count(item.model, image_set, batch_size=size.profile.attack_batch_size)

    config = {"network": item.run, "images": len(image_set), "code": code_of("snnlib.energy")}
    return load_or_make_rows(kind, config, make).assign(model=item.network.label, seed=item.seed)
