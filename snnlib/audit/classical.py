"""The six classical signs of obfuscated gradients, for any `images -> logits` module.

**Source:** the warnings of AutoAttack (Croce & Hein 2020; their checks and flags page). Where they warn at the first
sample, we state shares and grade them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.attacks.entrance import SAME_LOGITS, equal_draws, is_repeatable, same_values
from snnlib.attacks.prepared import prepared
from snnlib.attacks.square import square
from snnlib.audit.case import GRADES, Case, CouldNotDo
from snnlib.audit.report import CLEAN, NOTE, SUSPICIOUS, Finding

SURE_SHARE = 0.05
"""Share of correct images with a softmax that rounds to one, from which the output range counts."""
FEWEST_CLASSES = 4


def randomised_output(case: Case) -> Finding:
    """Do two passes of the same images give the same logits? Later attacks average over draws if not."""
    first, scale = case.logits, case.logits.abs().amax().clamp_min(1e-30)
    again = [case.deployed(case.images) for _ in range(case.effort.draws - 1)]
    largest = max((float((other - first).abs().amax() / scale) for other in again), default=0.0)
    changed = torch.zeros(len(first), dtype=torch.bool, device=first.device)
    for other in again:
        changed |= other.argmax(1) != first.argmax(1)
    case.randomised = largest > SAME_LOGITS
    with prepared(case.model):
        known = not case.randomised or is_repeatable(case.model, case.images)
    return Finding(
        "randomised_output",
        f"{case.effort.draws} forward passes of the same images in eval mode",
        {"largest_difference": largest, "changed_predictions": float(changed.float().mean())},
        f"logits differ by more than {SAME_LOGITS:g} of the largest one (note), also from equal random numbers "
        "(suspicious)",
        CLEAN if not case.randomised else NOTE if known else SUSPICIOUS,
        "one draw per step misleads an attack: the attacks here average over draws"
        if known
        else "the source of the differences is unknown: if state is not reset between calls, this is no admissible "
        "classifier; reset it, or keep the random generator as an attribute",
    )


def batch_mates(case: Case) -> Finding:
    """Does an image get the same logits whoever shares its batch?"""
    if case.randomised:
        raise CouldNotDo("the logits are random: what changes them cannot be told")
    gaps, changed = [], []
    for x, before in zip(case.images.split(case.batch_size), case.logits.split(case.batch_size), strict=True):
        half = len(x) // 2
        for kept in (slice(half), slice(half, None)):
            other = 1 - x
            other[kept] = x[kept]
            after = case.deployed(other)
            gaps.append((after - before)[kept].abs().amax(1))
            changed.append((after.argmax(1) != before.argmax(1))[kept])
    gap, scale = torch.cat(gaps), case.logits.abs().amax().clamp_min(1e-30)
    dependent = float((gap > SAME_LOGITS * scale).float().mean())
    return Finding(
        "batch_mates",
        "logits of half a batch while the other half is inverted",
        {"dependent": dependent, "changed_predictions": float(torch.cat(changed).float().mean())},
        f"logits differ by more than {SAME_LOGITS:g} of the largest one",
        SUSPICIOUS if dependent else CLEAN,
        "samples leave an attack, and so it attacks another function in every batch: normalise and quantise each image "
        "on its own",
    )


def output_range(case: Case) -> Finding:
    """Are these logits, and of a size at which the softmax still has a gradient?"""
    logits = case.logits[case.correct]
    labels = case.labels[case.correct]
    probabilities = _are_probabilities(case.logits)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    sure = float((losses == 0).float().mean()) if len(labels) else 0.0
    margins = -case.margins(case.images[case.correct], labels) if len(labels) else logits.new_zeros(1)
    return Finding(
        "output_range",
        "logits of the clean images",
        {
            "smallest": float(case.logits.amin()),
            "largest": float(case.logits.amax()),
            "median_margin": float(margins.median()),
            "sure_share": sure,
            "probabilities": int(probabilities),
        },
        f"outputs are probabilities, or the softmax of at least {SURE_SHARE:.0%} of the correct images rounds to one",
        SUSPICIOUS if probabilities or sure >= SURE_SHARE else CLEAN,
        "cross-entropy has little or no gradient there: attack the margin or DLR, or rescale the logits",
    )


def zero_gradients(case: Case) -> Finding:
    """Whose cross-entropy gradient, the one that FGSM and PGD follow, is exactly zero everywhere?"""
    silent = int((case.slopes["ce"] == 0).flatten(1).all(1).sum())
    return Finding(
        "zero_gradients",
        "gradient of the cross-entropy at the correct images, in eval mode",
        {"samples": silent, "share": case.share(silent)},
        f"samples without any gradient; {GRADES}",
        case.grade(silent),
        "FGSM and PGD cannot move these samples; nothing that they leave counts as robust",
    )


def square_beats_white_box(case: Case) -> Finding:
    """Does random search find what every gradient attack of this audit missed?"""
    standing = case.standing
    missed = int(case.run("square", square, on=standing, queries=case.effort.queries).sum())
    return Finding(
        "square_beats_white_box",
        f"Square, {case.effort.queries} queries, on what all gradient attacks left",
        {"left_by_gradients": len(standing), "found": missed, "share": case.share(missed)},
        f"samples found beyond all gradient attacks; {GRADES}",
        case.grade(missed),
        "the gradients are blind where a search without them is not",
    )


def optimisation_at_test_time(case: Case) -> Finding:
    """Does a forward pass in eval mode change the model's tensors, or take gradients of its own?"""
    used: list[str] = []
    sample = case.images[: case.batch_size]
    with prepared(case.model), torch.inference_mode(False), torch.no_grad(), _watched_graphs(used):
        # What a pass leaves behind of its batch is the same after two passes of it; what adapts goes on.
        with equal_draws(sample.device, case.model):
            case.model(sample)
        before = {name: value.detach().clone() for name, value in _tensors_of(case.model)}
        case.model(sample)
    changed = [n for n, value in _tensors_of(case.model) if n not in before or not same_values(value, before[n])]
    return Finding(
        "optimisation_at_test_time",
        "two forward passes of the same images in eval mode, with gradients switched off around them",
        {"changed_tensors": len(changed), "gradients_taken": int(bool(used))},
        "a parameter or buffer changes from one to the other, or a pass takes a gradient",
        SUSPICIOUS if changed or used else CLEAN,
        "the defence adapts to the attacked image" + (f"; changed: {', '.join(changed[:3])}" if changed else ""),
    )


def class_count(case: Case) -> Finding:
    """Are there enough classes for DLR and for targeted attacks?"""
    classes = case.logits.shape[1]
    return Finding(
        "class_count",
        "columns of the logits",
        {"classes": classes, "classes_seen": int(case.labels.unique().numel())},
        f"fewer than {FEWEST_CLASSES} classes",
        NOTE if classes < FEWEST_CLASSES else CLEAN,
        "DLR and the targeted attacks are not defined: compare margins instead",
    )


def _are_probabilities(outputs: Tensor) -> bool:
    inside = bool((outputs >= 0).all() and (outputs <= 1).all())
    return inside and bool(((outputs.sum(1) - 1).abs() < 1e-3).all())


def _tensors_of(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _watched_graphs(used: list[str]) -> torch.autograd.graph.saved_tensors_hooks:
    """Inside, `used` gains an entry whenever a backward pass reads a tensor that a graph has saved."""

    def read(saved: Tensor) -> Tensor:
        used.append("read")
        return saved

    return torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, read)
