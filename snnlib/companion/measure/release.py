"""Trained networks go into the package, and come out of it: where one is released, nobody trains it again."""

from __future__ import annotations

import copy
import functools
import json
import re
from typing import TYPE_CHECKING

import torch
from torch import nn

from snnlib.companion import paths
from snnlib.companion.measure.store import read_json
from snnlib.files import write_atomic
from snnlib.models import Model
from snnlib.models.released import CARD, FOLDER, released, released_card, released_names
from snnlib.tensor_files import write_tensors
from snnlib.training import History, evaluate_accuracy

if TYPE_CHECKING:
    from snnlib.companion.measure.networks import TrainedNetwork


@torch.no_grad()
def round_weights(model: nn.Module) -> None:
    """Round parameters and buffers to half precision, in place; they stay float32."""
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half())


def release(item: TrainedNetwork, profile_name: str) -> str:
    """Write weights (half precision) and card of a finished network into the package; returns its name.

    The card has the accuracy on the test images *after* rounding.
    """
    name = f"{_slug(item.label)}-{profile_name}-{item.seed}"
    model = copy.deepcopy(item.model)
    round_weights(model)
    state = model.state_dict().items()
    halves = {key: value.half() if value.is_floating_point() else value for key, value in state}
    write_tensors(FOLDER / f"{name}.safetensors", halves, {"model": item.model.config})
    record = read_json(paths.ARTIFACTS / "networks" / f"{item.key}.json") or {}
    card = {
        "key": item.key,
        "label": item.label,
        "seed": item.seed,
        "arguments": record.get("arguments"),
        "made": record.get("made"),
        "history": list(item.history.epochs),
        "test_accuracy": evaluate_accuracy(model, item.splits.test, device=item.device),
        "test_images": len(item.splits.test),
    }
    write_atomic(FOLDER / f"{name}{CARD}", json.dumps(card, indent=1, sort_keys=True) + "\n")
    released_keys.cache_clear()
    return name


@functools.cache
def released_keys() -> dict[str, str]:
    """Key -> name of every released network."""
    return {released_card(name)["key"]: name for name in released_names()}


def profile_of(name: str) -> str:
    """The profile that a released network is of, from its name."""
    return name.split("-")[-2]


def from_released(key: str, model: Model) -> History | None:
    """Give `model` the weights of the released network with this key; its history, or None where there is none."""
    name = released_keys().get(key)
    if name is None:
        return None
    model.load_state_dict(released(name).state_dict())
    weights = FOLDER / f"{name}.safetensors"
    return History(tuple(released_card(name)["history"]), True, weights, weights)


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
