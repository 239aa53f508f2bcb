"""One epoch of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from snnlib.data.image_set import ImageSet
from snnlib.training.augmentation import AUGMENTATIONS
from snnlib.training.objectives import build_attack, build_objective
from snnlib.training.randomness import generator_at, seed_at
from snnlib.training.recipe import Recipe
from snnlib.training.schedules import SCHEDULES

MOMENTUM = 0.9


class TrainingDiverged(RuntimeError):
    """The loss or a weight stopped being finite: one line with epoch, step, learning rate and what to do."""


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
    """Adam with coupled L2 decay, or SGD with momentum 0.9, over the trainable parameters; fused kernels."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimiser == "adam":
        return torch.optim.Adam(parameters, **options)
    return torch.optim.SGD(parameters, momentum=MOMENTUM, **options)


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
    objective = build_objective(recipe.objective, recipe.objective_parameters)
    totals, unchecked = EpochTotals(), None
    for step, images, labels in _augmented_batches(image_set, recipe, epoch, device):
        attack = None
        if recipe.attack is not None:
            attack = build_attack(recipe.attack, seed_at("attack", recipe.seed, epoch, step))
        learning_rate = _set_learning_rate(optimiser, recipe, image_set, epoch, step)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            loss, parts = objective(model, images, labels, attack)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        totals.add(loss.detach(), parts, len(labels))
        # One step late: reading a loss waits for the device, which by now has this step to work on.
        _check_finite(unchecked)
        unchecked = ("the loss", loss.detach(), epoch, step, learning_rate)
        on_step()
    _check_finite(unchecked)
    weight_sum = torch.stack([weight.detach().sum() for weight in model.parameters()]).sum()
    _check_finite(("the sum of the weights", weight_sum, epoch, step, learning_rate))
    mean_loss, mean_parts = totals.means()
    return {
        "epoch": epoch,
        "loss": mean_loss,
        "train_accuracy": mean_parts.pop("accuracy"),
        "parts": mean_parts,
        "learning_rate": learning_rate,
    }


def _augmented_batches(
    image_set: ImageSet, recipe: Recipe, epoch: int, device: torch.device
) -> Iterator[tuple[int, Tensor, Tensor]]:
    augment = AUGMENTATIONS[recipe.augmentation]
    for step, index in enumerate(batch_indices(recipe, image_set, epoch), start=1):
        generator = generator_at("augmentation", recipe.seed, epoch, step)
        yield step, augment(image_set.batch(index, device), generator), image_set.labels[index].to(device)


def _set_learning_rate(
    optimiser: torch.optim.Optimizer, recipe: Recipe, image_set: ImageSet, epoch: int, step: int
) -> float:
    """Set and return the rate of a step; epoch and step count from 1."""
    per_epoch = batches_per_epoch(recipe, image_set)
    done = (epoch - 1) * per_epoch + step - 1
    learning_rate = recipe.learning_rate * SCHEDULES[recipe.schedule](done, recipe.epochs * per_epoch)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate
    return learning_rate


def _check_finite(watched: tuple[str, Tensor, int, int, float] | None) -> None:
    if watched is None or math.isfinite(value := watched[1].item()):
        return
    what, _, epoch, step, learning_rate = watched
    raise TrainingDiverged(
        f"{what} became {value} in epoch {epoch}, step {step}, at learning rate {learning_rate:.3g}; "
        "lower learning_rate or check the images; finished epochs are kept, see last.safetensors"
    )
