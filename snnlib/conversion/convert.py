"""ANN to SNN in one call, and the single steps behind it."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from numbers import Real

import pandas as pd
from torch import Tensor, nn

from snnlib import checks
from snnlib.conversion.batches import shuffled_batches
from snnlib.conversion.calibrate import (
    LayerThreshold,
    calibrate,
    set_threshold,
    spiking_layer_names,
    threshold_of,
)
from snnlib.conversion.plain import as_model
from snnlib.conversion.rate import rate_thresholds, with_rates
from snnlib.conversion.statistics import batch_norms, batch_statistics, reestimate_statistics, reset_statistics
from snnlib.conversion.weights import copy_weights
from snnlib.data.image_set import ImageSet
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.models.layers import first_weight
from snnlib.neurons import LIF
from snnlib.training.accuracy import evaluating

SCALE = 0.3
STATISTICS = ("reset", "reestimate", "keep")
METHODS = {
    "robust": {"scale": SCALE, "statistics": "reset", "augmentation": "crop-flip"},
    "rate": {"scale": 1.0, "statistics": "keep", "augmentation": "none"},
}
MODES = {"robust": batch_statistics, "rate": evaluating}


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did. scale: factor on the calibrated thresholds; statistics, method: see `convert`.

    firing_rates: per layer, with the scaled thresholds and the SNN's own time steps, on one batch of calibration
    images; BatchNorm by that batch's statistics in "robust", by the running ones in "rate".
    """

    thresholds: tuple[LayerThreshold, ...]
    scale: float
    firing_rates: tuple[float, ...]
    statistics: str
    method: str = "robust"

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
    ann: nn.Module,
    image_set: ImageSet | Tensor,
    *,
    time_steps: int = 8,
    method: str | None = None,
    scale: float | None = None,
    statistics: str | None = None,
    batch_size: int = 64,
    seed: int = 0,
    augmentation: str | None = None,
    calibration: dict | None = None,
    snn_options: dict | None = None,
) -> tuple[Model, ConversionReport]:
    """Convert an ANN to an SNN with direct coding, thresholds calibrated on training images, everything trainable.

    ann: of `build_model(..., spiking=False)`, or a plain PyTorch network that `plain_model` can follow. image_set:
    training images, or a tensor of them `[n, C, H, W]` in [0, 1].
    method: "robust" (None for a network of `build_model`) is the paper's: hard reset, spikes of height 1, thresholds
    from the SNN's currents layer by layer (`calibrate`), times `scale` 0.3, `augmentation` "crop-flip"; it is made for
    robust fine-tuning, and not usable before. "rate" (None for any other) keeps BatchNorm and is usable at once: soft
    reset from half the threshold, spikes as high as the threshold, and that chosen for these `time_steps`
    (`rate_thresholds`), `scale` 1, no augmentation.
    statistics of BatchNorm: "reset" (None in "robust") to mean 0 and variance 1, with which the paper starts its
    fine-tuning; "reestimate" takes them from the images by forward passes; "keep" (None in "rate", and only there).
    `calibration` holds further options of `calibrate`, or {"batches": 10} in "rate"; `snn_options` those of
    `copy_weights`, in "robust" alone.

    >>> import torch
    >>> nn = torch.nn
    >>> cnn = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> snn, report = convert(cnn, torch.rand(64, 3, 8, 8), time_steps=4)
    >>> snn(torch.rand(5, 3, 8, 8)).shape, report.method
    (torch.Size([5, 2]), 'rate')

    **Source:** Özdenizci & Legenstein 2024, section on conversion and their code (main_train.py); "rate": Li et al.
    2021, Bu et al. 2022. Errors: InputError as in the single steps, and for a layer that is dead with its scaled
    threshold.
    """
    if method is None:
        method = "robust" if isinstance(ann, Model) and ann.config else "rate"
    defaults = METHODS[checks.choice("method", method, METHODS)]
    scale = defaults["scale"] if scale is None else _checked_scale(scale)
    statistics = defaults["statistics"] if statistics is None else statistics
    allowed = STATISTICS if method == "rate" else STATISTICS[:2]
    if statistics not in allowed:
        raise InputError(f"statistics is {statistics!r}; expected one of {', '.join(allowed)}; choose one of these")
    augmentation = defaults["augmentation"] if augmentation is None else augmentation
    images = {"batch_size": batch_size, "seed": seed, "augmentation": augmentation}
    make = _robust if method == "robust" else _rate
    snn, calibrated = make(ann, image_set, images, time_steps, calibration or {}, snn_options or {})
    scale_thresholds(snn, scale)
    (batch,) = shuffled_batches(image_set, "calibration", batches=1, like=first_weight(snn), **images)
    rates = _firing_rates(snn, batch, MODES[method])
    for name, rate in rates.items():
        if rate == 0:
            raise InputError(f"{name} is dead after scaling by {scale:g}: no spike in a batch; lower scale")
    if statistics == "reestimate":
        reestimate_statistics(snn, image_set, **images)
    elif statistics == "reset":
        reset_statistics(snn)
    firing = tuple(rates[entry.layer] for entry in calibrated)
    return snn, ConversionReport(tuple(calibrated), scale, firing, statistics, method)


