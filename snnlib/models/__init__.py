"""Networks: one definition each for the ANN and the SNN."""

from snnlib.models.build import MODEL_NAMES, Model, build_model, parameter_count
from snnlib.models.convertible import MixedBranches, spiking_layers
from snnlib.models.convolution import unsafe_convolutions
from snnlib.models.released import released, released_card, released_names
from snnlib.models.saved import load, save

__all__ = [
    "MODEL_NAMES",
    "MixedBranches",
    "Model",
    "build_model",
    "load",
    "parameter_count",
    "released",
    "released_card",
    "released_names",
    "save",
    "spiking_layers",
    "unsafe_convolutions",
]
