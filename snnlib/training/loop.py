"""`fit`: train by a recipe, keep what is needed to go on after a kill, choose the best epoch on validation.

Per epoch, in this order and each write atomic: best.safetensors (if this epoch is the best),
last.safetensors, log.jsonl. last.safetensors decides what has happened; whatever a kill leaves ahead of it or
behind it is written again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from snnlib import checks
from snnlib.data.image_set import ImageSet, ImageSplits
from snnlib.errors import InputError
from snnlib.files import file_lock, remove_stale_parts, user_path
from snnlib.progress import progress
from snnlib.tensor_files import state_digest
from snnlib.training.accuracy import evaluate_accuracy, evaluating
from snnlib.training.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from snnlib.training.epoch import batches_per_epoch, build_optimiser, train_epoch
from snnlib.training.health import TrainingDiverged, silent_layers
from snnlib.training.log import EpochLog, announce
from snnlib.training.randomness import global_randomness_at
from snnlib.training.recipe import Recipe
from snnlib.training.replay import passes_of

__all__ = ["History", "TrainingDiverged", "fit"]

LAST, BEST, LOG = "last.safetensors", "best.safetensors", "log.jsonl"


@dataclass(frozen=True)
class History:
    """What a run has done so far.

    epochs: one dict per epoch (epoch from 1, loss, train_accuracy, parts, learning_rate,
    validation_accuracy, silent_layers: names of the spiking layers without a spike on the validation images).
    finished: all epochs of the recipe are there. last, best: the checkpoints.
    """

    epochs: tuple[dict, ...]
    finished: bool
    last: Path
    best: Path

    @property
    def best_epoch(self) -> int:
        """The epoch of the highest validation accuracy, the earliest of equal ones."""
        return best_of(self.epochs)["epoch"]


RECIPE_DEFAULTS = {entry.name: entry.default for entry in fields(Recipe) if entry.default is not MISSING}


def best_of(history: Sequence[dict]) -> dict:
    """The record of the highest validation accuracy, the earliest of equal ones."""
    return max(history, key=lambda record: record["validation_accuracy"])


def fit(
    model: nn.Module,
    splits: ImageSplits,
    recipe: Recipe,
    *,
    directory: Path | str,
    device: torch.device | str = "cpu",
    resume: bool = True,
    time_limit: float | None = None,
) -> History:
    """Train `model` in place (images [N, C, H, W] to logits [N, classes]) and return the history.

    Training starts from the weights that the model comes with, fresh or trained (fine-tuning), and changes those
    that require grad. Both are part of what the run is: a folder is only taken up by a model with the weights that
    the run began with, or with those of its last or best epoch, and with the same trainable parameters.
    The model ends on `device`, in eval mode, with the weights of the last epoch; `load_weights(history.best,
    model)` gives the best. A run that was killed or timed out goes on where its last checkpoint stands and
    ends with the same bytes in last.safetensors and best.safetensors as an uninterrupted one on the same
    machine (on CUDA after `snnlib.runtime.make_deterministic`). A finished run is only loaded; its checkpoints hold
    weights alone. resume False starts over.
    time_limit: seconds; no epoch starts that would end later, judged by the one before, but one is always
    done.
    A spiking layer without a spike on the validation images is announced after the epoch, by one line.
    Errors: InputError if the folder holds another run, if the model does not fit the data or the checkpoint;
    TrainingDiverged if the loss stops being finite, or a threshold stops being a finite number above 0.
    """
    directory, device = user_path(directory), torch.device(device)
    checks.flag("resume", resume)
    if time_limit is not None:
        checks.number("time_limit", time_limit, at_least=0)
    if recipe.precision == "bfloat16" and device.type != "cuda":
        raise InputError(f"precision is 'bfloat16' on {device.type}; expected CUDA; use precision='float32'")
    model.to(device)
    if not resume or not (directory / LAST).exists():  # else it was checked when the run began
        _check_logits(model, splits, device)
    run = _Run(model, splits, recipe, directory, device)
    with file_lock(directory / "fit.lock", wait_seconds=5):
        remove_stale_parts(directory)
        if not resume:
            _forget(directory)
        run.restore()
        if not run.finished:
            run.train(time_limit)
    model.eval()
    return History(tuple(run.history), run.finished, directory / LAST, directory / BEST)


class _Run:
    """A run in its folder: the live model and optimiser, and the history that last.safetensors confirms."""

    def __init__(
        self, model: nn.Module, splits: ImageSplits, recipe: Recipe, directory: Path, device: torch.device
    ) -> None:
        self.model, self.splits, self.recipe = model, splits, recipe
        self.directory, self.device = directory, device
        self.optimiser = build_optimiser(model, recipe)
        self.passes = passes_of(model, recipe, device)
        self.identity = {
            "recipe": recipe.as_config(),
            "model": _model_config(model),
            "trainable": {name: weight.requires_grad for name, weight in model.named_parameters()},
            "initial": {"weights": state_digest(model.state_dict())},
            "data": _data_summary(splits),
        }
        self.history: list[dict] = []

    @property
    def finished(self) -> bool:
        return len(self.history) == self.recipe.epochs

    def restore(self) -> None:
        """Take over the last checkpoint, if there is one, and bring the log in line with it."""
        if (self.directory / LAST).exists():
            if not (self.directory / BEST).exists():
                raise InputError(
                    f"{self.directory} has {LAST} but no {BEST}; expected both; delete the folder and start again"
                )
            checkpoint = read_checkpoint(self.directory / LAST)
            _check_same_run(self.directory, checkpoint.metadata, self.identity)
            self._check_initial_weights(checkpoint)
            checkpoint.restore_model(self.model)
            self.history = checkpoint.metadata["history"]
            if not self.finished:
                checkpoint.restore_optimiser(self.optimiser, self.model)
        self.log = EpochLog(self.directory / LOG)
        self.log.write(self.history)

    def _check_initial_weights(self, last: Checkpoint) -> None:
        """Errors: InputError unless the model has the weights of the run's beginning, or of its last or best epoch."""
        begun, here = last.metadata["initial"]["weights"], self.identity["initial"]["weights"]
        if here == begun:
            return
        best = read_checkpoint(self.directory / BEST)
        if here not in (state_digest(last.model_state), state_digest(best.model_state)):
            raise InputError(
                f"{self.directory} holds a run that began with other weights ({begun} there, {here} here); give the "
                "model as it was then, or delete the folder to train anew"
            )
        self.identity["initial"] = last.metadata["initial"]

    def train(self, time_limit: float | None) -> None:
        """Train the epochs that the history lacks."""
        start, steps = time.perf_counter(), batches_per_epoch(self.recipe, self.splits.train)
        first, last = len(self.history) + 1, self.recipe.epochs
        with progress(total=(last - first + 1) * steps, label=f"training, epochs {first}-{last}") as bar:
            for epoch in range(first, last + 1):
                seconds = self._train_epoch(epoch, bar)
                if time_limit is not None and time.perf_counter() - start + seconds > time_limit:
                    break

    def _train_epoch(self, epoch: int, bar: tqdm) -> float:
        """Train, score, save and log one epoch; returns the seconds that it took."""
        start = time.perf_counter()
        with global_randomness_at(self.device, "model", self.recipe.seed, epoch):
            with self.passes.active():
                record = train_epoch(
                    self.model, self.optimiser, self.splits.train, self.recipe, epoch, self.device, bar.update
                )
            training_seconds = time.perf_counter() - start
            with silent_layers(self.model) as silent:
                accuracy = evaluate_accuracy(self.model, self.splits.validation, device=self.device)
        self.history.append({**record, "validation_accuracy": accuracy, "silent_layers": list(silent)})
        self._save()
        seconds = time.perf_counter() - start
        self.log.set_times(epoch, seconds, len(self.splits.train) / training_seconds)
        self.log.write(self.history)
        numbers = {"loss": f"{record['loss']:.3f}", "validation": f"{accuracy:.1%}"}
        if silent:
            first, more = list(silent)[:3], len(silent) - 3
            announce(
                f"warning: epoch {epoch}: no spike on {len(self.splits.validation)} validation images in "
                f"{', '.join(first)}{f' and {more} more' if more > 0 else ''}; lower the threshold or the learning rate"
            )
            numbers["silent layers"] = str(len(silent))
        bar.set_postfix(numbers)
        return seconds

    def _save(self) -> None:
        metadata = {**self.identity, "history": self.history}
        if best_of(self.history) is self.history[-1]:
            save_checkpoint(self.directory / BEST, self.model, None, metadata)
        save_checkpoint(self.directory / LAST, self.model, None if self.finished else self.optimiser, metadata)


