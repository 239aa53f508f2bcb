"""Spiking neurons: definition, compiled kernels, surrogates, layers."""

from snnlib.neurons import surrogates
from snnlib.neurons.autograd import lif_multi_step
from snnlib.neurons.foreign import exchanged_surrogates, foreign_neurons
from snnlib.neurons.kernels import compilations, kernel_name, use_kernel
from snnlib.neurons.modules import IF, LIF, attacker_surrogate, neurons_of
from snnlib.neurons.surrogates import Surrogate

__all__ = [
    "IF",
    "LIF",
    "Surrogate",
    "attacker_surrogate",
    "compilations",
    "exchanged_surrogates",
    "foreign_neurons",
    "kernel_name",
    "lif_multi_step",
    "neurons_of",
    "surrogates",
    "use_kernel",
]
