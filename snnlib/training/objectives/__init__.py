"""What training minimises, behind one interface:

    objective(model, images, labels, attack, **parameters) -> (loss, parts)

The model comes in train mode. `loss` is a scalar with a graph. `parts` names detached scalars, averaged over
the epoch and logged; `"accuracy"` is the share of the batch that the logits under the loss get right.
`attack(model, images, labels)` returns adversarial images and leaves the model as it was.

A new objective is one function and one line in `OBJECTIVES`, or `register_objective` from outside. Its keyword-only
arguments are what a recipe may set; an `attack` without a default means that it needs one.
"""

from snnlib.training.objectives.further import clean_and_adversarial, score, with_helper
from snnlib.training.objectives.membrane import membrane_guard, membrane_overlap
from snnlib.training.objectives.paired import consistency, mart, trades
from snnlib.training.objectives.registry import (
    OBJECTIVES,
    build_objective,
    mixed,
    needs_attack,
    register_objective,
    weight_perturbed,
)
from snnlib.training.objectives.single import adversarial, natural
from snnlib.training.objectives.sparse_gradient import sparse_gradient
from snnlib.training.objectives.step_slopes import step_slopes

__all__ = [
    "OBJECTIVES",
    "adversarial",
    "build_objective",
    "clean_and_adversarial",
    "consistency",
    "mart",
    "membrane_guard",
    "membrane_overlap",
    "mixed",
    "natural",
    "needs_attack",
    "register_objective",
    "score",
    "sparse_gradient",
    "step_slopes",
    "trades",
    "weight_perturbed",
    "with_helper",
]
