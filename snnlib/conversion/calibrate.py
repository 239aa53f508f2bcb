"""Thresholds from currents: one per spiking layer, set in forward order, each seen by the layers behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnlib import checks
from snnlib.conversion.batches import shuffled_batches
from snnlib.conversion.lockstep import current_batch, layer_by_layer
from snnlib.conversion.percentile import percentile as percentile_of
from snnlib.conversion.percentile import rank_of
from snnlib.conversion.statistics import batch_statistics
from snnlib.data.image_set import ImageSet
from snnlib.encoding import DirectEncoder
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.models.layers import first_weight
from snnlib.neurons import LIF, use_kernel
from snnlib.progress import progress

SECOND_THRESHOLDS = ("own", "running maximum")
MEMORY_BUDGET = 2 * 2**30


@dataclass(frozen=True)
class LayerThreshold:
    """A calibrated threshold. percentiles: of each batch, in order; firing_rate: of the layer with this threshold.

    Threshold and percentiles in units of the layer's current; the rate per neuron and time step, over all batches.
    """

    layer: str
    threshold: float
    percentiles: tuple[float, ...]
    firing_rate: float


def calibrate(
    snn: Model,
    image_set: ImageSet | Tensor,
    *,
    percentile: float = 0.997,
    time_steps: int = 100,
    batches: int = 10,
    batch_size: int = 64,
    seed: int = 0,
    augmentation: str = "crop-flip",
    second_threshold: str = "own",
    memory_budget: int = MEMORY_BUDGET,
) -> list[LayerThreshold]:
    """Set every spiking layer's threshold to a percentile of its input current; returns them in forward order.

    For each layer: the `percentile` (share; the k-th smallest, exactly) of its current over all samples, channels,
    positions and `time_steps` steps of direct coding, per mini-batch; the threshold is the maximum over the batches.
    It acts before the next layer's currents are computed. BatchNorm normalises by the current batch, pooled over
    batch, time and space; all else is in eval mode. The model keeps its modes, statistics and number of time steps.

    image_set: training images, or a tensor of them, drawn by `seed`, each batch augmented ("crop-flip": the paper's
    training; "none").
    batches: 10 in the paper's text, 11 in the authors' code. second_threshold: "own" takes a residual block's second
    threshold from its own current, like any other; "running maximum" is the authors' code, where the maximum goes on
    from the block's first layer: never lower, and at times so high that the layer falls silent, which is an error here.
    memory_budget: bytes for passes that wait (see `layer_by_layer`); what does not fit starts over for each layer,
    takes longer and gives the same thresholds. Beside it one pass is at work: 1 GiB for a VGG-11 of width 8.

    Compared with the authors' code: every layer sees the same batches, where theirs draws new ones per layer.
    **Source:** Özdenizci & Legenstein 2024, section on conversion; their code, `find_threshold`.
    Errors: InputError for a model without spiking layers or direct coding, for options that do not fit, and, naming
    the layer, for a threshold that is not above 0 or not finite, and for a layer that does not fire. The thresholds
    are then what they were.
    """
    layers = spiking_layer_names(snn)
    _check(snn, percentile, second_threshold)
    time_steps, batches = checks.whole("time_steps", time_steps), checks.whole("batches", batches)
    images = list(
        shuffled_batches(
            image_set,
            "calibration",
            batches=batches,
            batch_size=batch_size,
            seed=seed,
            augmentation=augmentation,
            like=first_weight(snn),
        )
    )
    measured: dict[LIF, list[float]] = {}
    with _undone_on_error(layers), _calibration_mode(snn, time_steps), _firing_rates(layers) as rates:
        passes = layer_by_layer(
            lambda batch: snn(images[batch]),
            batches,
            layers,
            lambda currents: percentile_of(currents, percentile),
            memory_budget,
        )
        with closing(passes):
            for layer, values in progress(passes, total=len(layers), label="calibrating thresholds"):
                _check_firing(rates, layers, measured)
                measured[layer] = values
                set_threshold(layer, _threshold(layer, measured, layers, snn, second_threshold))
        _check_firing(rates, layers, measured)
    return [
        LayerThreshold(layers[layer], threshold_of(layer), tuple(values), _mean(rates[layer]))
        for layer, values in measured.items()
    ]


def spiking_layer_names(model: Model) -> dict[LIF, str]:
    """Name of each spiking layer, in registration order. Errors: InputError where there is none."""
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    layers = {module: name for name, module in modules if isinstance(module, LIF)}
    if not layers:
        raise InputError(f"{type(model).__name__} has no spiking layer; expected an SNN, such as copy_weights returns")
    return layers


def threshold_of(layer: LIF) -> float:
    """A layer's threshold as a number, trainable or not, without regard to its floor."""
    return torch.as_tensor(layer.threshold).item()


