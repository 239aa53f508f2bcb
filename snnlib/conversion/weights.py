"""An ANN's weights in an SNN of the same definition: by name, and every misfit is named."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from snnlib import checks
from snnlib.conversion.plain import as_model
from snnlib.conversion.qcfs import replace_modules
from snnlib.conversion.statistics import reset_statistics
from snnlib.errors import InputError
from snnlib.models import Model, build_model
from snnlib.models.build import NEURON_OPTIONS, parse_surrogate
from snnlib.models.layers import first_weight
from snnlib.neurons import LIF, neurons_of

PAPER_SNN = {
    "encoder": "direct",
    "encoder_gradient": None,
    "leak": 1.0,
    "threshold": 1.0,
    "surrogate": "piecewise_linear(width=1)",
    "reset": "hard",
    "detach_reset": False,
    "trainable_threshold": True,
    "threshold_floor": 0.03,
}
"""Options of `build_model` that make the paper's SNN: IF neurons, hard reset on the path of the gradient.

Beside them `bias=True` where the network has the choice: a VGG's convolutions and linear layers, a ResNet's read-out.
"""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def copy_weights(ann: nn.Module, *, time_steps: int = 8, **snn_options) -> Model:
    """A new SNN with the ANN's weights and BatchNorm affine parameters, on its device; the ANN is left alone.

    The SNN is `ann`'s own definition with spiking units of `PAPER_SNN` in the place of ReLU; `snn_options` are
    arguments of `build_model` that differ from that, of its neurons alone where `ann` is not from there. BatchNorm
    statistics are those of a new network (mean 0, variance 1), thresholds 1 and trainable until they are calibrated;
    biases that a network of `build_model` does not have start at 0.

    **Source:** Özdenizci & Legenstein 2024, section on conversion; their code (main_train.py).
    Errors: InputError for a model that spikes already, or that `plain_model` cannot take, and those of
    `transfer_weights`.
    """
    ann = as_model(ann)
    if neurons_of(ann):
        raise InputError("the ANN has spiking layers already; expected a model made by build_model(..., spiking=False)")
    if not ann.config:
        return _with_neurons(ann, checks.whole("time_steps", time_steps), {**PAPER_SNN, **snn_options})
    options = {**PAPER_SNN, **({"bias": True} if "bias" in ann.config else {}), **snn_options}
    snn = build_model(**{**ann.config, **options, "time_steps": time_steps, "spiking": True})
    like = first_weight(ann)
    snn.to(device=like.device, dtype=like.dtype)
    transfer_weights(ann.state_dict(), snn)
    return snn


def _with_neurons(ann: Model, time_steps: int, options: dict) -> Model:
    unknown = sorted(options.keys() - {*NEURON_OPTIONS, *PAPER_SNN})
    if unknown:
        raise InputError(f"snn_options has {unknown[0]!r}; expected some of {', '.join(NEURON_OPTIONS)}")
    neuron = {name: options[name] for name in NEURON_OPTIONS if name in options}
    neuron["surrogate"] = parse_surrogate(neuron["surrogate"])
    snn, like = copy.deepcopy(ann), first_weight(ann)
    replace_modules(snn, nn.ReLU, lambda relu: LIF(**neuron).to(device=like.device, dtype=like.dtype))
    reset_statistics(snn)
    snn.encoder.time_steps = time_steps
    return snn


def transfer_weights(weights: Mapping[str, Tensor], snn: Model, source: str = "the ANN") -> None:
    """Copy an ANN's tensors into `snn` in place, by name, and set biases that have no counterpart to 0.

    weights: a `state_dict`, or the tensors of a checkpoint; `source` is what messages call it. BatchNorm statistics
    are left out. Thresholds stay as they are.

    Errors: InputError naming the first tensor that is missing, left over or of another shape, and the number of
    classes where that is what differs. `snn` is then as it was.
    """
    given = {name: value for name, value in weights.items() if not name.endswith(_STATISTICS)}
    own = {name: value for name, value in snn.state_dict().items() if not name.endswith(_STATISTICS)}
    free = _thresholds(snn) | (_biases(snn) - given.keys())
    _check_classes(given, own, snn, source)
    misfits = [
        f"{name} is {_shape(given, name)} in {source}, {_shape(own, name)} in the SNN"
        for name in dict.fromkeys((*own, *given))
        if name not in free and _shape(given, name) != _shape(own, name)
    ]
    if misfits:
        more = f" (and {len(misfits) - 1} more tensors)" if len(misfits) > 1 else ""
        raise InputError(f"weights do not fit: {misfits[0]}{more}; build both with the same architecture and width")
    with torch.no_grad():
        for name, tensor in own.items():
            if name in given:
                tensor.copy_(given[name])
            elif name not in _thresholds(snn):
                tensor.zero_()


def _check_classes(given: Mapping[str, Tensor], own: Mapping[str, Tensor], snn: Model, source: str) -> None:
    """The read-out is looked at first: another number of classes is the commonest misfit."""
    read_out = [name for name, module in snn.named_modules() if isinstance(module, nn.Linear)][-1:]
    for name in (f"{layer}.weight" for layer in read_out):
        if name in given and given[name].dim() == 2 and given[name].shape[1] == own[name].shape[1]:
            theirs, ours = len(given[name]), len(own[name])
            if theirs != ours:
                raise InputError(
                    f"class counts differ: {name} has {theirs} classes in {source}, {ours} in the SNN; "
                    f"build the SNN with num_classes={theirs}"
                )


def _thresholds(snn: Model) -> set[str]:
    return {f"{name}.threshold" for name, module in snn.named_modules() if isinstance(module, LIF)}


def _biases(snn: Model) -> set[str]:
    """Names of the biases of convolutions and linear layers; BatchNorm's come from the ANN."""
    layers = (name for name, module in snn.named_modules() if isinstance(module, nn.Conv2d | nn.Linear))
    return {f"{name}.bias" for name in layers}


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return str(list(tensors[name].shape)) if name in tensors else "absent"
