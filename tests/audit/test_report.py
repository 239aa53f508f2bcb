"""The verdict follows from the findings by the stated rule, and reports survive a trip through JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from snnlib.audit import REQUIRED, AuditReport, Finding, judge
from snnlib.audit.report import FEWEST_CORRECT, AttackLine
from snnlib.errors import InputError


def _finding(name: str, outcome: str = "no") -> Finding:
    return Finding(name, "what", {"share": 0.25, "count": 3}, "rule", outcome, "because")


def _findings(**outcomes: str) -> tuple[Finding, ...]:
    names = (*REQUIRED, "ensemble_gain", "class_count")
    return tuple(_finding(name, outcomes.get(name, "no")) for name in names)


def _report(findings: tuple[Finding, ...] | None = None, **changes) -> AuditReport:
    report = AuditReport(
        model="Net", eps=8 / 255, norm="linf", images=50, correct=40, own_robust=20, robust=12,
        effort={"steps": 3, "members": ["a", "b"]}, seed=7, findings=findings or _findings(),
        attacks=(AttackLine("PGD", 40, 20, True, 20, 100, 60), AttackLine("Square", 20, 8, True, 12, 200, 0)),
        curves={"eps": [{"eps": 0.0, "robust_accuracy": 1.0}]},
    )  # fmt: skip
    return replace(report, **changes)


@pytest.mark.parametrize(
    "outcomes, verdict",
    [
        ({}, "no sign of masking"),
        ({"class_count": "note"}, "no sign of masking"),
        ({"ensemble_gain": "not done"}, "no sign of masking"),
        ({"ensemble_gain": "suspicious"}, "suspicious"),
        ({"ensemble_gain": "suspicious", "class_count": "masked"}, "masked"),
        ({"square_beats_white_box": "not done"}, "inconclusive"),
        ({"square_beats_white_box": "not done", "ensemble_gain": "suspicious"}, "suspicious"),
        ({"square_beats_white_box": "not done", "ensemble_gain": "masked"}, "masked"),
    ],
)
def test_the_worst_finding_decides(outcomes, verdict):
    assert judge(_findings(**outcomes), correct=40) == verdict


def test_no_sign_needs_every_required_check_and_enough_images():
    assert judge(_findings(), FEWEST_CORRECT) == "no sign of masking"
    assert judge(_findings(), FEWEST_CORRECT - 1) == "inconclusive"
    for name in REQUIRED:
        assert judge([found for found in _findings() if found.name != name], 40) == "inconclusive"


@pytest.mark.parametrize(
    "outcome, flag",
    [("no", "no"), ("note", "yes"), ("suspicious", "yes"), ("masked", "yes"), ("not done", "could not be done")],
)
def test_a_flag_is_yes_no_or_could_not_be_done(outcome, flag):
    assert _finding("x", outcome).flag == flag


def test_the_report_says_its_numbers():
    report = _report(_findings(ensemble_gain="masked", class_count="note"))
    assert "masked: clean 80.0 %, after PGD with the model's own gradient 40.0 %" in report.summary()
    assert "after all attacks 24.0 % (eps 8/255, linf, 50 images)" in report.summary()
    assert (report.forwards, report.backwards) == (300, 60)
    assert [found.name for found in report.flagged] == ["ensemble_gain"]
    text = str(report)
    asked = "Do other surrogates find what as many runs by the training surrogate missed?"
    assert f"\n! {asked}\n    what: share 0.25" in text
    assert "masked: because" in text and text.endswith("300 forward and 60 backward passes of an image")


def test_a_report_comes_back_from_json_as_it_was():
    report = _report(_findings(ensemble_gain="masked"))
    text = report.to_json()
    assert AuditReport.from_json(text) == report
    assert AuditReport.from_json(text).to_json() == text
    assert json.loads(text)["verdict"] == "masked"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "findings": [], "attacks": []}'])
def test_what_is_no_report_is_refused_in_one_line(text):
    with pytest.raises(InputError) as refusal:
        AuditReport.from_json(text)
    assert "\n" not in str(refusal.value) and "expected" in str(refusal.value)


def test_an_unknown_outcome_or_check_is_refused():
    with pytest.raises(InputError, match="outcome is 'maybe'"):
        _finding("x", "maybe")
    with pytest.raises(InputError, match="check is 'other'"):
        _report().finding("other")
    assert _report().finding("class_count").name == "class_count"


def test_a_report_is_saved_by_the_ending_of_its_name(tmp_path):
    report = _report()
    assert AuditReport.from_json(report.save(tmp_path / "new" / "report.json").read_text()) == report
    page = report.save(str(tmp_path / "report.html")).read_text()
    assert page.startswith("<!DOCTYPE html>") and "Audit of Net" in page
    for name in ("report.pdf", "report"):
        with pytest.raises(InputError, match="expected a name that ends in .html or .json"):
            report.save(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "report.html"]


def test_a_report_shows_itself_as_its_text():
    assert repr(_report()) == str(_report()) and "Audit of Net" in repr(_report())
