"""Gradient sparsity: measures on a tensor, and probes that read gradients out of a model."""

from snnlib.sparsity.measures import MEASURES, gini, hoyer, l0, l1, l2, small_share, zero_share
from snnlib.sparsity.probes import gradient_by_operation, input_gradient, input_gradient_measures

__all__ = [
    "MEASURES",
    "gini",
    "gradient_by_operation",
    "hoyer",
    "input_gradient",
    "input_gradient_measures",
    "l0",
    "l1",
    "l2",
    "small_share",
    "zero_share",
]
