"""Networks: one definition each for the ANN and the SNN."""

from snnlib.models.build import MODEL_NAMES, Model, build_model, parameter_count

__all__ = ["MODEL_NAMES", "Model", "build_model", "parameter_count"]
