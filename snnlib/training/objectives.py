"""What training minimises, behind one interface:

    objective(model, images, labels, attack, **parameters) -> (loss, parts)

The model comes in train mode. `loss` is a scalar with a graph. `parts` names detached scalars, averaged over
the epoch and logged; `"accuracy"` is the share of the batch that the logits under the loss get right.
`attack(model, images, labels)` returns adversarial images and leaves the model as it was.

A new objective is one function and one line in `OBJECTIVES`. Its keyword-only arguments are what a recipe may
set; an `attack` without a default means that it needs one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib.attacks import ATTACKS, Budget
from snnlib.errors import InputError

Parts = dict[str, Tensor]
InnerAttack = Callable[[nn.Module, Tensor, Tensor], Tensor]
Objective = Callable[[nn.Module, Tensor, Tensor, InnerAttack | None], tuple[Tensor, Parts]]


def natural(
    model: nn.Module, images: Tensor, labels: Tensor, attack: InnerAttack | None = None
) -> tuple[Tensor, Parts]:
    """Cross-entropy on the images as they are."""
    return _cross_entropy(model(images), labels)


def adversarial(
    model: nn.Module, images: Tensor, labels: Tensor, attack: InnerAttack
) -> tuple[Tensor, Parts]:
    """Standard adversarial training: cross-entropy on adversarial images only.

    `accuracy` is that on the adversarial images. BatchNorm is in eval during the attack and in train for the
    loss. With `snnlib.attacks.pgd` a sample stops at the first point that fools the model (and one that is
    misclassified without attack stays clean), where Madry et al. run every step. That is the early-stopped
    inner maximisation of Zhang et al. 2020 with τ = 0: cheaper, gentler on clean accuracy, somewhat weaker in
    robustness.
    **Source:** Madry et al. 2018, equation 2.1.
    """
    return _cross_entropy(model(attack(model, images, labels)), labels)


OBJECTIVES: dict[str, Callable] = {"natural": natural, "adversarial": adversarial}


def build_objective(name: str, parameters: Mapping) -> Objective:
    """The objective with its `parameters` fixed. Errors: InputError for an unknown name or parameter."""
    if name not in OBJECTIVES:
        raise InputError(
            f"objective is {name!r}; expected one of {', '.join(OBJECTIVES)}; choose one of these"
        )
    _check_names(f"objective {name!r}", parameters, _keyword_only(OBJECTIVES[name]))
    return partial(OBJECTIVES[name], **parameters)


def needs_attack(name: str) -> bool:
    """Whether the objective has to be given an inner attack."""
    return inspect.signature(OBJECTIVES[name]).parameters["attack"].default is inspect.Parameter.empty


def build_attack(parameters: Mapping, seed: int) -> InnerAttack:
    """An inner attack on images from plain values: `{"name": "pgd", "eps": 8 / 255, "steps": 10}`.

    name: a key of `snnlib.attacks.ATTACKS`. eps, norm: as in `Budget`. Everything else goes to the attack,
    which draws its noise by `seed`. Errors: InputError for a missing or unknown key, an unknown name, or a
    budget that does not fit.
    """
    missing = [key for key in ("name", "eps") if key not in parameters]
    if missing:
        raise InputError(
            f"attack has no {missing[0]!r}; expected e.g. {{'name': 'pgd', 'eps': 8 / 255, 'steps': 10}}"
        )
    if parameters["name"] not in ATTACKS:
        raise InputError(
            f"attack is {parameters['name']!r}; expected one of {', '.join(ATTACKS)}; choose one of these"
        )
    function = ATTACKS[parameters["name"]]
    budget = Budget(parameters["eps"], norm=parameters.get("norm", "linf"))
    options = {key: value for key, value in parameters.items() if key not in ("name", "eps", "norm")}
    _check_names(f"attack {parameters['name']!r}", options, _keyword_only(function) - {"generator"})

    def attack(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return function(model, images, labels, budget, generator=generator, **options).adversarial

    return attack


def _cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Parts]:
    accuracy = (logits.detach().argmax(1) == labels).float().mean()
    return F.cross_entropy(logits, labels), {"accuracy": accuracy}


def _keyword_only(function: Callable) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def _check_names(owner: str, given: Mapping, allowed: set[str]) -> None:
    for key in given:
        if key not in allowed:
            expected = ", ".join(sorted(allowed)) or "none"
            raise InputError(
                f"{owner} got the parameter {key!r}; expected {expected}; remove it or correct its name"
            )
