"""Claims Q3 and Q4: further objectives through the conversion, and what comes after it (notebook 33).

Everything here trains on the same part of the images. Q3 begins with the chapter's natural ANN, Q4 with its network
converted from TRADES and fine-tuned.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import pandas as pd
import torch

from snnlib.attacks.ensemble import MEMBERS
from snnlib.companion.measure import networks as common
from snnlib.companion.measure.attacked import attacked, worst_case_attack
from snnlib.companion.measure.networks import (
    Network,
    TrainedNetwork,
    attacked_images,
    build_recipe,
    fitted,
)
from snnlib.companion.measure.store import stored
from snnlib.companion.ozdenizci2024 import networks as chapter
from snnlib.companion.ozdenizci2024.networks import TRAINING_EPS, FineTuning
from snnlib.companion.sizes import ConversionSize, FurtherSize, with_images_of
from snnlib.conversion import set_trainable
from snnlib.training import Recipe, register_objective, with_helper
from snnlib.training.epoch import build_optimiser, train_step

PGD = {"name": "pgd", "eps": TRAINING_EPS, "loss": "ce", "start": "uniform"}
KL_PGD = {"name": "pgd", "eps": TRAINING_EPS, "loss": "kl", "start": "gaussian"}
OBJECTIVES = {
    "clean + PGD": {"objective": "clean_and_adversarial", "attack": PGD},
    "SCORE": {"objective": "score", "attack": KL_PGD},
    "AWP": {
        "objective": "weight_perturbed",
        "objective_parameters": {"inner": {"objective": "trades"}, "gamma": 0.005},
        "attack": KL_PGD,
    },
    "HAT": {"attack": KL_PGD},
}
"""Objectives beside the chapter's, as recipes have them; HAT's name is that of its helper, see `hat`."""
NATURAL = "natural"
WAYS = ("fine-tuning", "hybrid", "curriculum", "drawn surrogate")
"""What a converted network is given after its fine-tuning: more of it, or one of three kinds of direct training."""
TRANSFERRED, AFTER = "SNN, transferred from ", "SNN, then "
BPTT_MEMBERS = tuple(list(MEMBERS)[:17])
"""The ensemble's surrogates, without its two rules: those stay unseen in training."""


def part_of(size: ConversionSize, further: FurtherSize) -> ConversionSize:
    """The chapter's size with the images that this notebook trains on, attacks and tests on."""
    fine_tuning = {**size.finetune, "epochs": further.epochs, "batch_size": further.batch_size}
    return replace(size, profile=with_images_of(size.profile, further), finetune=fine_tuning)


def hat(helper: TrainedNetwork) -> str:
    """Register HAT with this helper; returns the name, which tells helpers apart."""
    name = f"hat-{helper.key}"
    register_objective(name, with_helper(helper.model))
    return name


def pretrained(
    name: str, size: ConversionSize, further: FurtherSize, seed: int, data_dir: str | None = None
) -> TrainedNetwork:
    """The chapter's natural ANN, trained further by one of `OBJECTIVES`; "natural" is that ANN itself."""
    natural, part = chapter.ann("natural", size, seed, data_dir), part_of(size, further)
    splits = common.load_profile_images(part.profile, data_dir)
    if name == NATURAL:
        return replace(natural, splits=splits)
    own = {"objective": hat(natural)} if name == "HAT" else {}
    options = {**OBJECTIVES[name], **own, "augmentation": size.augmentation, "optimiser": size.optimiser}
    options["attack"] = {**options["attack"], "steps": size.inner_steps}
    options["epochs"] = further.pretraining_epochs
    network = Network(f"ANN, {name}", size.network, natural.network.model, options)
    model = copy.deepcopy(natural.model)
    recipe = build_recipe(network, part.profile, seed)
    return fitted(network, model, recipe, splits, part.profile, seed, {"from": natural.key})


def transferred(
    name: str, size: ConversionSize, further: FurtherSize, seed: int, data_dir: str | None = None
) -> TrainedNetwork:
    """`pretrained`, converted and fine-tuned as the chapter does it."""
    item, part = pretrained(name, size, further, seed, data_dir), part_of(size, further)
    # Thresholds are stored under the ANN: those of the natural one are calibrated on all of the chapter's images.
    snn = chapter.converted(chapter.ann("natural", size, seed, data_dir) if name == NATURAL else item, part)
    set_trainable(snn, thresholds=True)
    network = Network(f"{TRANSFERRED}{name}", size.network, snn.config, chapter.finetune_recipe(part))
    origin = chapter.conversion_origin(item.key, part.calibration, FineTuning())
    return fitted(network, snn, build_recipe(network, part.profile, seed), item.splits, part.profile, seed, origin)


