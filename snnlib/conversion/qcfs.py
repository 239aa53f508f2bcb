"""QCFS: train an ANN with the step function that a spiking neuron computes, then convert it without calibration.

Quantisation, clip, floor, shift (Bu et al. 2022). Beside the paper's conversion as the field's standard: here the ANN
changes so that the SNN fits, there the SNN is tuned to the ANN.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor, nn

from snnlib import checks
from snnlib.conversion.plain import as_model
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.models.layers import first_weight
from snnlib.neurons import LIF
from snnlib.neurons.reference import as_floats


class QCFS(nn.Module):
    """λ · clip(⌊x·L/λ + ½⌋ / L, 0, 1): `levels` L steps up to the trainable height `threshold` λ.

    Gradient: the floor counts as the identity, so dy/dx is 1 where ⌊·⌋ lies in [0, L] and 0 elsewhere.

    **Source:** Bu et al. 2022 (ICLR), the activation with shift ½; read in their code (modules.py, `MyFloor`).
    Errors: InputError for `levels` < 1 or a threshold that is not above 0.
    """

    def __init__(self, levels: int, threshold: float = 4.0) -> None:
        super().__init__()
        if isinstance(threshold, bool) or not (isinstance(threshold, Real) and 0 < threshold < math.inf):
            raise InputError(f"threshold is {threshold!r}; expected a finite number above 0; the authors start at 4.0")
        self.levels = checks.whole("levels", levels)
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    def forward(self, x: Tensor) -> Tensor:
        scaled = x * self.levels / self.threshold + 0.5
        steps = scaled + (scaled.floor() - scaled).detach()
        return self.threshold * (steps / self.levels).clamp(0, 1)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, threshold={self.threshold.item():g}"


class ShiftedIF(LIF):
    """IF neuron with soft reset that starts at half its threshold; its spikes have the threshold's height.

    For a constant current x and T steps, the sum of its output over T equals QCFS(x) with L = T and λ = threshold, for
    every real x: from θ/2 the membrane after n spikes is θ/2 + T·x − n·θ and lies in [0, θ) for 0 ≤ x ≤ θ. (In floating
    point up to rounding exactly on a step.) Deeper layers get currents that change in time; there it is approximate.

    **Source:** Bu et al. 2022, initial membrane θ/2; read in their code (modules.py, `ScaledNeuron`).
    """

    def __init__(self, threshold: float | Tensor) -> None:
        super().__init__(leak=1.0, threshold=threshold, reset="soft", detach_reset=False)

    def forward(self, currents: Tensor) -> Tensor:
        currents = as_floats(currents)
        threshold = torch.as_tensor(self.effective_threshold, dtype=currents.dtype, device=currents.device)
        # A start at θ/2 is a first current that is larger by θ/2: no leak, and nothing else is left of the past.
        shifted = torch.cat([currents[:1] + threshold / 2, currents[1:]])
        return threshold * super().forward(shifted)


def with_qcfs(ann: nn.Module, levels: int, threshold: float = 4.0) -> Model:
    """A copy of an ANN with a `QCFS` of its own in the place of every ReLU; `ann` is left alone.

    ann: of `build_model`, or any that `plain_model` takes. The copy encodes one time step: all steps of an ANN are the
    same. `config` still describes the network with ReLU.
    Errors: InputError for an ANN without ReLU, and those of `QCFS` and `plain_model`.
    """
    changed = copy.deepcopy(as_model(ann))
    like = first_weight(ann)
    replace_modules(changed, nn.ReLU, lambda relu: QCFS(levels, threshold).to(device=like.device, dtype=like.dtype))
    changed.encoder.time_steps = 1
    return changed


def qcfs_to_if(ann: Model, time_steps: int) -> Model:
    """The SNN of a QCFS network, a copy with `time_steps` steps: every `QCFS` becomes a `ShiftedIF` of its threshold.

    Weights and BatchNorm stay as they are, statistics included. With `time_steps` = `levels` a neuron with a constant
    current computes what it did before. Errors: InputError for a network without QCFS, or a threshold below 0.
    """
    time_steps = checks.whole("time_steps", time_steps)
    snn = copy.deepcopy(ann)
    replace_modules(snn, QCFS, _fitting_neuron)
    snn.encoder.time_steps = time_steps
    return snn


def _fitting_neuron(activation: QCFS) -> ShiftedIF:
    threshold = activation.threshold.item()
    if not (math.isfinite(threshold) and threshold > 0):
        raise InputError(f"a QCFS threshold is {threshold:.4g}; expected a finite number above 0; train it again")
    return ShiftedIF(nn.Parameter(activation.threshold.detach().clone()))


def replace_modules(model: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> None:
    """Put `make(module)` in the place of every module of a kind."""
    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, kind)
    ]
    if not places:
        raise InputError(f"{type(model).__name__} has no {kind.__name__}; expected an ANN made with it; see with_qcfs")
    for parent, name in places:
        setattr(parent, name, make(getattr(parent, name)))
