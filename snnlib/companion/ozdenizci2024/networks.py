"""Özdenizci & Legenstein 2024: the networks of the chapter, from adversarially trained ANNs to fine-tuned SNNs.

**Source:** method and numbers are those of the authors' code; the body of the paper was not available to us.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from snnlib.companion.measure import networks as common
from snnlib.companion.measure.networks import (
    Network,
    TrainedNetwork,
    build_network,
    build_recipe,
    fitted,
    trained,
)
from snnlib.companion.measure.store import stored
from snnlib.companion.sizes import ConversionSize
from snnlib.conversion import calibrate, copy_weights, reestimate_statistics, scale_thresholds, set_trainable
from snnlib.conversion.calibrate import set_threshold, spiking_layer_names, threshold_of
from snnlib.conversion.statistics import batch_norms
from snnlib.data import ImageSplits
from snnlib.models import Model, build_model
from snnlib.runtime import default_device
from snnlib.training.cost import estimate_training_seconds
from snnlib.training.inner_attack import inner_attack

TRAINING_EPS = 2 / 255
"""Perturbation size of all robust training, ANN and SNN, in the authors' sample scripts."""
OBJECTIVES = {"natural": "natural", "adversarial": "AT", "trades": "TRADES", "mart": "MART"}
"""Pre-training objectives of the ANN, and their short names in tables."""
ROBUST = ("adversarial", "trades", "mart")
FINE_TUNING = {"objective": "consistency", "objective_parameters": {"beta": 2.0}}
SCALE = 0.3
SNN_OPTIONS = {"threshold_floor": 0.03, "trainable_threshold": True}


@dataclass(frozen=True)
class FineTuning:
    """What robust fine-tuning may change and starts from; the defaults are the paper's.

    thresholds: trainable (claim C5). keep_batch_norm: start from the ANN's BatchNorm affine parameters instead of
    scale 1, shift 0 (claim C6).
    """

    thresholds: bool = True
    keep_batch_norm: bool = True

    @property
    def label(self) -> str:
        """What differs from the paper's way, for tables: "", "thresholds frozen", "BatchNorm affine dropped"."""
        frozen = "" if self.thresholds else "thresholds frozen"
        dropped = "" if self.keep_batch_norm else "BatchNorm affine dropped"
        return ", ".join(filter(None, (frozen, dropped)))


STEPS = ("ANN", "copied, thresholds 1", "calibrated", "scaled", "statistics reset", "fine-tuned")
"""Names of the networks between an ANN and its fine-tuned SNN, as rows and tables have them."""
ABLATIONS = {"C5": FineTuning(thresholds=False), "C6": FineTuning(keep_batch_norm=False)}
"""The fine-tunings that claims C5 and C6 are judged against."""


def ann_network(objective: str, size: ConversionSize) -> Network:
    """`size.network` with ReLU and the recipe of one of `OBJECTIVES`."""
    recipe = {"objective": objective, "augmentation": size.augmentation, "optimiser": size.optimiser}
    if objective != "natural":
        recipe["attack"] = {**inner_attack(objective, TRAINING_EPS), "steps": size.inner_steps}
    return Network(f"ANN, {OBJECTIVES[objective]}", size.network, {**_architecture(size), "spiking": False}, recipe)


def ann(objective: str, size: ConversionSize, seed: int, data_dir: str | None = None) -> TrainedNetwork:
    """The pre-trained ANN of one of `OBJECTIVES`."""
    return trained(ann_network(objective, size), size.profile, seed, data_dir)


def thresholds(item: TrainedNetwork, size: ConversionSize, keep_batch_norm: bool = True) -> pd.DataFrame:
    """Calibrated thresholds of the converted ANN, one row per spiking layer, before they are scaled."""
    calibration = {"augmentation": _calibration_images(size), **size.calibration}
    return _calibrated(item, _snn_options(size), keep_batch_norm, calibration)


@stored("thresholds")
def _calibrated(item: TrainedNetwork, snn_options: dict, keep_batch_norm: bool, calibration: dict) -> pd.DataFrame:
    snn = _copied(item, snn_options, keep_batch_norm)
    found = calibrate(snn, item.splits.train, seed=item.seed, **calibration)
    columns = ("layer", "threshold", "firing_rate")
    return pd.DataFrame({name: [getattr(entry, name) for entry in found] for name in columns})


