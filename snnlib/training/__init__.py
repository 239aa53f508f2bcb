"""Training: a recipe, an objective, and a loop that survives being killed."""

from snnlib.training.accuracy import evaluate_accuracy
from snnlib.training.checkpoint import load_weights
from snnlib.training.loop import History, TrainingDiverged, fit
from snnlib.training.objectives import OBJECTIVES
from snnlib.training.recipe import Recipe

__all__ = [
    "OBJECTIVES",
    "History",
    "Recipe",
    "TrainingDiverged",
    "evaluate_accuracy",
    "fit",
    "load_weights",
]