def set_threshold(layer: LIF, threshold: float) -> None:
    """Give a layer this threshold, in place; a trainable one stays the same parameter."""
    if isinstance(layer.threshold, Tensor):
        with torch.no_grad():
            layer.threshold.fill_(threshold)
    else:
        layer.threshold = threshold


def _threshold(
    layer: LIF, measured: dict[LIF, list[float]], layers: dict[LIF, str], snn: Model, second_threshold: str
) -> float:
    """Largest percentile over the batches; checked."""
    contributing = [layer]
    if second_threshold == "running maximum":
        block = _residual_block(snn, layers[layer])
        contributing = [other for other in measured if other is layer or (block and layers[other].startswith(block))]
    values = [value for source in contributing for value in measured[source]]
    # max() would pass over a NaN that does not come first.
    threshold = math.nan if any(math.isnan(value) for value in values) else max(values)
    if not (math.isfinite(threshold) and threshold > 0):
        raise InputError(
            f"threshold of {layers[layer]} calibrates to {threshold:.4g}; expected a finite number above 0; "
            "too few of its currents are positive or its weights are damaged: raise percentile or train longer"
        )
    return threshold


def _residual_block(snn: Model, name: str) -> str:
    """Name of the innermost residual block around a layer, with its final dot; "" outside of any."""
    blocks = (f"{block}." for block, module in snn.named_modules() if getattr(module, "is_residual_block", False))
    return max((block for block in blocks if name.startswith(block)), key=len, default="")


def _check_firing(rates: dict[LIF, dict[int, float]], layers: dict[LIF, str], measured: dict[LIF, list]) -> None:
    for layer in measured:
        if _mean(rates[layer]) == 0:
            raise InputError(
                f"{layers[layer]} is dead: no spike in any calibration batch at threshold {threshold_of(layer):.4g}; "
                "expected some; check its weights, or use more time_steps"
            )


def _mean(values: dict[int, float]) -> float:
    return math.fsum(values.values()) / len(values)


@contextmanager
def _firing_rates(layers: dict[LIF, str]) -> Iterator[dict[LIF, dict[int, float]]]:
    """Rates per layer and batch; a batch that starts over gives the same rate again."""
    rates: dict[LIF, dict[int, float]] = {layer: {} for layer in layers}

    def see(layer: LIF, arguments: tuple, spikes: Tensor) -> None:
        rates[layer][current_batch()] = int(spikes.count_nonzero()) / spikes.numel()

    hooks = [layer.register_forward_hook(see) for layer in layers]
    try:
        yield rates
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _calibration_mode(snn: Model, time_steps: int) -> Iterator[None]:
    own = snn.encoder.time_steps
    snn.encoder.time_steps = time_steps
    try:
        # Compiling a loop of this length for one use would take longer than the plain one.
        with batch_statistics(snn), use_kernel("reference"):
            yield
    finally:
        snn.encoder.time_steps = own


@contextmanager
def _undone_on_error(layers: dict[LIF, str]) -> Iterator[None]:
    own = {layer: threshold_of(layer) for layer in layers}
    try:
        yield
    except BaseException:
        for layer, threshold in own.items():
            set_threshold(layer, threshold)
        raise


def _check(snn: Model, percentile: float, second_threshold: str) -> None:
    if not isinstance(getattr(snn, "encoder", None), DirectEncoder):
        coding = type(getattr(snn, "encoder", None)).__name__
        raise InputError(f"the encoder is {coding}; expected direct coding; build the model with encoder='direct'")
    rank_of(percentile, 1)
    if second_threshold not in SECOND_THRESHOLDS:
        expected = ", ".join(SECOND_THRESHOLDS)
        raise InputError(f"second_threshold is {second_threshold!r}; expected one of {expected}; choose one of these")
