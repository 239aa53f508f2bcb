"""What training minimises, behind one interface:

    objective(model, images, labels, attack, **parameters) -> (loss, parts)

The model comes in train mode. `loss` is a scalar with a graph. `parts` names detached scalars, averaged over
the epoch and logged; `"accuracy"` is the share of the batch that the logits under the loss get right.
`attack(model, images, labels)` returns adversarial images and leaves the model as it was.

A new objective is one function and one line in `OBJECTIVES`. Its keyword-only arguments are what a recipe may
set; an `attack` without a default means that it needs one.
"""

from snnlib.training.objectives.paired import consistency, mart, trades
from snnlib.training.objectives.registry import OBJECTIVES, build_objective, mixed, needs_attack
from snnlib.training.objectives.single import adversarial, natural
from snnlib.training.objectives.sparse_gradient import sparse_gradient

__all__ = [
    "OBJECTIVES",
    "adversarial",
    "build_objective",
    "consistency",
    "mart",
    "mixed",
    "natural",
    "needs_attack",
    "sparse_gradient",
    "trades",
]