def converted(item: TrainedNetwork, size: ConversionSize, keep_batch_norm: bool = True, scale: float = SCALE) -> Model:
    """The SNN before fine-tuning: weights copied, thresholds calibrated and scaled, statistics as in a new network."""
    snn = _copied(item, _snn_options(size), keep_batch_norm)
    calibrated = thresholds(item, size, keep_batch_norm).threshold
    for layer, threshold in zip(spiking_layer_names(snn), calibrated, strict=True):
        set_threshold(layer, threshold)
    scale_thresholds(snn, scale)
    return snn


def finetune_recipe(size: ConversionSize) -> dict:
    """Options of `Recipe` for robust fine-tuning, the same after every pre-training."""
    return {**FINE_TUNING, **_optimiser_and_attack(size), **size.finetune}


def finetuned(
    objective: str, size: ConversionSize, seed: int, data_dir: str | None = None, how: FineTuning | None = None
) -> TrainedNetwork:
    """The paper's SNN: converted from the ANN of this objective, then robustly fine-tuned by BPTT."""
    how = how or FineTuning()
    item = ann(objective, size, seed, data_dir)
    snn = converted(item, size, how.keep_batch_norm)
    set_trainable(snn, thresholds=how.thresholds)
    network = finetuned_network(objective, size, how, snn.config)
    origin = conversion_origin(item.key, size.calibration, how)
    return fitted(network, snn, build_recipe(network, size.profile, seed), item.splits, size.profile, seed, origin)


def finetuned_network(objective: str, size: ConversionSize, how: FineTuning, model: dict) -> Network:
    """What `finetuned` trains: its label and recipe. model: options of the converted SNN."""
    label = f"SNN, conversion from {OBJECTIVES[objective]}" + (f", {how.label}" if how.label else "")
    return Network(label, size.network, model, finetune_recipe(size))


def conversion_origin(ann_run: str, calibration: dict, how: FineTuning) -> dict:
    """What decides the weights that fine-tuning starts from, beside the SNN's own options."""
    return {"ann": ann_run, "calibration": calibration, "scale": SCALE, "how": how}


def end_to_end_network(comparison: str, size: ConversionSize) -> Network:
    """The same SNN with thresholds fixed at 1, and its robust training from scratch: "equal steps" or "equal time"."""
    epochs = size.end_to_end_epochs[comparison]
    recipe = {**FINE_TUNING, **_optimiser_and_attack(size), **size.end_to_end, "epochs": epochs}
    options = {**_architecture(size), "time_steps": size.profile.time_steps, "bias": True}
    return Network(f"SNN, end to end, {comparison}", size.network, options, recipe)


def end_to_end(comparison: str, size: ConversionSize, seed: int, data_dir: str | None = None) -> TrainedNetwork:
    """The same SNN trained robustly from scratch, for "equal steps" or "equal time"."""
    return trained(end_to_end_network(comparison, size), size.profile, seed, data_dir)


def at_time_steps(item: TrainedNetwork, size: ConversionSize, time_steps: int) -> Model:
    """The fine-tuned SNN run for another number of time steps, its BatchNorm statistics estimated anew for it."""
    snn = copy_of(item.model, time_steps=time_steps).to(item.device)
    _reestimate(snn, item, size)
    return snn.eval()


def copy_of(model: Model, **options) -> Model:
    """A new model by the same definition with some options changed, and the same weights."""
    twin = build_model(**{**model.config, **options})
    twin.load_state_dict(model.state_dict())
    return twin


def steps_of_conversion(item: TrainedNetwork, fine: TrainedNetwork, size: ConversionSize) -> dict[str, Model]:
    """The network after each step, in order: `item` the ANN, `fine` what became of it.

    Up to "scaled" BatchNorm's statistics are estimated anew from training images, so that accuracy means something
    between the steps. "statistics reset" is what the paper fine-tunes from: mean 0 and variance 1.
    """
    models = (
        item.model,
        _copied(item, _snn_options(size), True),
        converted(item, size, scale=1.0),
        converted(item, size),
        converted(item, size),
        fine.model,
    )
    steps = dict(zip(STEPS, models, strict=True))
    for name in ("copied, thresholds 1", "calibrated", "scaled"):
        _reestimate(steps[name], item, size)
    return {name: model.eval() for name, model in steps.items()}


