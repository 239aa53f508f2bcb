"""One epoch of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from snnlib.data.image_set import ImageSet
from snnlib.errors import InputError
from snnlib.runtime import sent
from snnlib.training.augmentation import build_augmentation
from snnlib.training.curriculum import Stage, running_for, stage_at, time_steps_of
from snnlib.training.deflation import deflate_gradients
from snnlib.training.health import Step, layers_with_thresholds
from snnlib.training.inner_attack import build_attack
from snnlib.training.objectives import build_objective
from snnlib.training.objectives.terms import Parts
from snnlib.training.randomness import generator_at, seed_at
from snnlib.training.recipe import Recipe
from snnlib.training.retraction import project_mixing, retract_weights
from snnlib.training.schedules import factor_at

MOMENTUM = 0.9


@dataclass
class EpochTotals:
    """Sums over an epoch, kept on the device so that a step does not wait for them."""

    images: int = 0
    loss: Tensor | float = 0.0
    parts: dict[str, Tensor] = field(default_factory=dict)

    def add(self, loss: Tensor, parts: dict[str, Tensor], images: int) -> None:
        self.images += images
        self.loss = self.loss + loss.double() * images
        for name, value in parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + value.detach().double() * images

    def means(self) -> tuple[float, dict[str, float]]:
        """Means per image: the loss, and the parts by name."""
        parts = {name: float(total) / self.images for name, total in self.parts.items()}
        return float(self.loss) / self.images, parts


def build_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam with coupled L2 decay, or SGD with momentum 0.9, over the trainable parameters; fused kernels.

    The decay acts on all of them, BatchNorm, mixing weights and thresholds included, as in Özdenizci & Legenstein's
    code. Errors: InputError for a model without trainable parameters.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not named:
        raise InputError("the model has no trainable parameter; expected one; call requires_grad_(True) on some")
    groups = [{"params": list(named.values()), "peak": recipe.learning_rate}]
    if recipe.threshold_learning_rate is not None:
        thresholds = [parameter for name, parameter in named.items() if _is_threshold(name)]
        others = [parameter for name, parameter in named.items() if not _is_threshold(name)]
        rated = (others, recipe.learning_rate), (thresholds, recipe.threshold_learning_rate)
        groups = [{"params": held, "peak": rate} for held, rate in rated if held]
    options = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimiser == "adam":
        return torch.optim.Adam(groups, **options)
    return torch.optim.SGD(groups, momentum=MOMENTUM, **options)


def _is_threshold(name: str) -> bool:
    return name.rpartition(".")[2] == "threshold"


def batches_per_epoch(recipe: Recipe, image_set: ImageSet) -> int:
    return math.ceil(len(image_set) / recipe.batch_size)


def batch_indices(recipe: Recipe, image_set: ImageSet, epoch: int) -> tuple[Tensor, ...]:
    """A permutation by (seed, epoch), cut into batches that differ by one image at most."""
    order = torch.randperm(len(image_set), generator=generator_at("order", recipe.seed, epoch))
    return order.tensor_split(batches_per_epoch(recipe, image_set))


def train_epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    image_set: ImageSet,
    recipe: Recipe,
    epoch: int,
    device: torch.device,
    on_step: Callable[[], object],
) -> dict:
    """Train one epoch (counted from 1) in place and return its record: loss, parts, accuracy, learning rate.

    Errors: TrainingDiverged.
    """
    model.train()
    layers, totals, taken = layers_with_thresholds(model), EpochTotals(), None
    per_epoch = batches_per_epoch(recipe, image_set)
    for step, images, labels in augmented_batches(image_set, recipe, epoch, device):
        learning_rate = _set_learning_rate(optimiser, recipe, image_set, epoch, step)
        share = ((epoch - 1) * per_epoch + step - 1) / max(1, recipe.epochs * per_epoch - 1)
        loss, parts = train_step(model, optimiser, images, labels, recipe, epoch, step, share)
        totals.add(loss, parts, len(labels))
        # One step late: reading a loss waits for its step, and by now the device has the next one to work on.
        if taken is not None:
            taken.check(layers)
        taken = Step.of(epoch, step, learning_rate, loss, layers)
        on_step()
    taken.check(layers)
    weight_sum = torch.stack([weight.detach().sum() for weight in model.parameters()]).sum()
    taken.check_finite("the sum of the weights", weight_sum.item())
    mean_loss, mean_parts = totals.means()
    return {
        "epoch": epoch,
        "loss": mean_loss,
        "train_accuracy": mean_parts.pop("accuracy"),
        "parts": mean_parts,
        "learning_rate": learning_rate,
    }


def train_step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    epoch: int,
    step: int,
    share: float = 1.0,
) -> tuple[Tensor, Parts]:
    """Change the weights by one batch; returns the detached loss and its parts. share: of the training that is done."""
    stage = Stage(recipe.attack, recipe.objective_parameters, None)
    if recipe.curriculum is not None:
        time_steps = time_steps_of(model) if "time_steps" in recipe.curriculum.get("first", {}) else None
        stage = stage_at(recipe.curriculum, recipe.attack, recipe.objective_parameters, time_steps, share)
    objective = build_objective(recipe.objective, stage.objective_parameters)
    attack = None
    if stage.attack is not None:
        attack = build_attack(stage.attack, seed_at("attack", recipe.seed, epoch, step))
    autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")
    with autocast, running_for(model, stage.time_steps):
        loss, parts = objective(model, images, labels, attack)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if recipe.deflate_gradients:
        deflate_gradients(model)
    optimiser.step()
    if recipe.weight_retraction > 0:
        retract_weights(model, recipe.weight_retraction, generator_at("retraction", recipe.seed, epoch, step))
    if recipe.project_mixing:
        project_mixing(model)
    return loss.detach(), parts


def augmented_batches(
    image_set: ImageSet, recipe: Recipe, epoch: int, device: torch.device
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The batches of an epoch: step from 1, images `[n, C, H, W]`, labels `[n]`, both on `device`."""
    augment = build_augmentation(recipe.augmentation, image_set)
    for step, index in enumerate(batch_indices(recipe, image_set, epoch), start=1):
        generator = generator_at("augmentation", recipe.seed, epoch, step)
        yield step, augment(image_set.batch(index, device), generator), sent(image_set.labels[index], device)


def _set_learning_rate(
    optimiser: torch.optim.Optimizer, recipe: Recipe, image_set: ImageSet, epoch: int, step: int
) -> float:
    """Set and return the rate of a step; epoch and step count from 1."""
    factor = factor_at(recipe.schedule, epoch, step, recipe.epochs, batches_per_epoch(recipe, image_set))
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor
    return recipe.learning_rate * factor
