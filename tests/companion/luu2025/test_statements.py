"""Every statement is complete, wears its status, and has a counter-example that the check sees through."""

from __future__ import annotations

import pytest

from snnlib.companion.luu2025.statements import STATEMENTS, overview, run_cases, statement
from snnlib.companion.luu2025.statements.statements import MISSING, OURS, PUBLISHED, RECONSTRUCTED, STATUSES
from snnlib.companion.published import NOT_AVAILABLE
from snnlib.errors import InputError

PAPER = ("A.1", "A.2", "4.1", "4.2", "4.3", "4.4")
each = pytest.mark.parametrize("name", STATEMENTS)


def test_all_that_the_paper_has_is_there_and_so_is_more():
    assert set(PAPER) | {"P1", "P2", "P3", "P4"} <= set(STATEMENTS)
    assert {STATEMENTS[name].status for name in PAPER} == {RECONSTRUCTED}
    assert {STATEMENTS[name].status for name in ("P1", "P2", "P3", "P4", "O1", "O2", "O3", "O4", "O5", "O6")} == {OURS}
    assert STATEMENTS["C1"].status == PUBLISHED


def test_theorems_that_nobody_here_could_read_are_named_as_missing():
    table = overview().set_index("id")
    missing = table[table.status == NOT_AVAILABLE]
    assert missing.index.tolist() == ["Theorem A.2", "Theorem A.3", "Theorem A.4"] == list(MISSING)
    assert len(table) == len(STATEMENTS) + 3 and set(table.status) == set(STATUSES)
    with pytest.raises(InputError, match="not available to us"):
        statement("Theorem A.3")


def test_of_theorem_4_4_not_even_the_topic_is_claimed_to_be_known():
    assert "topic known" in STATEMENTS["4.3"].source and "topic known" not in STATEMENTS["4.4"].source


@each
def test_a_doubting_reader_finds_everything_in_one_place(name):
    shown = STATEMENTS[name]._repr_markdown_()
    for part in (STATEMENTS[name].latex, STATEMENTS[name].proof, STATEMENTS[name].example):
        assert len(part) > 30 and part.strip() in shown
    assert shown.startswith(f"**{name} · ") and shown.count("$") % 2 == 0
    assert all(assumption in shown for assumption in STATEMENTS[name].assumptions)


@each
def test_status_is_visible_wherever_it_is_shown(name):
    status = STATEMENTS[name].status
    assert status in STATUSES
    assert f"[{status}]" in repr(STATEMENTS[name]) and f"[{status}]" in STATEMENTS[name]._repr_markdown_()
    assert overview().set_index("id").status[name] == status


@each
def test_the_counterexample_breaks_a_named_assumption_and_the_conclusion(name):
    result = STATEMENTS[name].counterexample()
    assert result.failed and result.holds is None and result.conclusion is False
    assert result.failed[0] in result.verdict and "the conclusion fails" in result.verdict
    named = STATEMENTS[name].assumptions
    if named and name != "O2":  # O2 shows what its part (iii) holds fixed
        assert result.failed[0] in named


@each
def test_where_the_assumptions_fit_the_check_says_so(name):
    result = STATEMENTS[name].case()
    assert result.failed == () and result.holds is True and result.verdict.startswith("holds: ")
    named = {finding.assumption for finding in result.findings}
    assert named == set(STATEMENTS[name].assumptions)


def test_cases_come_as_one_table_with_the_status_in_it():
    table = run_cases()
    assert len(table) == len(STATEMENTS) and (table.conclusion == "fails").all()
    assert table["where it fits"].str.startswith("holds: ").all()
    assert all("[" in heading for heading in table.statement)


def test_an_unknown_statement_is_refused():
    assert statement("4.1") is STATEMENTS["4.1"]
    with pytest.raises(InputError, match="statement is '9.9'"):
        statement("9.9")
