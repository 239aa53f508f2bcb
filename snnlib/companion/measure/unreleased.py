"""Networks whose weights are not released: where all that a notebook shows of them is stored, key and history do.

Only `run_all.sh --from-released` takes them. What asks for more than is stored gets one line, never a number.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from snnlib.companion import paths
from snnlib.companion.measure.store import read_json
from snnlib.errors import InputError
from snnlib.training import History

NOTES = "used.json"
"""In `figures/<profile>`: per notebook, by its two digits, what `figures.note_of_use` reads."""


def read_notes(profile: str) -> dict[str, dict[str, Any]]:
    """What the published notebooks of a profile used; empty where nothing is published."""
    return read_json(paths.published_dir(profile) / NOTES) or {}


def published_history(profile: str, key: str) -> History | None:
    """The history of a network that a published notebook used; None for any other."""
    for note in read_notes(profile).values():
        if key in note["networks"]:
            nowhere = paths.ARTIFACTS / "networks" / key
            return History(tuple(note["networks"][key]), True, nowhere, nowhere)
    return None


@torch.no_grad()
def take_weights_away(model: nn.Module, name: str) -> None:
    """Make every call of the model or a part with weights an InputError, and the weights NaN for who copies them."""
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.fill_(math.nan)

    def refuse(*_: object) -> None:
        raise InputError(
            f"the weights of {name} are not released, and this has to run them; "
            "start without --from-released to train it"
        )

    for module in model.modules():
        if module is model or next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(refuse)
