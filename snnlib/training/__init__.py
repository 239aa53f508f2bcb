"""Training: a recipe, an objective, and a loop that survives being killed."""

from snnlib.training.accuracy import evaluate_accuracy
from snnlib.training.checkpoint import load_weights
from snnlib.training.cost import estimate_training_seconds
from snnlib.training.inner_attack import inner_attack
from snnlib.training.loop import History, TrainingDiverged, fit
from snnlib.training.objectives import OBJECTIVES, register_objective, with_helper
from snnlib.training.recipe import Recipe

__all__ = [
    "OBJECTIVES",
    "History",
    "Recipe",
    "TrainingDiverged",
    "estimate_training_seconds",
    "evaluate_accuracy",
    "fit",
    "inner_attack",
    "load_weights",
    "register_objective",
    "with_helper",
]
