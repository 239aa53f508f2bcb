"""Özdenizci & Legenstein 2024: the chapter's networks under attack, and their spikes, as stored rows."""

from __future__ import annotations

import pandas as pd

from snnlib.attacks.ensemble import MEMBERS
from snnlib.companion.measure.attacked import Attack, attacked
from snnlib.companion.measure.networks import TrainedNetwork, accuracy, attacked_images, variant
from snnlib.companion.measure.rows import robust_accuracy
from snnlib.companion.measure.store import stored
from snnlib.companion.sizes import ConversionSize
from snnlib.data import ImageSet
from snnlib.energy import count_spikes, synaptic_operations
from snnlib.models import Model

TRAINING_SURROGATE = next(iter(MEMBERS))
"""The member whose gradient the networks were trained with: piecewise linear of width 1."""


def attack_at(
    name: str, level: int, size: ConversionSize, members: tuple[str, ...] = (), alone: bool = False
) -> Attack:
    """FGSM, or PGD and APGD with the chapter's steps, at `level`/255; by the own gradient or by `members`."""
    options = {} if name in ("fgsm", "r_fgsm") else {"steps": size.ensemble_steps}
    return Attack(name, level / 255, members=members, alone=alone, options=options)


def plain_rows(item: TrainedNetwork, size: ConversionSize, name: str, levels: tuple[int, ...]) -> pd.DataFrame:
    """One attack by the network's own gradient, as the tables report for ANNs."""
    return _attacked(item, size, [attack_at(name, level, size) for level in levels])


def ensemble(
    item: TrainedNetwork, size: ConversionSize, name: str, levels: tuple[int, ...], alone: bool = False
) -> pd.DataFrame:
    """The 19-member ensemble at each level; `alone` lets every member run on every image (notebook 22)."""
    return _attacked(item, size, [attack_at(name, level, size, tuple(MEMBERS), alone) for level in levels])


def accuracy_of_steps(
    steps: dict[str, Model], item: TrainedNetwork, size: ConversionSize, level: int = 2
) -> pd.DataFrame:
    """Each network of `steps`: accuracy on all test images, and under PGD by its own gradient on the attacked ones."""
    rows = []
    for name, model in steps.items():
        step = variant(item, model, name)
        left = robust_accuracy(_attacked(step, size, [attack_at("pgd", level, size)])).robust_accuracy.item()
        clean = accuracy(step, item.splits.test).test_accuracy.item()
        rows.append({"step": name, "seed": item.seed, "clean": clean, "robust": left, "eps255": level})
    return pd.DataFrame(rows)


def spike_rows(item: TrainedNetwork, size: ConversionSize) -> pd.DataFrame:
    """Spikes per layer, mean per test image: see `snnlib.energy.count_spikes`."""
    table = _spikes(item, attacked_images(size.profile, item.splits), size.profile.attack_batch_size)
    return table.assign(model=item.label, seed=item.seed)


def operation_rows(item: TrainedNetwork, size: ConversionSize) -> pd.DataFrame:
    """Synaptic operations per connection, mean per test image: see `snnlib.energy.synaptic_operations`."""
    table = _operations(item, attacked_images(size.profile, item.splits), size.profile.attack_batch_size)
    return table.assign(model=item.label, seed=item.seed)


@stored("spikes", unnamed=("batch_size",))
def _spikes(item: TrainedNetwork, images: ImageSet, batch_size: int) -> pd.DataFrame:
    return count_spikes(item.model, images, batch_size=batch_size)


@stored("synaptic_operations", unnamed=("batch_size",))
def _operations(item: TrainedNetwork, images: ImageSet, batch_size: int) -> pd.DataFrame:
    return synaptic_operations(item.model, images, batch_size=batch_size)


def _attacked(item: TrainedNetwork, size: ConversionSize, attacks: list[Attack]) -> pd.DataFrame:
    return attacked(item, attacks, attacked_images(size.profile, item.splits), size.profile.attack_batch_size)
