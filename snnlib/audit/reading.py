"""How a report is read: what each check found, then whether that is a sign of masking, and why the verdict is as it is.
"""

from __future__ import annotations

from snnlib.audit.report import (
    CLEAN,
    FEWEST_CORRECT,
    INCONCLUSIVE,
    MASKED,
    NOT_DONE,
    NOTE,
    REQUIRED,
    SUSPICIOUS,
    AuditReport,
    Finding,
)
from snnlib.audit.run import CHECKS

MEANING = {
    "no sign of masking": "None of the checks found a sign that this model's gradients mislead an attacker.",
    "suspicious": "Something may hide adversarial examples from a gradient attack.",
    "masked": "Gradient attacks miss adversarial examples of this model: what they leave is not robustness.",
    "inconclusive": "There is too little to go by.",
}
SIGNS = {
    CLEAN: "no sign of masking",
    NOTE: "worth knowing, no sign of masking",
    SUSPICIOUS: "a sign of masking",
    MASKED: "masked",
    NOT_DONE: "could not be done",
}


def question(found: Finding) -> str:
    """What the check asks, in a sentence."""
    check = CHECKS.get(found.name)
    return (check.__doc__ or "").splitlines()[0] if check else f"{title(found.name)}?"


def title(name: str) -> str:
    """The name of a check in words."""
    return name.replace("_", " ")


def what_was_found(found: Finding) -> str:
    """The check's numbers by name, and what they count; "" where it could not be done."""
    if found.outcome == NOT_DONE:
        return ""
    numbers = ", ".join(f"{title(name)} {value:.4g}" for name, value in found.numbers.items())
    return f"{found.measured}: {numbers}" if numbers else found.measured


def what_it_says(found: Finding) -> str:
    """Whether that is a sign of masking, and what follows from it."""
    said = SIGNS[found.outcome]
    return said if found.outcome == CLEAN or not found.remark else f"{said}: {found.remark}"


def reasons(report: AuditReport) -> list[str]:
    """What the verdict rests on; empty where no sign was found."""
    if report.verdict != INCONCLUSIVE:
        return [f"{title(found.name)}: {found.remark}" for found in report.flagged]
    done = {found.name for found in report.findings if found.outcome != NOT_DONE}
    missing = [title(name) for name in REQUIRED if name not in done]
    found = []
    if report.correct < FEWEST_CORRECT:
        found.append(
            f"{report.correct} of {report.images} images are classified correctly; {FEWEST_CORRECT} are needed to say "
            "anything: give more images"
        )
    if missing:
        found.append(f"these checks decide and could not be done: {', '.join(missing)}")
    return found


def as_text(report: AuditReport) -> str:
    """The report for a terminal: two lines for each check, "!" where one is a sign of masking; the verdict last."""
    lines = [f"Audit of {report.model}: {report.verdict}", ""]
    for found in report.findings:
        said = "; ".join(part for part in (what_was_found(found), what_it_says(found)) if part)
        lines += [f"{'!' if found in report.flagged else ' '} {question(found)}", f"    {said}"]
    lines += ["", report.summary(), MEANING[report.verdict]]
    lines += [f"  because {reason}" for reason in reasons(report)]
    reach = f"{report.forwards:,} forward and {report.backwards:,} backward passes of an image"
    return "\n".join([*lines, f"cost: {reach}"])
