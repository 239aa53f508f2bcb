"""The table of claims: what is recorded, what Holm's method makes of it, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from snnlib.companion import paths
from snnlib.companion.report import claims
from snnlib.companion.verdicts.rules import Judgement
from snnlib.errors import InputError


def judgement(verdict: str = "reproduced", evidence: str = "93 % zeros", p: float = 0.01) -> Judgement:
    numbers = {"estimate": 6.23, "low": 4.1, "high": 8.4, "unit": "points", "would_count": "above 0"}
    return Judgement(verdict=verdict, evidence=evidence, seeds=(0, 1), samples=100, p=p, **numbers)


def test_all_claims_are_listed_in_order_when_one_is_recorded(home: Path) -> None:
    claims.record("smoke", "L3", judgement("not reproduced", "4.1 % left\nat 8/255"), notebook="12", source="fig. 2")
    text = claims.claims_path("smoke").read_text()
    assert text.startswith(
        "claim,statement,verdict,estimate,low,high,unit,would_count,evidence,seeds,samples,notebook,"
    )
    assert "\r" not in text
    table = pd.read_csv(claims.claims_path("smoke"), keep_default_na=False, dtype=str)
    first = ["L1", "L2", "L3", "L4", "L5", "L6a", "L6b", "L7", "L8"]
    assert table.claim.tolist() == [*first, *(f"C{i}" for i in range(1, 7)), "Q1a", "Q1b", "Q1c", "Q2", "Q3", "Q4"]
    assert table.verdict.tolist().count("not run yet") == 20
    line = table.set_index("claim").loc["L3"]
    assert (line.evidence, line.seeds, line.samples, line.source) == ("4.1 % left at 8/255", "0;1", "100", "fig. 2")
    assert (line.estimate, line.low, line.high, line.unit, line.would_count) == (
        "6.23",
        "4.1",
        "8.4",
        "points",
        "above 0",
    )


def test_what_is_ours_in_the_theory_says_so() -> None:
    assert all("of our reconstruction" in claims.CLAIMS[claim] for claim in ("L5", "L7"))


def test_other_verdicts_stay_and_bytes_repeat_when_recorded_again(home: Path) -> None:
    for _ in range(2):
        claims.record("smoke", "L1", judgement(p=0.01), notebook="13")
        claims.record("smoke", "L2", judgement("mixed", 'a, "b" | c'), notebook="13")
        contents = claims.claims_path("smoke").read_bytes()
    assert claims.claims_path("smoke").read_bytes() == contents
    assert claims.verdicts_of("smoke", "13") == {"L1": "p = 0.01: 93 % zeros", "L2": 'mixed: a, "b" | c'}


def test_a_claim_is_taken_back_and_given_again_as_the_others_of_its_paper_are_judged(home: Path) -> None:
    def verdict() -> str:
        return claims.read_claims("smoke").set_index("claim").verdict["C1"]

    claims.record("smoke", "C1", judgement(p=0.03), notebook="23")
    recorded = claims.verdicts_of("smoke", "23")
    claims.record("smoke", "L1", judgement(p=0.6), notebook="13")
    assert verdict() == "reproduced"
    claims.record("smoke", "C4", judgement("inconclusive at this size", p=0.6), notebook="22")
    assert verdict() == "inconclusive at this size"
    assert claims.read_claims("smoke").set_index("claim").p_holm["C1"] == "0.06"
    # What the notebook itself recorded is the same: it need not run again.
    assert claims.verdicts_of("smoke", "23") == recorded
    claims.forget_verdicts("smoke", "22")
    assert verdict() == "reproduced"


def test_only_its_own_verdicts_go_when_a_notebook_is_forgotten(home: Path) -> None:
    claims.record("smoke", "L1", judgement(), notebook="13_x")
    claims.record("smoke", "L3", judgement("mixed", "4 %"), notebook="12_x")
    claims.forget_verdicts("smoke", "13")
    table = claims.read_claims("smoke").set_index("claim")
    assert table.verdict["L1"] == "not run yet" and table.evidence["L1"] == "" and table.seeds["L1"] == ""
    assert table.statement["L1"] == claims.CLAIMS["L1"]
    assert table.verdict["L3"] == "mixed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("smoke", "L9", judgement()), "unknown claim 'L9'"),
        (("smoke", "L1", judgement("proved")), "unknown verdict 'proved'"),
        (("smoke", "L1", judgement("mixed", " ")), "without evidence"),
        (("tiny", "L1", judgement()), "unknown profile 'tiny'"),
    ],
)
def test_one_line_error_when_record_is_wrong(home: Path, arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        claims.record(*arguments, notebook="12")
    assert not paths.FIGURES.exists()
