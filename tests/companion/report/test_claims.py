from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from snnlib.companion import paths
from snnlib.companion.report import claims, figures
from snnlib.errors import InputError


def test_all_claims_are_listed_in_order_when_one_is_recorded(home: Path) -> None:
    claims.record(
        "smoke", "L3", "not reproduced", "4.1 % left\nat 8/255", notebook="12", seeds=(0, 1), samples=100
    )
    text = claims.claims_path("smoke").read_text()
    assert text.startswith("claim,") and "\r" not in text
    table = pd.read_csv(claims.claims_path("smoke"), keep_default_na=False, dtype=str)
    assert table.claim.tolist() == [
        *(f"L{i}" for i in range(1, 9)),
        *(f"C{i}" for i in range(1, 7)),
        "Q1",
        "Q2",
        "Q3",
        "Q4",
    ]
    assert table.verdict.tolist().count("not run yet") == 17
    line = table.set_index("claim").loc["L3"]
    assert (line.evidence, line.seeds, line.samples) == ("4.1 % left at 8/255", "0;1", "100")


def test_other_verdicts_stay_and_bytes_repeat_when_recorded_again(home: Path) -> None:
    for _ in range(2):
        claims.record("smoke", "L1", "reproduced", "93 % zeros", notebook="13")
        claims.record("smoke", "L2", "mixed", 'a, "b" | c', notebook="13")
        contents = claims.claims_path("smoke").read_bytes()
    assert claims.claims_path("smoke").read_bytes() == contents
    assert claims.verdicts_of("smoke", "13") == {"L1": "reproduced: 93 % zeros", "L2": 'mixed: a, "b" | c'}


def test_only_its_own_verdicts_go_when_a_notebook_is_forgotten(home: Path) -> None:
    claims.record("smoke", "L1", "reproduced", "93 % zeros", notebook="13_x", seeds=(0,))
    claims.record("smoke", "L3", "mixed", "4 %", notebook="12_x")
    claims.forget_verdicts("smoke", "13")
    table = claims.read_claims("smoke").set_index("claim")
    assert table.verdict["L1"] == "not run yet" and table.evidence["L1"] == "" and table.seeds["L1"] == ""
    assert table.statement["L1"] == claims.CLAIMS["L1"]
    assert table.verdict["L3"] == "mixed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("smoke", "L9", "mixed", "x"), "unknown claim 'L9'"),
        (("smoke", "L1", "proved", "x"), "unknown verdict 'proved'"),
        (("smoke", "L1", "mixed", " "), "without evidence"),
        (("tiny", "L1", "mixed", "x"), "unknown profile 'tiny'"),
    ],
)
def test_one_line_error_when_record_is_wrong(home: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        claims.record(*arguments, notebook="12")
    assert not paths.FIGURES.exists()


def test_readme_block_is_rewritten_and_nothing_else(home: Path) -> None:
    readme = home / "README.md"
    readme.write_text(f"# Title\n{claims.START}\nyesterday\n{claims.END}\nrest\n")
    claims.record("quick", "L1", "reproduced", "93 | %", notebook="13")
    assert claims.main(["--readme", str(readme), "--profile", "quick"]) == 0
    text = readme.read_text()
    assert text.startswith(f"# Title\n{claims.START}\n| | claim |") and text.endswith(
        f"|\n{claims.END}\nrest\n"
    )
    assert "| **reproduced** | 93 \\| % | 13 |" in text and "yesterday" not in text


def test_paper_verdicts_stand_beside_the_quick_ones_with_their_cost(home: Path) -> None:
    claims.record("quick", "L1", "mixed", "small", notebook="13")
    plain = claims.verdict_table_markdown("quick")
    assert "paper size" not in plain
    claims.record("paper", "L1", "reproduced", "62 | 64 %", notebook="13")
    claims.record("paper", "L2", "mixed", "known", notebook="14")
    figures.record_seconds("paper", "13", 401.5 * 3600)
    lines = claims.verdict_table_markdown("quick").splitlines()
    assert lines[0].endswith("| notebook | at paper size |") and lines[1].count("---") == 6
    assert lines[2].endswith("| **mixed** | small | 13 | **reproduced**: 62 \\| 64 % (notebook 13: 401.5 h) |")
    assert lines[3].endswith("| **mixed**: known |") and lines[4].endswith("| **not run yet** |")
    assert claims.verdict_table_markdown("paper").splitlines()[0] == plain.splitlines()[0]


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
    for needed in (readme, claims.claims_path("quick")):
        if not needed.is_file():
            pytest.skip(f"{needed.name} does not exist yet")
    text = readme.read_text(encoding="utf-8")
    start, end = claims.verdict_block(text)
    assert text[start:end] == f"\n{claims.verdict_table_markdown('quick')}"
