"""The signs of masking that spiking networks show, for any `images -> logits` module as far as it allows."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from snnlib.attacks.budget import Budget
from snnlib.attacks.noise import random_noise
from snnlib.attacks.prepared import prepared
from snnlib.attacks.single_step import fgsm
from snnlib.audit.case import GRADES, Case, CouldNotDo
from snnlib.audit.report import CLEAN, FEWEST_CORRECT, MASKED, NOTE, SUSPICIOUS, Finding

UPHILL_MASKED, UPHILL_SUSPICIOUS = 0.6, 0.8
"""Share of images whose loss rises more along the gradient than along noise of the same size; blindness gives ½."""
CODE_REMARKS = {
    "weaker": "robustness on the code says nothing about images",
    "stronger, exact": "the code has a budget of its own at every time step",
    "stronger": "the encoder may hide the image from the attacker",
}


def gradient_in_eval(case: Case) -> Finding:
    """Does a gradient reach the image while the network is in the mode in which it is deployed?"""
    present = {
        mode: 1 - case.share(int((slopes["margin"] == 0).flatten(1).all(1).sum()))
        for mode, slopes in (("eval", case.slopes), ("train", case.gradients(training=True)))
    }
    return Finding(
        "gradient_in_eval",
        f"a gradient of the margin exists in eval mode: {'yes' if present['eval'] else 'no'}; share of the correct "
        "images that it reaches, by mode (BatchNorm always in eval)",
        present,
        "none in eval mode (masked)",
        MASKED if len(case.correct) and present["eval"] == 0 else CLEAN,
        "a gradient attack on the deployed network has nothing to follow"
        + ("; in train mode there is one" if present["train"] > 0 else ""),
    )


def samples_without_gradient(case: Case) -> Finding:
    """Who has no gradient even of the margin, which no softmax can flatten? And how sparse is it elsewhere?"""
    slopes = case.slopes["margin"].flatten(1)
    silent = int((slopes == 0).all(1).sum())
    zero_entries = float((slopes == 0).double().mean(1).sum())
    return Finding(
        "samples_without_gradient",
        "gradient of the margin at the correct images, in eval mode",
        {"samples": silent, "share": case.share(silent), "zero_entries": case.share(zero_entries)},
        f"samples without any gradient; {GRADES}",
        case.grade(silent),
        "spikes, pools or the encoder cut the gradient: use another surrogate, or search without gradients",
    )


def many_steps_against_one(case: Case) -> Finding:
    """Is one step stronger than many from a random start?"""
    single, many = case.run("FGSM", fgsm), case.pgd("PGD")
    lead = int(single.sum()) - int(many.sum())
    return Finding(
        "many_steps_against_one",
        f"images fooled by FGSM and by one run of PGD with {case.effort.steps} steps",
        {"fgsm": int(single.sum()), "pgd": int(many.sum()), "only_fgsm": case.beyond(single, many)},
        f"lead of FGSM; {GRADES}",
        case.grade(lead),
        "small steps lose their way: the loss surface misleads a gradient attack",
    )


def noise_against_fgsm(case: Case) -> Finding:
    """Is uniform noise stronger than a gradient step of the same size?"""
    noise, single = case.run("noise", random_noise), case.run("FGSM", fgsm)
    lead = int(noise.sum()) - int(single.sum())
    return Finding(
        "noise_against_fgsm",
        "images fooled by one draw of noise and by FGSM",
        {"noise": int(noise.sum()), "fgsm": int(single.sum()), "only_noise": case.beyond(noise, single)},
        f"lead of noise; {GRADES}",
        case.grade(lead),
        "the gradient points nowhere",
    )


def noise_against_pgd(case: Case) -> Finding:
    """Is uniform noise, tried at as many points as PGD visits, stronger than PGD?"""
    if case.randomised:
        raise CouldNotDo("a random model falls to one lucky draw of many, whatever the noise")
    draws = case.effort.steps + 1
    noise, many = case.run(f"noise, {draws} draws", random_noise, draws=draws), case.pgd("PGD")
    lead, outcome = case.grade_gain(noise, many)
    return Finding(
        "noise_against_pgd",
        f"images fooled by the best of {draws} draws of noise and by PGD with {case.effort.steps} steps",
        {"noise": int(noise.sum()), "pgd": int(many.sum()), "only_noise": case.beyond(noise, many)},
        f"lead of noise, where its 95 % interval excludes none; {GRADES}",
        outcome,
        "following the gradient is worse than guessing",
    )


def unbounded_eps(case: Case) -> Finding:
    """Does PGD fool every image when it may change it into any other?"""
    pixels = case.images[0].numel()
    largest = 1.0 if case.budget.norm == "linf" else math.sqrt(pixels)
    curve, inside = [{"eps": 0.0, "robust_accuracy": case.share(len(case.correct))}], []
    for eps in sorted({min(case.budget.eps * factor, largest) for factor in case.effort.eps_factors}):
        inside.append("PGD" if eps == case.budget.eps else f"PGD at eps {eps:.4g}")
        found = case.pgd(inside[-1], budget=case.at_eps(eps))
        curve.append({"eps": eps, "robust_accuracy": 1 - case.share(int(found.sum()))})
    label = f"PGD at eps {largest:.4g}, unbounded"
    case.pgd(label, budget=case.at_eps(largest))
    left = len(case.left_by(label, *inside))  # a smaller ball lies in the largest
    case.curves["eps"] = curve
    return Finding(
        "unbounded_eps",
        f"PGD with eps = {largest:.4g}, at which the ball holds every image, and in the smaller balls inside it",
        {"left": left, "share": case.share(left)},
        f"samples that survive; {GRADES}",
        case.grade(left),
        "an attack that may turn an image into any other and fails is blind",
    )


def loss_surface(case: Case) -> Finding:
    """Does the loss rise along the gradient, more than along noise of the same size?"""
    x, labels = case.images[case.correct], case.labels[case.correct]
    if not len(x):
        raise CouldNotDo("no image is classified correctly")
    start, along, beside = case.ends
    uphill, sideways = case.ways
    tiny = case.margins((x + 0.01 * case.budget.eps * uphill).clamp(0, 1), labels)
    case.curves["surface"] = _surface(case, x, labels, uphill, sideways)
    moving = case.moving
    if not moving.any():
        raise CouldNotDo("the margin is the same all over this ball, and nothing can hide there; choose a larger eps")
    higher = float((along > beside)[moving].double().mean() + 0.5 * (along == beside)[moving].double().mean())
    outcome = MASKED if higher < UPHILL_MASKED else SUSPICIOUS if higher < UPHILL_SUSPICIOUS else CLEAN
    if int(moving.sum()) < FEWEST_CORRECT and outcome != CLEAN:
        outcome = NOTE
    return Finding(
        "loss_surface",
        "margin at eps along the gradient and along noise, mean over the correct images",
        {
            "higher_than_noise": higher,
            "moving": float(moving.double().mean()),
            "rise_along_gradient": float((along - start).mean()),
            "rise_along_noise": float((beside - start).mean()),
            "unchanged_at_eps_100": float((tiny == start).double().mean()),
        },
        f"higher along the gradient on fewer than {UPHILL_SUSPICIOUS:.0%} of the images whose margin moves at all "
        f"(suspicious), {UPHILL_MASKED:.0%} (masked), given {FEWEST_CORRECT} of them",
        outcome,
        "the gradient does not tell where the loss grows",
    )


def image_against_encoded(case: Case) -> Finding:
    """Does the same attack find as much on the image as on the code, each time step on its own: two threat models?"""
    if not (hasattr(case.model, "encoder") and hasattr(case.model, "body")):
        raise CouldNotDo("the model has no .encoder and .body apart")
    if case.budget.norm != "linf":
        raise CouldNotDo("a radius on the code compares with one on the image in 'linf' only")
    on_image = case.pgd("PGD")
    on_code = case.pgd("PGD on the code", budget=Budget(case.budget.eps, space="encoded"))
    left_image, left_code = (1 - case.share(int(found.sum())) for found in (on_image, on_code))
    exact = _repeats(case)
    seen = case.correct[case.moving]
    hidden = case.grade(int(on_code[seen].sum()) - int(on_image[seen].sum()))
    higher = NOTE if case.grade(int(on_image.sum()) - int(on_code.sum())) != CLEAN else CLEAN
    return Finding(
        "image_against_encoded",
        f"share of the correct images left by PGD at {255 * case.budget.eps:g}/255 on the image and on the code",
        {"image": left_image, "encoded": left_code},
        "the attack on the code, where no encoder stands in the way, finds more (suspicious) or fewer (note)",
        higher if hidden == CLEAN else NOTE if exact else SUSPICIOUS,
        CODE_REMARKS["weaker" if hidden == CLEAN else "stronger, exact" if exact else "stronger"],
    )


def _repeats(case: Case) -> bool:
    """Whether the code is one frame, the same at every time step: an attack on it then has a budget at each."""
    if "exact" in getattr(case.model.encoder, "gradients", ()):
        return True
    with torch.no_grad(), prepared(case.model):
        code = case.model.encoder(case.images[:1])
    return bool((code == code[:1]).all())


def batch_norm_mode(case: Case) -> Finding:
    """Does BatchNorm in train mode while attacking, as some codes have it, find what eval mode missed?"""
    if not any(isinstance(module, _BatchNorm) for module in case.model.modules()):
        raise CouldNotDo("the model has no BatchNorm")
    # What other attacks in eval mode find too is hidden by something else.
    in_eval, standing = case.pgd("PGD"), case.standing
    in_train = case.pgd("PGD, BatchNorm in train", batch_norm="train")
    beyond = int(in_train[standing].sum())
    overstated = int(in_eval.sum()) - int(in_train.sum())
    outcome = case.grade(beyond)
    if outcome == CLEAN and case.grade(overstated) != CLEAN:
        outcome = NOTE
    return Finding(
        "batch_norm_mode",
        "images fooled by PGD with BatchNorm in eval and in train mode, both scored in eval",
        {"eval": int(in_eval.sum()), "train": int(in_train.sum()), "only_train": beyond},
        f"samples found in train mode beyond every attack in eval mode; {GRADES}; fewer than PGD in eval is a note",
        outcome,
        "an attack with batch statistics differentiates another function: attack in eval mode"
        if outcome == NOTE
        else "running statistics hide what batch statistics show",
    )


def _surface(case: Case, x: Tensor, labels: Tensor, uphill: Tensor, sideways: Tensor) -> list[dict[str, float]]:
    """Mean margin on a grid from −1 to 2 eps along the gradient and −1 to 1 eps along noise, for a figure."""
    chosen = slice(0, case.effort.pictured)
    x, labels, uphill, sideways = (values[chosen] for values in (x, labels, uphill, sideways))
    points = []
    for along in torch.linspace(-1, 2, case.effort.grid).tolist():
        for beside in torch.linspace(-1, 1, case.effort.grid).tolist():
            moved = (x + case.budget.eps * (along * uphill + beside * sideways)).clamp(0, 1)
            height = float(case.margins(moved, labels).mean())
            points.append({"along_gradient": along, "along_noise": beside, "margin": height})
    return points


Check = Callable[[Case], Finding]
