"""ANN to SNN in one call, and the single steps behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import pandas as pd
from torch import Tensor, nn

from snnlib.conversion.batches import shuffled_batches
from snnlib.conversion.calibrate import (
    LayerThreshold,
    calibrate,
    set_threshold,
    spiking_layer_names,
    threshold_of,
)
from snnlib.conversion.statistics import batch_norms, batch_statistics, reestimate_statistics
from snnlib.conversion.weights import copy_weights
from snnlib.data.image_set import ImageSet
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.models.layers import first_weight
from snnlib.neurons import LIF

SCALE = 0.3
STATISTICS = ("reset", "reestimate")


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did. scale: factor on the calibrated thresholds; statistics: "reset" or "reestimate".

    firing_rates: per layer, with the scaled thresholds and the SNN's own time steps, BatchNorm by the batch's
    statistics, on one batch of calibration images.
    """

    thresholds: tuple[LayerThreshold, ...]
    scale: float
    firing_rates: tuple[float, ...]
    statistics: str

    def table(self) -> pd.DataFrame:
        """One row per spiking layer in forward order: layer, calibrated and scaled threshold, firing rate with each."""
        return pd.DataFrame(
            {
                "layer": [entry.layer for entry in self.thresholds],
                "calibrated_threshold": [entry.threshold for entry in self.thresholds],
                "scaled_threshold": [self.scale * entry.threshold for entry in self.thresholds],
                "calibrated_firing_rate": [entry.firing_rate for entry in self.thresholds],
                "scaled_firing_rate": list(self.firing_rates),
            }
        )


def convert(
    ann: Model,
    image_set: ImageSet,
    *,
    time_steps: int = 8,
    scale: float = SCALE,
    statistics: str = "reset",
    batch_size: int = 64,
    seed: int = 0,
    augmentation: str = "crop-flip",
    calibration: dict | None = None,
    snn_options: dict | None = None,
) -> tuple[Model, ConversionReport]:
    """Convert an ANN to an SNN that is ready for robust fine-tuning: everything in it trainable, thresholds set.

    Copies the weights, calibrates the thresholds layer by layer on `image_set` (training images), multiplies them by
    `scale`, and sees to BatchNorm's statistics: "reset" leaves mean 0 and variance 1, with which the paper starts its
    fine-tuning (in eval mode the SNN is not usable yet); "reestimate" takes them from the images by forward passes.
    `calibration` holds further options of `calibrate`, `snn_options` those of `copy_weights`.

    **Source:** Özdenizci & Legenstein 2024, section on conversion and their code (main_train.py).
    Errors: InputError as in the single steps, and for a layer that is dead with its scaled threshold.
    """
    if statistics not in STATISTICS:
        raise InputError(f"statistics is {statistics!r}; expected one of {', '.join(STATISTICS)}; choose one of these")
    _check_scale(scale)
    images = {"batch_size": batch_size, "seed": seed, "augmentation": augmentation}
    snn = copy_weights(ann, time_steps=time_steps, **(snn_options or {}))
    calibrated = calibrate(snn, image_set, **images, **(calibration or {}))
    scale_thresholds(snn, scale)
    (batch,) = shuffled_batches(image_set, "calibration", batches=1, like=first_weight(snn), **images)
    rates = _firing_rates(snn, batch)
    for name, rate in rates.items():
        if rate == 0:
            raise InputError(f"{name} is dead after scaling by {scale:g}: no spike in a batch; lower scale")
    if statistics == "reestimate":
        reestimate_statistics(snn, image_set, **images)
    report = ConversionReport(tuple(calibrated), scale, tuple(rates[entry.layer] for entry in calibrated), statistics)
    return snn, report


def scale_thresholds(snn: Model, factor: float = SCALE) -> None:
    """Multiply every threshold by `factor`, in place: fewer time steps than in calibration need earlier spikes.

    A floor acts when the layer runs, not here. Errors: InputError for a factor that is not above 0, or no SNN.
    **Source:** Özdenizci & Legenstein 2024, 0.3; their code (`threshold_update`).
    """
    _check_scale(factor)
    for layer in spiking_layer_names(snn):
        set_threshold(layer, factor * threshold_of(layer))


def set_trainable(snn: Model, weights: bool = True, thresholds: bool = True, batch_norm: bool = True) -> list[str]:
    """Switch `requires_grad` of each parameter by its kind; returns the names of those that are then trainable.

    thresholds: of spiking layers. batch_norm: affine parameters. weights: everything else (convolutions, linear
    layers, biases, mixing scalars). Errors: InputError where thresholds are to train but are plain numbers.

    **Source:** Özdenizci & Legenstein 2024 train all three together.
    """
    layers = spiking_layer_names(snn)
    if thresholds and not all(isinstance(layer.threshold, nn.Parameter) for layer in layers):
        raise InputError("thresholds=True, but they are plain numbers; build the SNN with trainable_threshold=True")
    kinds = {id(layer.threshold): thresholds for layer in layers}
    kinds |= {id(value): batch_norm for norm in batch_norms(snn) for value in norm.parameters()}
    for parameter in snn.parameters():
        parameter.requires_grad_(kinds.get(id(parameter), weights))
    return [name for name, parameter in snn.named_parameters() if parameter.requires_grad]


def _firing_rates(snn: Model, images: Tensor) -> dict[str, float]:
    """Spikes per neuron and time step, per spiking layer, with BatchNorm as in calibration."""
    rates: dict[str, float] = {}

    def note(layer: LIF, arguments: tuple, spikes: Tensor) -> None:
        rates[layers[layer]] = int(spikes.count_nonzero()) / spikes.numel()

    layers = spiking_layer_names(snn)
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with batch_statistics(snn):
            snn(images)
    finally:
        for hook in hooks:
            hook.remove()
    return rates


def _check_scale(factor: float) -> None:
    is_number = isinstance(factor, Real) and not isinstance(factor, bool)
    if not (is_number and math.isfinite(factor) and factor > 0):
        raise InputError(f"scale is {factor!r}; expected a finite number above 0; the paper's is {SCALE}")
