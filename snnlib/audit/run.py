"""The audit: every check in order, each on what the earlier ones have measured."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.ensemble import MEMBERS
from snnlib.attacks.entrance import checked_once
from snnlib.attacks.inputs import check_count, check_inputs
from snnlib.attacks.prepared import ONE_AT_A_TIME, prepared
from snnlib.audit.case import Case, CouldNotDo, Effort
from snnlib.audit.classical import (
    batch_mates,
    class_count,
    optimisation_at_test_time,
    output_range,
    randomised_output,
    square_beats_white_box,
    zero_gradients,
)
from snnlib.audit.gains import (
    OWN,
    backward_rule_gain,
    draws_gain,
    encoder_gradient_gain,
    ensemble_gain,
    gains_together,
    loss_gain,
    pool_gradient_gain,
)
from snnlib.audit.report import NOT_DONE, AuditReport, Finding
from snnlib.audit.spiking import (
    Check,
    batch_norm_mode,
    gradient_in_eval,
    image_against_encoded,
    loss_surface,
    many_steps_against_one,
    noise_against_fgsm,
    noise_against_pgd,
    samples_without_gradient,
    unbounded_eps,
)
from snnlib.audit.unchanged import unchanged
from snnlib.errors import InputError
from snnlib.models.convolution import unsafe_convolutions
from snnlib.progress import progress

STRONGEST_MEMBERS = (
    "exponential(height=0.3, rate=2)",
    "exponential(height=1, rate=2)",
    "piecewise_linear(width=1, height=1)",
    "piecewise_linear(width=0.5, height=2)",
    "rectangular(width=1)",
    "straight_through(height=1)",
)
"""Of the 19 members those that the follow-up of Özdenizci & Legenstein 2024 finds strongest alone (its table A1), in
that order, and the straight-through one."""
EFFORTS = {
    "smoke": Effort(
        steps=3, queries=20, members=STRONGEST_MEMBERS[:2], restarts=2, grid=3, pictured=5, eps_factors=(1.0,)
    ),
    "brief": Effort(
        steps=10, queries=100, members=STRONGEST_MEMBERS[:2], restarts=2, grid=3, pictured=10, eps_factors=(1.0, 4.0)
    ),
    "quick": Effort(steps=20, queries=300, members=STRONGEST_MEMBERS, restarts=len(STRONGEST_MEMBERS)),
    "paper": Effort(steps=100, queries=5000, members=tuple(MEMBERS), restarts=len(MEMBERS), grid=21),
}
CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        randomised_output,
        batch_mates,
        class_count,
        output_range,
        optimisation_at_test_time,
        gradient_in_eval,
        zero_gradients,
        samples_without_gradient,
        noise_against_fgsm,
        many_steps_against_one,
        noise_against_pgd,
        unbounded_eps,
        loss_surface,
        draws_gain,
        loss_gain,
        ensemble_gain,
        backward_rule_gain,
        pool_gradient_gain,
        encoder_gradient_gain,
        gains_together,
        batch_norm_mode,
        image_against_encoded,
        square_beats_white_box,
    )
}


def audit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    effort: str | Effort = "quick",
    generator: torch.Generator | None = None,
    batch_size: int = 100,
) -> AuditReport:
    """Look for every sign that the robustness of `model` is an attacker's blindness. The model comes back as it was.

    images: [N, C, H, W] in [0, 1], on the model's device. labels: [N] class numbers. budget: "linf" or "l2" on images.
    effort: a key of `EFFORTS`, or one of your own. generator: gives the seed of all noise.
    Any `images -> logits` module will do, of whatever framework, as long as it resets its own state between calls;
    TorchScript too. A check that a model does not allow says so in the report; a model without gradient is a finding,
    no error.
    Errors: InputError, before any attack, for inputs that do not fit, for a model that `entrance` refuses (broken
    tensors, a state that is left from call to call), and for logits that are not finite. Warns of layers that a CPU may
    train wrongly (`snnlib.models.unsafe_convolutions`); the audit takes gradients of images alone, which are right.

    >>> import torch
    >>> from snnlib import attacks, audit
    >>> generator = torch.Generator().manual_seed(0)
    >>> images, model = torch.rand(40, 3, 4, 4, generator=generator), torch.nn.Flatten()  # the largest pixel wins
    >>> report = audit.audit(model, images, model(images).argmax(1), attacks.Budget(8 / 255), effort="smoke")
    >>> report.verdict, report.correct, len(report.findings) == len(audit.CHECKS)
    ('no sign of masking', 40, True)
    >>> print(report.finding("gradient_in_eval").measured.split(";")[0])
    a gradient of the margin exists in eval mode: yes
    """
    size = _effort(effort)
    check_inputs(model, images, labels, budget, generator)
    batch_size = check_count("batch_size", batch_size)
    if budget.space != "image" or budget.norm not in ("linf", "l2"):
        raise InputError(
            f"budget is {budget}; expected 'linf' or 'l2' on images: the code is attacked in one of the checks"
        )
    _warn_of_training(model)
    seed = 0 if generator is None else generator.initial_seed()
    cuda = [images.device] if images.device.type == "cuda" else []
    with ONE_AT_A_TIME, unchanged(model), torch.random.fork_rng(devices=cuda), _checked(model, images):
        torch.manual_seed(seed)
        case = Case(model, images, labels, budget, size, seed, batch_size)
        _ = case.logits  # refuses what cannot be audited before any check runs
        findings = tuple(_outcomes(case))
        own = case.left_by(OWN) if OWN in case.fooled else case.correct
        return AuditReport(
            model=_name_of(model),
            eps=budget.eps,
            norm=budget.norm,
            images=len(images),
            correct=len(case.correct),
            own_robust=len(own),
            robust=len(case.standing),
            effort=_plain(asdict(size)),
            seed=seed,
            findings=findings,
            attacks=tuple(case.lines.values()),
            curves=case.curves,
        )


def _warn_of_training(model: nn.Module) -> None:
    if unsafe := unsafe_convolutions(model):
        warnings.warn(
            f"{len(unsafe)} of the model's convolutions ({unsafe[0]}) get wrong weight gradients on a CPU, or crash "
            "it, where they run channels-last; the audit is not affected, training is: see models.unsafe_convolutions",
            stacklevel=3,
        )


@contextmanager
def _checked(model: nn.Module, images: Tensor) -> Iterator[None]:
    with ExitStack() as on_exit:
        with prepared(model):
            on_exit.enter_context(checked_once(model, images))
        yield


def _effort(effort: str | Effort) -> Effort:
    if isinstance(effort, Effort):
        return effort
    if effort not in EFFORTS:
        raise InputError(f"effort is {effort!r}; expected one of {', '.join(EFFORTS)}, or an Effort of your own")
    return EFFORTS[effort]


def _outcomes(case: Case) -> Iterator[Finding]:
    """The finding of every check in order, with a bar that names the one at work."""
    bar = progress(CHECKS.items(), label="audit")
    for name, check in bar:
        bar.set_postfix_str(name.replace("_", " "))
        yield _outcome(check, case)


def _outcome(check: Check, case: Case) -> Finding:
    """The finding of one check, or the reason why the model does not allow it."""
    try:
        return check(case)
    except (CouldNotDo, InputError) as reason:
        known = "no gradient reaches the image" if not case.differentiable else str(reason)
        return Finding(check.__name__, (check.__doc__ or "").splitlines()[0], {}, "", NOT_DONE, known)


def _name_of(model: nn.Module) -> str:
    config = getattr(model, "config", None)
    if isinstance(config, dict) and "name" in config:
        return str(config["name"])
    return getattr(model, "original_name", None) or type(model).__name__  # TorchScript's


def _plain(values: dict) -> dict:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