def way_recipe(way: str, size: ConversionSize, further: FurtherSize) -> dict:
    """Options of `Recipe` for one of `WAYS`.

    "fine-tuning": the chapter's, once more. "hybrid": adversarial training by BPTT (Madry et al. 2018). "curriculum":
    the same, with eps, steps and T rising over the first half. "drawn surrogate": the same, with the gradient of one of
    the ensemble's 17 surrogates, drawn for every step.
    """
    part = part_of(size, further)
    recipe = chapter.finetune_recipe(part)
    if way == "fine-tuning":
        return recipe
    attack = {**PGD, "steps": further.inner_steps}
    recipe |= {"objective": "adversarial", "objective_parameters": {}, "attack": attack}
    if way == "drawn surrogate":
        recipe["attack"] = {**attack, "gradient": list(BPTT_MEMBERS)}
    if way == "curriculum":
        first = {"eps": TRAINING_EPS / 4, "steps": 1, "time_steps": max(1, size.profile.time_steps // 2)}
        recipe["curriculum"] = {"first": first, "over": 0.5}
    return recipe


def trained_on(
    way: str, size: ConversionSize, further: FurtherSize, seed: int, data_dir: str | None = None
) -> TrainedNetwork:
    """The chapter's network converted from TRADES, trained on in one of `WAYS`."""
    base, part = chapter.finetuned("trades", size, seed, data_dir), part_of(size, further)
    splits = common.load_profile_images(part.profile, data_dir)
    network = Network(f"{AFTER}{way}", size.network, base.network.model, way_recipe(way, size, further))
    recipe = build_recipe(network, part.profile, seed)
    model = copy.deepcopy(base.model)
    return fitted(network, model, recipe, splits, part.profile, seed, {"from": base.key})


def worst_rows(item: TrainedNetwork, size: ConversionSize, further: FurtherSize, level: int) -> pd.DataFrame:
    """Rows of `attacks.worst_case` at `level`/255; a sample stands where no row broke it.

    Its first turns differentiate by adaptive sharpness, which no training here has seen.
    """
    profile = part_of(size, further).profile
    attack = worst_case_attack(level / 255, further.passes)
    return attacked(item, [attack], attacked_images(profile, item.splits), profile.attack_batch_size)


def passes_of_ways(base: TrainedNetwork, size: ConversionSize, further: FurtherSize) -> pd.DataFrame:
    """Passes of one image through one time step in a training step of each way: column passes, see `count_passes`."""
    rows = []
    for way in WAYS:
        network = Network(way, size.network, {}, way_recipe(way, size, further))
        recipe = build_recipe(network, part_of(size, further).profile, base.seed)
        rows.append({"way": way, "passes": count_passes(base, recipe)})
    return pd.DataFrame(rows)


@stored("passes")
def _counted(base: TrainedNetwork, recipe: Recipe, share: float) -> pd.DataFrame:
    model, counts = copy.deepcopy(base.model).train(), {"forward": 0, "backward": 0}
    read_out = model.body.fc

    def forward(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        counts["forward"] += len(inputs[0])

    def backward(module: torch.nn.Module, inputs: tuple, outputs: tuple) -> None:
        counts["backward"] += len(outputs[0])

    read_out.register_forward_hook(forward)
    read_out.register_full_backward_hook(backward)
    few = base.splits.train.take(slice(0, 4))
    images, labels = few.batch(slice(None), base.device), few.labels.to(base.device)
    train_step(model, build_optimiser(model, recipe), images, labels, recipe, 1, 1, share)
    return pd.DataFrame([{name: count / len(few) for name, count in counts.items()}])


def count_passes(base: TrainedNetwork, recipe: Recipe) -> float:
    """Forwards and backwards of an image through a time step, per training step: mean of beginning, middle and end."""
    shares = (0.0, 0.25, 0.5, 0.75, 1.0) if recipe.curriculum else (1.0,)
    return float(pd.concat([_counted(base, recipe, share) for share in shares]).sum(axis=1).mean())
