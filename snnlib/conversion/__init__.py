"""Conversion of trained ANNs to SNNs: weights, thresholds, BatchNorm statistics; and QCFS beside it."""

from snnlib.conversion.calibrate import LayerThreshold, calibrate
from snnlib.conversion.convert import ConversionReport, convert, scale_thresholds, set_trainable
from snnlib.conversion.plain import plain_model
from snnlib.conversion.qcfs import QCFS, ShiftedIF, qcfs_to_if, with_qcfs
from snnlib.conversion.rate import rate_thresholds, with_rates
from snnlib.conversion.statistics import batch_statistics, reestimate_statistics, reset_statistics
from snnlib.conversion.weights import PAPER_SNN, copy_weights, transfer_weights

__all__ = [
    "PAPER_SNN",
    "QCFS",
    "ConversionReport",
    "LayerThreshold",
    "ShiftedIF",
    "batch_statistics",
    "calibrate",
    "convert",
    "copy_weights",
    "plain_model",
    "qcfs_to_if",
    "rate_thresholds",
    "reestimate_statistics",
    "reset_statistics",
    "scale_thresholds",
    "set_trainable",
    "transfer_weights",
    "with_qcfs",
    "with_rates",
]
