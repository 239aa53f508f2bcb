"""The objectives by name, as a recipe writes them, and those made of others, which look their components up here."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from numbers import Real
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.training.objectives.further import at_worse_weights, clean_and_adversarial, score
from snnlib.training.objectives.membrane import membrane_guard, membrane_overlap
from snnlib.training.objectives.paired import consistency, mart, trades
from snnlib.training.objectives.single import adversarial, natural
from snnlib.training.objectives.sparse_gradient import sparse_gradient
from snnlib.training.objectives.step_slopes import step_slopes
from snnlib.training.objectives.terms import InnerAttack, Objective, Parts

COMPONENT_KEYS = ("objective", "weight", "parameters")
COMPONENTS = {"mixed": ("first", "second"), "weight_perturbed": ("inner",)}
"""Objectives made of others, and the parameters that name those."""


def mixed(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: InnerAttack | None = None,
    *,
    first: Mapping,
    second: Mapping,
) -> tuple[Tensor, Parts]:
    """Two objectives with weights: w₁ · L₁ + w₂ · L₂, one after the other on the same batch.

    first, second: `{"objective": "trades", "weight": 0.5, "parameters": {"beta": 2.0}}`; weight 1 and the
    objective's own parameters where left out. Each makes its own passes, so BatchNorm counts those of both. The
    attack runs once, when it is first asked for, and both see its points. Parts: `accuracy` of the first,
    `first_loss`, `second_loss` without weights, and theirs as `first_...`, `second_...`.
    """
    attack = None if attack is None else _once(attack)
    loss, parts = 0.0, {}
    for place, component in (("first", first), ("second", second)):
        objective = build_objective(component["objective"], component.get("parameters", {}))
        own_loss, own_parts = objective(model, images, labels, attack)
        loss = loss + component.get("weight", 1.0) * own_loss
        parts[f"{place}_loss"] = own_loss.detach()
        parts |= {f"{place}_{name}": value for name, value in own_parts.items()}
    parts["accuracy"] = parts.pop("first_accuracy")
    return loss, parts


def weight_perturbed(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: InnerAttack | None = None,
    *,
    inner: Mapping,
    gamma: float = 0.005,
) -> tuple[Tensor, Parts]:
    """Adversarial weight perturbation: `inner` at the worst weights near by, see `at_worse_weights`.

    inner: `{"objective": "adversarial"}`, with `parameters` where it has some; its weight counts as 1. The attack runs
    once, at the unperturbed weights. Parts: those of `inner` at the perturbed weights.
    gamma: length of the perturbation of a layer, relative to its weights.
    **Source:** Wu et al. 2020 (AWP), equations 7 to 9 with one step, as in the authors' code (gamma 0.005 with TRADES).
    """
    attack = None if attack is None else _once(attack)
    objective = build_objective(inner["objective"], inner.get("parameters", {}))
    return at_worse_weights(objective, model, images, labels, attack, gamma)


OBJECTIVES: dict[str, Callable] = {
    "natural": natural,
    "adversarial": adversarial,
    "trades": trades,
    "mart": mart,
    "consistency": consistency,
    "sparse_gradient": sparse_gradient,
    "mixed": mixed,
    "clean_and_adversarial": clean_and_adversarial,
    "score": score,
    "weight_perturbed": weight_perturbed,
    "membrane_overlap": membrane_overlap,
    "membrane_guard": membrane_guard,
    "step_slopes": step_slopes,
}
BUILT_IN = frozenset(OBJECTIVES)
FIRST_ARGUMENTS = ("model", "images", "labels", "attack")


def register_objective(name: str, objective: Callable[..., tuple[Tensor, Parts]]) -> None:
    """Let recipes call `objective` by `name`, as they call those of snnlib.

    objective: `f(model, images, labels, attack, *, parameter=..., ...) -> (loss, parts)`, see
    `snnlib.training.objectives`; an `attack` without a default means that it needs one. A name may be given anew, but
    not one of snnlib's. A stored network is named by the objective's name and parameters, not by its code: give a
    changed function a new name.
    Errors: InputError for a name of snnlib's or an empty one, and for arguments that do not begin with these four.

    >>> import torch
    >>> from snnlib import training
    >>> def flooded(model, images, labels, attack=None, *, level=0.1):
    ...     loss = torch.nn.functional.cross_entropy(model(images), labels)
    ...     return (loss - level).abs() + level, {"accuracy": (model(images).argmax(1) == labels).float().mean()}
    >>> training.register_objective("flooded", flooded)
    >>> training.Recipe(epochs=1, objective="flooded", objective_parameters={"level": 0.2}).objective
    'flooded'
    """
    if not isinstance(name, str) or not name or name in BUILT_IN:
        raise InputError(f"the objective's name is {name!r}; expected one that snnlib does not have; choose another")
    arguments = list(inspect.signature(objective).parameters.values())
    if tuple(each.name for each in arguments[:4]) != FIRST_ARGUMENTS or any(
        each.kind is not each.KEYWORD_ONLY for each in arguments[4:]
    ):
        raise InputError(
            f"objective {name!r} takes ({', '.join(each.name for each in arguments)}); expected "
            f"({', '.join(FIRST_ARGUMENTS)}), then keyword-only parameters; change its signature"
        )
    OBJECTIVES[name] = objective


def build_objective(name: str, parameters: Mapping) -> Objective:
    """The objective with its `parameters` fixed.

    Errors: InputError for an unknown name, and for a parameter that is unknown, missing or does not fit its
    annotation: a `float` is a finite number of 0 or more, a `Literal` one of its values, a `Mapping` a component
    of an objective that is made of others.
    """
    if name not in OBJECTIVES:
        raise InputError(f"objective is {name!r}; expected one of {', '.join(OBJECTIVES)}; choose one of these")
    function, owner = OBJECTIVES[name], f"objective {name!r}"
    check_names(owner, parameters, keyword_only(function).keys())
    hints = _hints_of(function)
    for key, default in keyword_only(function).items():
        if key in parameters:
            _check_value(owner, key, parameters[key], hints.get(key))
        elif default is inspect.Parameter.empty:
            raise InputError(f"{owner} lacks the parameter {key!r}; expected a value for it; set it")
    return partial(function, **parameters)


def needs_attack(name: str, parameters: Mapping) -> bool:
    """Whether the objective, with parameters that `build_objective` took, has to be given an inner attack."""
    if name in COMPONENTS:
        components = [parameters[key] for key in COMPONENTS[name]]
        return any(needs_attack(part["objective"], part.get("parameters", {})) for part in components)
    return inspect.signature(OBJECTIVES[name]).parameters["attack"].default is inspect.Parameter.empty


_hints_of = cache(get_type_hints)
"""Of a function; read once, as an objective is built at every step."""


@cache
def keyword_only(function: Callable) -> dict[str, Any]:
    """The keyword-only arguments of a function with their defaults."""
    arguments = inspect.signature(function).parameters.values()
    return {argument.name: argument.default for argument in arguments if argument.kind is argument.KEYWORD_ONLY}


def check_names(owner: str, given: Mapping, allowed: set[str]) -> None:
    """Errors: InputError for a key of `given` that is not allowed."""
    for key in given:
        if key not in allowed:
            expected = ", ".join(sorted(allowed)) or "none"
            raise InputError(f"{owner} got the parameter {key!r}; expected {expected}; remove it or correct its name")


def _check_value(owner: str, key: str, value: object, hint: object) -> None:
    if hint is float and not _is_weight(value):
        raise InputError(f"{key} of {owner} is {value!r}; expected a finite number of 0 or more; e.g. {key}=1.0")
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise InputError(f"{key} of {owner} is {value!r}; expected one of {', '.join(get_args(hint))}; choose one")
    if hint is Mapping:
        _check_component(f"{key} of {owner}", value)


def _check_component(owner: str, component: object) -> None:
    if not isinstance(component, Mapping) or "objective" not in component:
        raise InputError(f"{owner} is {component!r}; expected a dict; e.g. {{'objective': 'trades', 'weight': 0.5}}")
    check_names(owner, component, set(COMPONENT_KEYS))
    if not _is_weight(component.get("weight", 1.0)):
        raise InputError(f"weight in {owner} is {component['weight']!r}; expected a finite number of 0 or more")
    build_objective(component["objective"], component.get("parameters", {}))


def _is_weight(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _once(attack: InnerAttack) -> InnerAttack:
    """The attack, run at the first call; later calls, on the same batch, return the same points."""
    found: list[Tensor] = []

    def attack_once(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        if not found:
            found.append(attack(model, images, labels))
        return found[0]

    return attack_once
