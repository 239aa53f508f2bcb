"""What other losses, surrogates, rules and encoders find beyond the model's own gradient, at equal numbers of runs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from snnlib.attacks.apgd import apgd
from snnlib.attacks.gradients import parse_gradient
from snnlib.attacks.projected_gradient import pgd
from snnlib.attacks.same_function import POOL_GRADIENTS, dense_pool_gradient
from snnlib.audit.case import GRADES, Case, CouldNotDo
from snnlib.audit.report import CLEAN, NOTE, Finding
from snnlib.encoding import Encoder, encoder_gradient
from snnlib.neurons import neurons_of

BACKWARD_RULES = ("backward_through_rate", "adaptive_sharpness", "rate_gradient", "hart", "potential_dependent")
OWN = "own gradient"
MORE_DRAWS = 4
SURE = 1e-6
"""Cross-entropy of a clean image below which its gradient is lost in float32, or close to it."""


def loss_gain(case: Case) -> Finding:
    """Do losses that no softmax can flatten find what cross-entropy missed?"""
    runs = {"PGD, margin": {"loss": "margin"}}
    if case.logits.shape[1] > 2:
        runs["APGD-DLR"] = {"attack": apgd, "loss": "dlr"}
    remark = "the softmax hides the way: report the worst case over these losses"
    found = _gain(case, "loss_gain", "PGD on the margin and APGD-DLR, on what cross-entropy left", runs, remark)
    losses = torch.nn.functional.cross_entropy(case.logits, case.labels, reduction="none")
    sure = int((losses < SURE)[case.correct].sum())
    numbers = {**found.numbers, "sure_share": case.share(sure)}
    if found.outcome == CLEAN or case.grade(sure) != CLEAN:
        return replace(found, numbers=numbers)
    # A loss may be the better one where nothing is hidden.
    remark = "cross-entropy is the weaker loss here: report the worst case over these losses"
    return replace(found, numbers=numbers, outcome=NOTE, remark=remark)


def ensemble_gain(case: Case) -> Finding:
    """Do other surrogates find what as many runs by the training surrogate missed?"""
    members = {name: parse_gradient(name) for name in case.effort.members}
    members = {name: gradient for name, gradient in members.items() if gradient.reaches(case.model)}
    if not members:
        raise CouldNotDo("no neuron of snnlib, snnTorch, SpikingJelly, Norse or sinabs that another surrogate reaches")
    return _gain(
        case,
        "ensemble_gain",
        f"PGD by {len(members)} gradients, on what {case.effort.restarts} runs by its own left",
        {f"PGD, {name}": {"gradient": gradient} for name, gradient in members.items()},
        "the training surrogate hides what others see: attack with the ensemble",
    )


def backward_rule_gain(case: Case) -> Finding:
    """Do other backward rules (BPTR, ASSG, RGA, HART, PDSG) find what the training surrogate missed?"""
    if not neurons_of(case.model):
        raise CouldNotDo("these rules stand in for the forward of snnlib's neurons, and the model has none")
    return _gain(
        case,
        "backward_rule_gain",
        "PGD by BPTR, ASSG, RGA, HART and PDSG, on what its own surrogate left",
        {f"PGD, {name}": {"gradient": parse_gradient(name)} for name in BACKWARD_RULES},
        "backpropagation through time hides what these see: attack with them too",
    )


def pool_gradient_gain(case: Case) -> Finding:
    """Does a dense gradient of the max pools, at the same maxima, find what the sparse one missed?"""
    if not any(isinstance(module, nn.MaxPool2d) for module in case.model.modules()):
        raise CouldNotDo("no nn.MaxPool2d layer in the model")
    return _gain(
        case,
        "pool_gradient_gain",
        "PGD with the max pool's gradient spread over its window, on what the sparse one left",
        {f"PGD, pool {kind}": {"around": dense_pool_gradient(case.model, kind)} for kind in POOL_GRADIENTS},
        "the max pool hides pixels from the attacker, not from the network",
    )


def encoder_gradient_gain(case: Case) -> Finding:
    """Do the encoder's other declared gradients find what its own one missed?"""
    encoders = [module for module in case.model.modules() if isinstance(module, Encoder)]
    if not encoders:
        raise CouldNotDo("no snnlib encoder in the model")
    others = [name for name in encoders[0].gradients if name not in (encoders[0].gradient, "none")]
    if not others:
        raise CouldNotDo(f"{type(encoders[0]).__name__} declares one gradient, {encoders[0].gradient!r}")
    return _gain(
        case,
        "encoder_gradient_gain",
        f"PGD with the encoder's gradient {' and '.join(others)}, on what {encoders[0].gradient!r} left",
        {f"PGD, encoder {name}": {"around": encoder_gradient(case.model, name)} for name in others},
        "the encoder hides the image from the attacker: attack through every stand-in",
    )


def draws_gain(case: Case) -> Finding:
    """Does an average over more draws find what one over fewer missed?"""
    if not case.randomised:
        raise CouldNotDo("the model is not random")
    fewer, more = case.effort.eot, MORE_DRAWS * case.effort.eot
    return _gain(
        case,
        "draws_gain",
        f"PGD over {more} draws, on what {fewer} left",
        {f"PGD, {more} draws": {"eot": more}},
        "the noise hides the way from an average over few draws: raise eot until success stops rising",
    )


def gains_together(case: Case) -> Finding:
    """Do all other gradients together find what as many runs by its own missed, each of them perhaps too little?"""
    others = [label for label in case.other_gradients if label in case.fooled]
    if len(others) < 2:
        raise CouldNotDo("no two other gradients have been tried")
    theirs = torch.stack([case.fooled[label] for label in others]).any(0)
    measured = f"PGD by {len(others)} other gradients, on what {case.effort.restarts} runs by its own left"
    return _compared(case, "gains_together", measured, theirs, len(others), "its own gradient hides what others see")


def own_gradient(case: Case) -> Tensor:
    """[N] bool: fooled by PGD with the model's own gradient, in as many runs as the ensemble has members."""
    if not case.differentiable:
        return case.nobody(OWN)
    return case.pgd(OWN, restarts=case.effort.restarts)


def _gain(case: Case, name: str, measured: str, runs: dict[str, dict], remark: str) -> Finding:
    """What these runs find beyond the model's own gradient, each on what the earlier ones left, and beyond what as many
    further runs by the own gradient find there: trying more often is no gain.

    runs: label -> options of `Case.run`; the attack is PGD unless given.
    """
    base = own_gradient(case)
    tried, found = [OWN], torch.zeros_like(base)
    for label, options in runs.items():
        found |= case.run(label, **{"attack": pgd, "steps": case.effort.steps, "on": case.left_by(*tried), **options})
        tried.append(label)
        if "loss" not in options:
            case.other_gradients.append(label)
    return _compared(case, name, measured, found, len(runs), remark)


def _compared(case: Case, name: str, measured: str, found: Tensor, runs: int, remark: str) -> Finding:
    base = case.fooled[OWN]
    again = case.again(OWN, runs) if case.differentiable else torch.zeros_like(base)
    gain, outcome = case.grade_gain(found & ~base, again)
    numbers = {
        "left_by_own_gradient": len(case.left_by(OWN)),
        "found": case.beyond(found, base),
        "found_by_as_many_own": case.beyond(again, base),
        "share": case.share(gain),
    }
    rule = f"samples found beyond as many further runs of its own, where the 95 % interval excludes none; {GRADES}"
    return Finding(name, measured, numbers, rule, outcome, remark)