def _forget(directory: Path) -> None:
    for name in (LAST, BEST, LOG):
        (directory / name).unlink(missing_ok=True)


def _check_same_run(directory: Path, theirs: dict, ours: dict) -> None:
    # A run from before a field of the recipe was there has trained by its default.
    theirs = {**theirs, "recipe": {**RECIPE_DEFAULTS, **theirs.get("recipe", {})}}
    for section, values in json.loads(json.dumps(ours)).items():
        if section == "initial":  # a model may also come with weights that the run has reached since
            continue
        for key in sorted(values.keys() | theirs.get(section, {}).keys()):
            there, here = theirs.get(section, {}).get(key), values.get(key)
            if there != here:
                raise InputError(
                    f"{directory} holds another run: {section} {key} is {there!r} there, {here!r} here; "
                    "choose another folder, or delete this one to train anew"
                )


def _check_logits(model: nn.Module, splits: ImageSplits, device: torch.device) -> None:
    """Errors: InputError for an empty split and unless the model gives one logit per class."""
    for name in ("train", "validation"):
        if len(getattr(splits, name)) == 0:
            raise InputError(
                f"the {name} split of {splits.name} is empty; expected images; use a larger data set"
            )
    wanted = [1, splits.num_classes]
    with evaluating(model):
        found = list(model(splits.validation.batch([0], device)).shape)
    if found != wanted:
        raise InputError(
            f"the model gives {found} for one image; expected {wanted}; build it with num_classes={wanted[1]}"
        )


def _model_config(model: nn.Module) -> dict:
    """The arguments that built the model; they tell max from average pool, which the weights do not."""
    return dict(getattr(model, "config", {}))


def _data_summary(splits: ImageSplits) -> dict:
    return {"name": splits.name, "train": _digest(splits.train), "validation": _digest(splits.validation)}


def _digest(images: ImageSet) -> str:
    """16 hex digits over pixels and labels."""
    digest = hashlib.sha256(images.images.contiguous().numpy())
    digest.update(images.labels.contiguous().numpy())
    return digest.hexdigest()[:16]
