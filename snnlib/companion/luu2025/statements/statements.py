"""The list of statements, each with source, status, proof, assumptions, check and counter-example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from snnlib.companion.luu2025.statements import cases as fitting
from snnlib.companion.luu2025.statements import counterexamples as broken
from snnlib.companion.luu2025.statements import texts, texts_ours
from snnlib.companion.published import NOT_AVAILABLE
from snnlib.errors import InputError
from snnlib.theory.checks import (
    AFFINE_FRONT,
    BEHIND_NEURON,
    EXISTS,
    NO_BYPASS,
    NONZERO,
    POSITIVE_EPS,
    SMALL_EPS,
    CheckResult,
    check_circulation,
    check_constancy,
    check_definitions,
    check_density,
    check_ratio,
    check_remainder,
)
from snnlib.theory.lemmas import (
    ADDITION,
    FIXED_NORM,
    HALF_SPACE,
    INDEPENDENT,
    MAX_POOL,
    NO_OVERLAP,
    POISSON,
    SAME_DENSITY,
    SMOOTH,
    UNIFORM_IN_BALL,
    check_gaussian,
    check_l2_ratio,
    check_poisson,
    check_pool,
    check_pool_pair,
    check_progress,
    check_residual,
    check_thinning,
)

PUBLISHED, RECONSTRUCTED, OURS = "as published", "reconstructed", "ours"
STATUSES = {
    PUBLISHED: "the statement is in print as it stands here; the proof is written anew",
    RECONSTRUCTED: "the paper has something by this name that we could not read; our best reading, and our proof",
    OURS: "stated and proved here",
    NOT_AVAILABLE: "the paper has something by this name, of which we know no more than that",
}
LUU, LIU, COHEN = "Luu et al. 2025", "Liu et al. 2024", "Cohen et al. 2019"


@dataclass(frozen=True)
class Statement:
    """One definition, theorem or lemma, with everything that a doubting reader asks for.

    latex, proof, example: Markdown with LaTeX. assumptions: names as they appear in the findings of `check`. check:
    takes a case (see its own signature) and returns a `CheckResult`. case: runs it where all assumptions hold.
    counterexample: runs it where one is broken, so that the result names it.
    """

    id: str
    title: str
    status: str
    source: str
    latex: str
    proof: str
    example: str
    assumptions: tuple[str, ...]
    check: Callable[..., CheckResult]
    case: Callable[[], CheckResult]
    counterexample: Callable[[], CheckResult]

    @property
    def label(self) -> str:
        """Id and status, for the title of a picture."""
        return f"{self.id} [{self.status}]"

    @property
    def heading(self) -> str:
        """Id, title and status, for tables and headings."""
        return f"{self.id} · {self.title} [{self.status}]"

    def __repr__(self) -> str:
        return self.heading

    def _repr_markdown_(self) -> str:
        needs = "; ".join(self.assumptions) or "none beyond the definitions"
        return (
            f"**{self.heading}**  \n*Source: {self.source}.*\n\n{self.latex.strip()}\n\n*Assumes:* {needs}.\n\n"
            f"*Proof.* {self.proof.strip()} ∎\n\n*Where it breaks.* {self.example.strip()}"
        )


def _of(text: dict[str, str], *rest) -> Statement:
    names = ("status", "source", "assumptions", "check", "case", "counterexample")
    return Statement(**text, **dict(zip(names, rest, strict=True)))


_LIST = (
    _of(
        texts.A1,
        RECONSTRUCTED,
        f"{LUU}, A.1 (name known); {LIU}",
        (),
        check_definitions,
        fitting.definitions,
        broken.clipped_noise,
    ),
    _of(
        texts.A2,
        RECONSTRUCTED,
        f"{LUU}, A.2 (name known); {LIU}",
        (),
        check_definitions,
        fitting.definitions,
        broken.one_sided,
    ),
    _of(
        texts.T41,
        RECONSTRUCTED,
        f"{LUU}, theorem 4.1 = A.1 (opening words known); {LIU}, abstract",
        (POSITIVE_EPS, NONZERO, EXISTS, SMALL_EPS),
        check_ratio,
        fitting.small_eps,
        broken.saturated,
    ),
    _of(
        texts.T42,
        RECONSTRUCTED,
        f"{LUU}, theorem 4.2 (topic known)",
        (INDEPENDENT,),
        check_thinning,
        fitting.independent_zeros,
        broken.chosen_zeros,
    ),
    _of(
        texts.T43,
        RECONSTRUCTED,
        f"{LUU}, theorem 4.3 (topic known)",
        (BEHIND_NEURON,),
        check_density,
        fitting.dense_layers,
        broken.shortcut_behind_layer,
    ),
    _of(
        texts.T44,
        RECONSTRUCTED,
        f"{LUU}, theorem 4.4 (only that it exists, with a proof; its topic is our guess)",
        (SMOOTH, SAME_DENSITY, FIXED_NORM),
        check_progress,
        fitting.smooth_risk,
        broken.thinned_input,
    ),
    _of(
        texts_ours.P1,
        OURS,
        f"beside figs. 3 and 5 of {LUU}",
        (MAX_POOL,),
        check_pool,
        fitting.max_pool,
        broken.average_pool,
    ),
    _of(
        texts_ours.P2,
        OURS,
        f"beside figs. 3 and 5 of {LUU}",
        (ADDITION,),
        check_residual,
        fitting.added_shortcut,
        broken.gated_block,
    ),
    _of(
        texts_ours.P3,
        OURS,
        "against theorem 4.1",
        (NO_OVERLAP,),
        check_pool_pair,
        fitting.separate_windows,
        broken.overlapping_windows,
    ),
    _of(
        texts_ours.P4,
        OURS,
        "against theorem 4.1",
        (AFFINE_FRONT, NO_BYPASS),
        check_constancy,
        fitting.still_spikes,
        broken.shortcut_around_neurons,
    ),
    _of(
        texts_ours.O1,
        OURS,
        "theorem 4.1 at finite eps",
        (POSITIVE_EPS, EXISTS),
        check_remainder,
        fitting.finite_eps,
        broken.hard_step,
    ),
    _of(
        texts_ours.O2,
        OURS,
        "beside theorem 4.1",
        (POSITIVE_EPS, EXISTS),
        check_remainder,
        fitting.finite_eps,
        broken.count_without_size,
    ),
    _of(texts_ours.O3, OURS, "beside theorem 4.3", (), check_density, fitting.supports, broken.coupled_samples),
    _of(
        texts_ours.O4,
        OURS,
        "beside theorem 4.1",
        (UNIFORM_IN_BALL,),
        check_l2_ratio,
        fitting.sparse_in_l2,
        broken.noise_on_sphere,
    ),
    _of(
        texts_ours.O5,
        OURS,
        "against theorem 4.1",
        (POSITIVE_EPS, EXISTS),
        check_circulation,
        fitting.closed_field,
        broken.no_potential,
    ),
    _of(
        texts_ours.O6,
        OURS,
        "Poisson coding as smoothing",
        (POISSON,),
        check_poisson,
        fitting.poisson_code,
        broken.gain_before_code,
    ),
    _of(
        texts_ours.C1,
        PUBLISHED,
        f"{COHEN}, theorem 1",
        (HALF_SPACE,),
        check_gaussian,
        fitting.half_space,
        broken.bent_boundary,
    ),
)
STATEMENTS: dict[str, Statement] = {statement.id: statement for statement in _LIST}
"""All statements by id, in the order of the notebook."""
MISSING = {f"Theorem A.{number}": f"{LUU}, appendix (the numbering is inferred from counts)" for number in (2, 3, 4)}
"""Theorems of the paper that we could not read and do not stand in for, with what is known of them. A.1 is 4.1."""


def statement(name: str) -> Statement:
    """The statement with this id. Errors: InputError for an unknown one, or one that is not available to us."""
    if name in MISSING:
        raise InputError(f"statement is {name!r}, which is {NOT_AVAILABLE}; expected one of {', '.join(STATEMENTS)}")
    if name not in STATEMENTS:
        raise InputError(f"statement is {name!r}; expected one of {', '.join(STATEMENTS)}")
    return STATEMENTS[name]


def overview() -> pd.DataFrame:
    """One row per statement: id, title, status, source, assumptions; the missing theorems at the end, with dashes."""
    known = [
        (each.id, each.title, each.status, each.source, "; ".join(each.assumptions) or "-")
        for each in STATEMENTS.values()
    ]
    missing = [(name, "-", NOT_AVAILABLE, source, "-") for name, source in MISSING.items()]
    return pd.DataFrame(known + missing, columns=["id", "title", "status", "source", "assumptions"])


def run_cases() -> pd.DataFrame:
    """Every statement on a small case that fits its assumptions, and on one that breaks one. One row per statement."""
    rows = []
    for each in STATEMENTS.values():
        fits, breaks = each.case(), each.counterexample()
        rows.append(
            {
                "statement": each.heading,
                "where it fits": fits.verdict,
                "broken": breaks.failed[0],
                "there": breaks.evidence or breaks.verdict,
                "conclusion": {True: "still holds", False: "fails", None: "undefined"}[breaks.conclusion],
            }
        )
    return pd.DataFrame(rows)
