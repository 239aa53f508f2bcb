"""How often the host waits for the device: for every step of an attack or a training, once.

Counted are numbers read from the device (`item`, `tolist`, `nonzero`, a mask as an index) and copies without
`non_blocking`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from snnlib.attacks import ATTACKS, Budget, adaptive_ensemble
from snnlib.data import ImageSet
from snnlib.models import Model, build_model
from snnlib.training import Recipe
from snnlib.training.augmentation import AUGMENTATIONS, event_affine
from snnlib.training.epoch import build_optimiser, train_epoch

EPS = 1e-4
"""Nobody is fooled, so that everybody makes every step."""
STEPS = {
    **dict.fromkeys(("pgd", "mi_fgsm", "apgd", "sa_pgd", "spsa"), "steps"),
    **{"square": "queries", "rays": "queries", "random_noise": "draws"},
}
OTHERS = {"resized-crop-flip", "event-affine"}
"""Augmentations that wait for every image, or are not for images."""


def pictures(count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 3)


def network(**options) -> Model:
    model = build_model("vgg11", 3, 2, "direct", width=2, image_size=8, seed=0, **options)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.constant_(norm.bias, 0.5)
    return model.eval()


def waits(other_device, work) -> int:
    before = other_device.waits.total()
    with other_device:
        work(other_device.name)
    return other_device.waits.total() - before


@pytest.mark.parametrize("attack", [*STEPS, "adaptive_ensemble"])
def test_a_step_of_an_attack_waits_once(other_device, attack):
    run = ATTACKS.get(attack, adaptive_ensemble)

    def by(steps: int):
        def work(device: str) -> None:
            model, images = network().to(device), pictures(3).batch(slice(None), device)
            with torch.no_grad():
                labels = model(images).argmax(1)
            options = {STEPS.get(attack, "steps"): steps, **({"directions": 2} if attack == "spsa" else {})}
            run(model, images, labels, Budget(EPS), **options)

        return work

    few, many = waits(other_device, by(2)), waits(other_device, by(8))
    assert many - few <= 6


def test_moving_recordings_waits_for_nothing(other_device):
    def work(device: str) -> None:
        event_affine(torch.ones(3, 4, 2, 6, 6, device=device), torch.Generator().manual_seed(0))

    assert waits(other_device, work) == 0


@pytest.mark.parametrize("augmentation", [name for name in AUGMENTATIONS if name not in OTHERS])
def test_a_step_of_a_training_waits_once(other_device, augmentation):
    recipe = Recipe(epochs=1, batch_size=4, learning_rate=0.01, augmentation=augmentation)
    assert waits_of_steps(other_device, recipe, trainable_threshold=augmentation != "none") == 1


def test_an_attack_inside_a_step_of_training_waits_for_its_checks_alone(other_device):
    attack = {"name": "pgd", "eps": 0.03, "steps": 2, "loss": "kl", "start": "gaussian"}
    recipe = Recipe(epochs=1, batch_size=4, learning_rate=0.01, objective="trades", attack=attack)
    longer = replace(recipe, attack={**attack, "steps": 3})
    assert waits_of_steps(other_device, recipe) == waits_of_steps(other_device, longer) <= 7


def test_weights_are_retracted_without_waiting(other_device):
    recipe = Recipe(epochs=1, batch_size=4, learning_rate=0.01, weight_retraction=1e-3)
    assert waits_of_steps(other_device, recipe) == 1


def waits_of_steps(other_device, recipe: Recipe, **options) -> float:
    """Per step, beside what an epoch costs once."""

    def over(count: int):
        def work(device: str) -> None:
            model = network(**options).to(device)
            train_epoch(
                model, build_optimiser(model, recipe), pictures(count), recipe, 1, torch.device(device), lambda: None
            )

        return work

    waits(other_device, over(16))  # what a process pays once
    return (waits(other_device, over(16)) - waits(other_device, over(8))) / 2
