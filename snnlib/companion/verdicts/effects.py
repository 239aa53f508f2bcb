"""Per claim the smallest effect that counts, with its reason: fixed before the results at a size are looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass

SCALES = {"points": 100, "%": 100, "correlation": 1}


@dataclass(frozen=True)
class Effect:
    """What would count for a claim.

    kind: "gain" (the interval lies above 0), "level" (above `smallest`), "as good as" (above -`smallest`: the first
    of two one-sided tests decides, the second tells equal from better) or "at most" (a share, below `smallest`).
    smallest: of the unit of the rows (shares, not percent). seed_sd: how far two trainings of one recipe are taken to
    differ in this quantity (a standard deviation) before one looks; `rules.estimate` mixes it with what they do.
    least, most: values that the quantity can take; no interval goes beyond.
    """

    kind: str
    smallest: float
    unit: str
    seed_sd: float
    reason: str
    least: float = -math.inf
    most: float = math.inf

    @property
    def goal(self) -> float:
        """The claim is shown where the whole interval lies beyond it."""
        return {"gain": 0.0, "as good as": -self.smallest}.get(self.kind, self.smallest)

    @property
    def bar(self) -> float:
        """The claim is refuted where the whole interval falls short of it."""
        return -self.smallest if self.kind == "as good as" else self.smallest

    @property
    def sign(self) -> int:
        """-1 where less is claimed."""
        return -1 if self.kind == "at most" else 1

    def number(self, value: float) -> str:
        """`value` in the unit shown, without it."""
        digits = {"correlation": ".2f", "points": "+.1f"}.get(self.unit, ".3g")
        return f"{SCALES[self.unit] * value:{digits}}"

    def would_count(self) -> str:
        """In words, for tables."""
        side = "below" if self.sign < 0 else "above"
        goal, bar = (f"{SCALES[self.unit] * value:.3g}" for value in (self.goal, self.bar))
        against = f"; against it: all below {bar}" if self.kind == "gain" else ""
        return f"95 % interval {side} {goal} {self.unit}{against}"


def _points(kind: str, smallest: float, seed_sd: float, reason: str) -> Effect:
    return Effect(kind, smallest / 100, "points", seed_sd / 100, reason)


EFFECTS = {
    "L1": Effect("level", 0.25, "%", 0.02, "the paper names no share; under a quarter of zeros is not sparse", 0, 1),
    "L2": Effect("level", 0.5, "%", 0.05, "'most' of the zeros is more than half of them", most=1),
    "L3": _points("as good as", 5, 1, "a third of the least that the defended network has to keep"),
    "L4": _points("gain", 5, 1, "half of the floor of robust accuracy, so that there is room for it"),
    "L4 clean": _points("gain", 3, 0.5, "above what another training of the same network gives"),
    "L5": Effect("at most", 0.05, "%", 0.0, "a theorem may fail on rounding, not on more than one sample in twenty"),
    "L6a": Effect("gain", 0.3, "correlation", 0.05, "below 0.3 the count explains less than a tenth of the ranks"),
    "L6b": _points("gain", 5, 1, "as L4: a cause worth the name moves what it causes by half of the floor"),
    "L7": Effect("at most", 0.01, "%", 0.0, "a bound holds for every gradient; one in a hundred is left to rounding"),
    "C1": _points("gain", 5, 1, "half of the floor; the claim speaks of up to twice the rival's robustness"),
    "C2": _points("as good as", 1, 0.25, "'within about a point' is the claim's own number"),
    "C3": _points("gain", 5, 1, "as C1, for each objective"),
    "C4": Effect("level", 0.1, "%", 0.02, "the under half of the published share (25-29 %)", 0, 1),
    "C5": _points("gain", 5, 1, "as C1: 'matters' is held against half of the floor"),
    "C6": _points("as good as", 5, 1, "what is kept may cost less than what would matter (C5)"),
    "Q1a": _points("gain", 2, 0.25, "one network, two attacks: trainings cancel, so that less than C1 can count"),
    "Q1b": _points("gain", 2, 0.25, "as Q1a"),
    "Q1c": _points("as good as", 2, 0.25, "what Q1a counts as stronger may not be missing on the other side"),
    "Q2": Effect("at most", 0.002, "%", 0.0, "the flag of AutoAttack (Croce & Hein 2020): 0.2 points"),
    "Q3": _points("gain", 5, 1, "as C3"),
    "Q4": _points("gain", 5, 1, "as C1, at no more passes"),
}
