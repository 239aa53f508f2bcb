"""The table of claims: what is recorded, what Holm's method makes of it, and the README's narrow view."""

from __future__ import annotations

import math
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


def test_readme_block_is_rewritten_and_shows_one_number_with_its_interval(home: Path) -> None:
    readme = home / "README.md"
    readme.write_text(f"# Title\n{claims.START}\nyesterday\n{claims.END}\nrest\n")
    claims.record("quick", "C1", judgement(), notebook="23_conversion")
    claims.record("quick", "C2", judgement("not testable", p=math.nan), notebook="23_conversion")
    claims.publish("quick", {"23"})
    assert claims.main(["--readme", str(readme), "--profile", "quick"]) == 0
    text = readme.read_text()
    assert text.startswith(f"# Title\n{claims.START}\n| claim | verdict |") and "yesterday" not in text
    assert text.endswith(f"|\n{claims.END}\nrest\n")
    (line,) = [line for line in text.splitlines() if line.startswith("| C1: ")]
    assert line.endswith("up to 2× | **reproduced** | 6.23 [4.1, 8.4] points | 23 |")
    assert "| L8: The effect holds on event data | **not run yet** |  |  |" in text
    assert all(line.count("|") == 5 for line in text.splitlines() if line.startswith("|"))


@pytest.mark.parametrize(
    "text", ["no marks", f"{claims.END} {claims.START}", f"{claims.START} {claims.START} {claims.END}"]
)
def test_exit_code_2_and_readme_untouched_when_marks_are_wrong(
    home: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "README.md").write_text(text)
    assert claims.main(["--readme", str(home / "README.md")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert (home / "README.md").read_text() == text


def test_readme_shows_the_committed_verdicts() -> None:
    readme = paths.ROOT / "README.md"
    for needed in (readme, claims.published_path("quick")):
        if not needed.is_file():
            pytest.skip(f"{needed.name} does not exist yet")
    text = readme.read_text(encoding="utf-8")
    start, end = claims.verdict_block(text)
    assert text[start:end] == f"\n{claims.verdict_table_markdown('quick')}"
