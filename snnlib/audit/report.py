"""What an audit found: one finding per check, and the verdict that follows from them by a stated rule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from snnlib.errors import InputError
from snnlib.files import write_atomic
from snnlib.optional import axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLEAN, NOTE, SUSPICIOUS, MASKED, NOT_DONE = "no", "note", "suspicious", "masked", "not done"
OUTCOMES = (CLEAN, NOTE, SUSPICIOUS, MASKED, NOT_DONE)
NO_SIGN, INCONCLUSIVE = "no sign of masking", "inconclusive"
VERDICTS = (NO_SIGN, SUSPICIOUS, MASKED, INCONCLUSIVE)
REQUIRED = (
    "zero_gradients",
    "gradient_in_eval",
    "many_steps_against_one",
    "noise_against_fgsm",
    "unbounded_eps",
    "square_beats_white_box",
)
"""Checks without which "no sign of masking" is not said; they need nothing but `images -> logits`."""
FEWEST_CORRECT = 20
"""Correctly classified images below which no sign means nothing: one of them is then worth 5 points or more."""
FORMAT = 1


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    name: the check's. measured: one line. numbers: what came out (shares are 0..1). rule: when it counts, in words.
    outcome: one of `OUTCOMES`. "masked": a gradient attack missed what lies in the same ball, or has nothing to follow.
    "suspicious": a sign of that, or a weaker form. "note": worth knowing, says nothing about masking.
    remark: what follows from a flag; for "not done", why.
    """

    name: str
    measured: str
    numbers: dict[str, float]
    rule: str
    outcome: str
    remark: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise InputError(f"outcome is {self.outcome!r}; expected one of {', '.join(OUTCOMES)}")

    @property
    def flag(self) -> str:
        """ "yes", "no" or "could not be done"."""
        return {CLEAN: "no", NOT_DONE: "could not be done"}.get(self.outcome, "yes")


@dataclass(frozen=True)
class AttackLine:
    """One attack of the audit, in the order in which they ran.

    tried: correct images it ran on. fooled: of those. same_ball: within the audit's budget. left: correct images that
    stand after it and all earlier ones in the same ball. forwards, backwards: passes, each counted once per image.
    """

    label: str
    tried: int
    fooled: int
    same_ball: bool
    left: int
    forwards: int
    backwards: int


@dataclass(frozen=True, repr=False)
class AuditReport:
    """Everything an audit found out; plain numbers, so that equal audits are equal reports.

    images, correct: how many were given, and classified correctly without attack. own_robust: images left by PGD with
    the model's own gradient. robust: images left by every attack of the audit in the same ball. curves: numbers for
    figures. effort: sizes of the attacks. model: the name in its configuration, else its class.
    """

    model: str
    eps: float
    norm: str
    images: int
    correct: int
    own_robust: int
    robust: int
    effort: dict
    seed: int
    findings: tuple[Finding, ...]
    attacks: tuple[AttackLine, ...]
    curves: dict[str, list] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """See `judge`."""
        return judge(self.findings, self.correct)

    @property
    def flagged(self) -> tuple[Finding, ...]:
        """The findings on which the verdict rests."""
        return tuple(found for found in self.findings if found.outcome in (SUSPICIOUS, MASKED))

    @property
    def forwards(self) -> int:
        return sum(line.forwards for line in self.attacks)

    @property
    def backwards(self) -> int:
        return sum(line.backwards for line in self.attacks)

    def finding(self, name: str) -> Finding:
        """The finding of the check called `name`. Errors: InputError for another name."""
        for found in self.findings:
            if found.name == name:
                return found
        raise InputError(f"check is {name!r}; expected one of {', '.join(found.name for found in self.findings)}")

    def summary(self) -> str:
        """One line: the verdict with its numbers."""
        counts = (self.correct, self.own_robust, self.robust)
        clean, own, worst = (f"{100 * count / self.images:.1f} %" for count in counts)
        return (
            f"{self.verdict}: clean {clean}, after PGD with the model's own gradient {own}, "
            f"after all attacks {worst} (eps {255 * self.eps:g}/255, {self.norm}, {self.images} images)"
        )

    def __str__(self) -> str:
        # Only here, as in `save`: the reading needs the checks, which need this module.
        from snnlib.audit.reading import as_text

        return as_text(self)

    __repr__ = __str__

    def table(self) -> pd.DataFrame:
        """A row for each check: check, outcome (see `Finding`), rule, remark, and its numbers as text."""
        return pd.DataFrame(
            {
                "check": found.name,
                "outcome": found.outcome,
                "numbers": ", ".join(f"{name} {value:.4g}" for name, value in found.numbers.items()),
                "rule": found.rule,
                "remark": found.remark,
            }
            for found in self.findings
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """What is left after each attack in turn, in percent of all images; the first picture of the page.

        ax: to draw into; None makes a figure. Errors: InputError where matplotlib is missing.
        """
        # Only here, as in `save`.
        from snnlib.audit.pictures import attack_ladder

        ax = axes_for(ax)
        attack_ladder(ax, self)
        return ax

    def save(self, path: str | Path) -> Path:
        """Write the page (a name that ends in .html, with figures; extra `report`) or the numbers (.json).

        Errors: InputError for another ending, before anything is written.
        """
        path = Path(path).expanduser()
        if path.suffix == ".json":
            return write_atomic(path, self.to_json())
        if path.suffix not in (".html", ".htm"):
            raise InputError(f"report.save got {str(path)!r}; expected a name that ends in .html or .json")
        # Only here: the page draws figures, which an audit can do without.
        from snnlib.audit.page import audit_page

        return write_atomic(path, audit_page(self, f"Audit of {self.model}"))

    def to_dict(self) -> dict:
        """Plain types only; `from_dict` reads it back."""
        return {"format": FORMAT, "verdict": self.verdict, **asdict(self)}

    @classmethod
    def from_dict(cls, content: dict) -> AuditReport:
        """Errors: InputError for anything but what `to_dict` gives."""
        try:
            if content["format"] != FORMAT:
                raise InputError(f"report has format {content['format']!r}; expected {FORMAT}; run the audit again")
            known = {name: value for name, value in content.items() if name not in ("format", "verdict")}
            findings = tuple(Finding(**each) for each in known.pop("findings"))
            attacks = tuple(AttackLine(**each) for each in known.pop("attacks"))
            return cls(findings=findings, attacks=attacks, **known)
        except (TypeError, KeyError) as error:
            raise InputError(f"this is no audit report ({error!r}); expected what AuditReport.to_dict gives") from None

    def to_json(self) -> str:
        """One JSON text; equal reports give equal bytes."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> AuditReport:
        """Errors: InputError for anything but what `to_json` gives."""
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"this is no audit report ({error}); expected the JSON of AuditReport.to_json") from None
        return cls.from_dict(content if isinstance(content, dict) else {})


def judge(findings: Sequence[Finding], correct: int) -> str:
    """The verdict on a model.

    "masked": a finding says so. "suspicious": none does, but one is suspicious. "no sign of masking": neither, every
    check of `REQUIRED` was done, and at least `FEWEST_CORRECT` images are classified correctly. Else "inconclusive".
    """
    outcomes = {found.name: found.outcome for found in findings}
    for worse in (MASKED, SUSPICIOUS):
        if worse in outcomes.values():
            return worse
    missing = [name for name in REQUIRED if outcomes.get(name, NOT_DONE) == NOT_DONE]
    return INCONCLUSIVE if missing or correct < FEWEST_CORRECT else NO_SIGN