Made = tuple[Model, list[LayerThreshold]]


def _robust(
    ann: nn.Module, image_set: ImageSet | Tensor, images: dict, time_steps: int, calibration: dict, snn_options: dict
) -> Made:
    snn = copy_weights(ann, time_steps=time_steps, **snn_options)
    return snn, calibrate(snn, image_set, **images, **calibration)


def _rate(
    ann: nn.Module, image_set: ImageSet | Tensor, images: dict, time_steps: int, calibration: dict, snn_options: dict
) -> Made:
    if snn_options or calibration.keys() - {"batches"}:
        raise InputError('method "rate" takes no snn_options, and of calibration "batches" alone; leave the rest out')
    time_steps, ann = checks.whole("time_steps", time_steps), as_model(ann)
    like = first_weight(ann)
    batches = list(shuffled_batches(image_set, "calibration", **{"batches": 10, **calibration}, like=like, **images))
    thresholds = rate_thresholds(ann, batches, time_steps=time_steps, seed=images["seed"])
    snn = with_rates(ann, thresholds, time_steps)
    rates = _firing_rates(snn, batches[0], evaluating)
    return snn, [LayerThreshold(name, threshold, (), rates[name]) for name, threshold in thresholds.items()]


def scale_thresholds(snn: Model, factor: float = SCALE) -> None:
    """Multiply every threshold by `factor`, in place: fewer time steps than in calibration need earlier spikes.

    A floor acts when the layer runs, not here. Errors: InputError for a factor that is not above 0, or no SNN.
    **Source:** Özdenizci & Legenstein 2024, 0.3; their code (`threshold_update`).
    """
    _checked_scale(factor)
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


def _firing_rates(snn: Model, images: Tensor, mode: Callable[[nn.Module], AbstractContextManager]) -> dict[str, float]:
    """Spikes per neuron and time step, per spiking layer, with BatchNorm in the mode of the calibration."""
    rates: dict[str, float] = {}

    def note(layer: LIF, arguments: tuple, spikes: Tensor) -> None:
        rates[layers[layer]] = int(spikes.count_nonzero()) / spikes.numel()

    layers = spiking_layer_names(snn)
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with mode(snn):
            snn(images)
    finally:
        for hook in hooks:
            hook.remove()
    return rates


def _checked_scale(factor: float) -> float:
    is_number = isinstance(factor, Real) and not isinstance(factor, bool)
    if not (is_number and math.isfinite(factor) and factor > 0):
        raise InputError(f"scale is {factor!r}; expected a finite number above 0; the paper's is {SCALE}")
    return factor
