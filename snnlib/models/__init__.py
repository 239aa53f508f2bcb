"""Networks: one definition each for the ANN and the SNN."""

from snnlib.models.build import MODEL_NAMES, Model, build_model, parameter_count
from snnlib.models.convertible import MixedBranches, spiking_layers
from snnlib.models.convolution import unsafe_convolutions

__all__ = [
    "MODEL_NAMES",
    "MixedBranches",
    "Model",
    "build_model",
    "parameter_count",
    "spiking_layers",
    "unsafe_convolutions",
]
