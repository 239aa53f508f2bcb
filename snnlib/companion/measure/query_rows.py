"""Attacks that are counted in queries, as stored rows: one table per network, attack and budget."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from snnlib.attacks import AttackResult, Budget
from snnlib.companion.measure.evaluation import predictions
from snnlib.companion.measure.networks import TrainedNetwork
from snnlib.companion.measure.store import load_or_make_rows
from snnlib.data import ImageSet
from snnlib.progress import progress
from snnlib.training.checkpoint import state_digest


def query_rows(
    item: TrainedNetwork,
    images: ImageSet,
    batch_size: int,
    budget: Budget,
    attack: Callable[..., AttackResult],
    config: dict,
) -> pd.DataFrame:
    """One row per image of `attack(model, images, labels, budget, generator=...)`, made once.

    Columns: sample, success, first_successful_step, queries (forwards), backwards, linf, clean_correct, split, run,
    model, seed, dataset, attack. config: "attack", the name in the rows, and whatever else decides them.
    """
    config = config | {
        "network": item.run,
        "label": item.network.label,
        "budget": vars(budget),
        "images": state_digest({"pixels": images.images, "labels": images.labels}),
        "batch_size": batch_size,
    }

    def attacked(points: Tensor, labels: Tensor) -> AttackResult:
        generator = torch.Generator().manual_seed(item.seed)
        return attack(item.model, points, labels, budget, generator=generator)

    label = f"{config['attack']} on {item.network.label}"
    make = functools.partial(_rows, item, images, attacked, batch_size, label)
    return load_or_make_rows("queries", config, make).assign(attack=config["attack"])


def _rows(
    item: TrainedNetwork,
    images: ImageSet,
    attacked: Callable[[Tensor, Tensor], AttackResult],
    batch_size: int,
    label: str,
) -> pd.DataFrame:
    clean_correct = predictions(item.model, images, batch_size, item.device) == images.labels
    parts = []
    for index in progress(torch.arange(len(images)).split(batch_size), label=label):
        result = attacked(images.batch(index, item.device), images.labels[index].to(item.device))
        measured = {"success": result.success, "first_successful_step": result.first_successful_step}
        measured |= {"queries": result.forwards, "backwards": result.backwards, "linf": result.linf}
        columns = {name: values.cpu().numpy() for name, values in measured.items()}
        parts.append(pd.DataFrame({"sample": index.numpy(), **columns}))
    names = {"run": item.run, "model": item.network.label, "seed": item.seed, "dataset": item.splits.name}
    return pd.concat(parts, ignore_index=True).assign(clean_correct=clean_correct.numpy(), split="test", **names)
