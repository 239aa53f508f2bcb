"""Checkpoints: one file with weights, optimiser state and JSON metadata; see `snnlib.tensor_files`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.files import user_path
from snnlib.tensor_files import read_tensors, write_tensors
from snnlib.tensor_files import state_digest as state_digest

MODEL, OPTIMISER = "model", "optimiser"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: tensors by name, and the metadata that was saved with them."""

    path: Path
    model_state: dict[str, Tensor]
    optimiser_state: dict[str, Tensor]
    metadata: dict

    def restore_model(self, model: nn.Module) -> None:
        """Copy parameters and buffers into `model`. Errors: InputError naming a tensor that does not fit."""
        expected = model.state_dict()
        for name in sorted(expected.keys() | self.model_state.keys()):
            theirs, ours = _shape(self.model_state.get(name)), _shape(expected.get(name))
            if theirs != ours:
                raise InputError(
                    f"{self.path} does not fit the model: {name} is {theirs} there, {ours} in the model; "
                    "build the model as it was trained"
                )
        model.load_state_dict(self.model_state)

    def restore_optimiser(self, optimiser: torch.optim.Optimizer, model: nn.Module) -> None:
        """Give `optimiser`, made for the parameters of `model`, the state that it had.

        A tensor of a parameter's shape gets its layout too: with another one the same update takes other loops, which
        round differently, and a resumed run would leave the path of an uninterrupted one.
        """
        state: dict[int, dict[str, Tensor]] = {}
        indices = {name: index for index, name in enumerate(_names_of(optimiser, model))}
        parameters = dict(model.named_parameters())
        for key, value in self.optimiser_state.items():
            name, _, quantity = key.rpartition("/")
            if value.shape == parameters[name].shape:
                value = torch.empty_like(parameters[name], dtype=value.dtype, device="cpu").copy_(value)
            state.setdefault(indices[name], {})[quantity] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def save_checkpoint(
    path: Path | str, model: nn.Module, optimiser: torch.optim.Optimizer | None, metadata: dict
) -> None:
    """Write atomically. `metadata`: plain types, NaN excluded. `optimiser` None: weights only."""
    tensors = {f"{MODEL}/{name}": value for name, value in model.state_dict().items()}
    if optimiser is not None:
        names = _names_of(optimiser, model)
        for index, quantities in optimiser.state_dict()["state"].items():
            for quantity, value in quantities.items():
                if value is not None:
                    tensors[f"{OPTIMISER}/{names[index]}/{quantity}"] = value
    write_tensors(path, tensors, metadata)


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint to the CPU. Errors: InputError for a file that is missing, damaged or no checkpoint."""
    path = user_path(path)
    tensors, metadata = read_tensors(path)
    if metadata is None:
        raise InputError(f"{path} holds no snnlib metadata; expected a checkpoint written by snnlib.training")
    return Checkpoint(path, _under(MODEL, tensors), _under(OPTIMISER, tensors), metadata)


def load_weights(path: Path | str, model: nn.Module) -> dict:
    """Restore `model` from a checkpoint and return the checkpoint's metadata (recipe, model, data, history).

    Errors: InputError for a missing or damaged file and for a model of another shape.
    """
    checkpoint = read_checkpoint(path)
    checkpoint.restore_model(model)
    return checkpoint.metadata


def _names_of(optimiser: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """In the order in which the optimiser numbers them: group by group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def _shape(value: Tensor | None) -> str:
    return "absent" if value is None else str(list(value.shape))