def threshold_table(item: TrainedNetwork, fine: TrainedNetwork, size: ConversionSize) -> pd.DataFrame:
    """One row per spiking layer: threshold calibrated, scaled, and fine-tuned (as it acts, not below the floor)."""
    table = thresholds(item, size).rename(columns={"threshold": "calibrated"})
    layers = spiking_layer_names(fine.model)
    fine_tuned = [max(threshold_of(layer), layer.threshold_floor) for layer in layers]
    return table.assign(
        layer=list(layers.values()),
        number=range(1, len(table) + 1),
        scaled=SCALE * table.calibrated,
        fine_tuned=fine_tuned,
        seed=item.seed,
    )


def estimated_seconds(size: ConversionSize, data_dir: str | None = None) -> pd.DataFrame:
    """Run time of the chapter's trainings on this machine, from a few batches of each: training, networks, seconds.

    networks: how many of them over all seeds; seconds: of one. Calibration and attacks are not counted.
    """
    splits, device, seeds = images_of(size, data_dir), default_device(), len(size.profile.seeds)
    anns = [ann_network(objective, size) for objective in OBJECTIVES]
    snn = copy_weights(build_network(anns[0], size.profile, splits.num_classes, 0), **_snn_options(size))
    fine_tuning = Network("SNN, fine-tuning, ablations too", size.network, snn.config, finetune_recipe(size))
    rivals = [end_to_end_network(comparison, size) for comparison in size.end_to_end_epochs]
    counts = [seeds] * len(anns) + [seeds * (len(anns) + len(ABLATIONS))] + [seeds] * len(rivals)
    rows = []
    for network, count in zip([*anns, fine_tuning, *rivals], counts, strict=True):
        model = snn if network is fine_tuning else build_network(network, size.profile, splits.num_classes, 0)
        seconds = estimate_training_seconds(model, splits, build_recipe(network, size.profile, 0), device)
        rows.append({"training": network.label, "networks": count, "seconds": seconds})
    return pd.DataFrame(rows)


def images_of(size: ConversionSize, data_dir: str | None = None) -> ImageSplits:
    """The chapter's images: the profile's, with the chapter's own number of training images."""
    return common.load_profile_images(size.profile, data_dir)


def _architecture(size: ConversionSize) -> dict:
    return {"width": size.profile.width, "time_steps": 1, "encoder": "direct", "normalisation": "cifar10"}


def _optimiser_and_attack(size: ConversionSize) -> dict:
    attack = inner_attack("consistency", TRAINING_EPS)
    return {"optimiser": size.optimiser, "augmentation": _calibration_images(size), "attack": attack}


def _snn_options(size: ConversionSize) -> dict:
    return {"time_steps": size.profile.time_steps, **SNN_OPTIONS}


def _calibration_images(size: ConversionSize) -> str:
    """Augmentation without Cutout, which the paper leaves out once the ANN is trained."""
    return size.augmentation.removesuffix("-cutout")


def _copied(item: TrainedNetwork, options: dict, keep_batch_norm: bool) -> Model:
    snn = copy_weights(item.model, **options)
    if not keep_batch_norm:
        _drop_affine(snn)
    return snn


@torch.no_grad()
def _drop_affine(snn: Model) -> None:
    for norm in batch_norms(snn):
        norm.weight.fill_(1.0)
        norm.bias.fill_(0.0)


def _reestimate(snn: Model, item: TrainedNetwork, size: ConversionSize) -> None:
    drawn = {name: value for name, value in size.calibration.items() if name in ("batches", "batch_size")}
    reestimate_statistics(snn, item.splits.train, seed=item.seed, augmentation=_calibration_images(size), **drawn)


@torch.no_grad()
def scale_change(item: TrainedNetwork) -> float:
    """How far BatchNorm's scales are from 1, the value that dropping them gives: mean of |scale − 1| over channels."""
    return torch.cat([norm.weight.flatten() for norm in batch_norms(item.model)]).sub(1).abs().mean().item()
