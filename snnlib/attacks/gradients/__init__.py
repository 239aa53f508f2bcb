"""How the attacker differentiates a spike. Every forward is the network's own, except that of `relu_proxy`."""

from snnlib.attacks.gradients.adaptive_width import adaptive_sharpness, potential_dependent
from snnlib.attacks.gradients.base import MembraneRule, SpikeGradient, SpikeRule, bptt, straight_through
from snnlib.attacks.gradients.parse import GRADIENTS, parse_gradient
from snnlib.attacks.gradients.proxy import relu_proxy
from snnlib.attacks.gradients.rates import backward_through_rate, hart, rate_gradient

__all__ = [
    "GRADIENTS",
    "MembraneRule",
    "SpikeGradient",
    "SpikeRule",
    "adaptive_sharpness",
    "backward_through_rate",
    "bptt",
    "hart",
    "parse_gradient",
    "potential_dependent",
    "rate_gradient",
    "relu_proxy",
    "straight_through",
]
