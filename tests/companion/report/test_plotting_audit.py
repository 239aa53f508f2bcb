"""Pictures of an audit show the numbers of its report."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from snnlib.audit import AuditReport
from snnlib.audit.report import AttackLine
from snnlib.companion.report import plotting_audit
from snnlib.errors import InputError


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def _line(label: str, left: int, same_ball: bool = True) -> AttackLine:
    return AttackLine(label, 40, 1, same_ball, left, 10, 5)


def _report(**changes) -> AuditReport:
    content = {
        "model": "Net", "eps": 8 / 255, "norm": "linf", "images": 50, "correct": 40, "own_robust": 20, "robust": 15,
        "effort": {}, "seed": 0, "findings": (),
        "attacks": (_line("noise", 38), _line("FGSM", 38), _line("PGD", 20), _line("far", 20, False), _line("x", 20),
                    _line("Square", 15), _line("y", 15)),
        "curves": {
            "eps": [{"eps": 0.0, "robust_accuracy": 1.0}, {"eps": 2 / 255, "robust_accuracy": 0.25}],
            "surface": [
                {"along_gradient": a, "along_noise": n, "margin": a - 1.0} for a in (-1, 0, 2) for n in (-1, 1)
            ],
        },
    }  # fmt: skip
    return AuditReport(**{**content, **changes})


def test_the_ladder_names_who_gained_and_counts_who_did_not():
    table = plotting_audit.ladder_table(_report())
    assert table.after.tolist() == ["no attack", "noise", "PGD", "Square", "3 more, no gain"]
    assert table.robust_accuracy.tolist() == [0.8, 0.76, 0.4, 0.3, 0.3]


def test_the_ladder_draws_its_table(ax):
    plotting_audit.attack_ladder(ax, _report())
    assert [round(bar.get_width(), 1) for bar in ax.patches] == [80.0, 76.0, 40.0, 30.0, 30.0]
    assert [label.get_text() for label in ax.get_yticklabels()][2] == "PGD"


@pytest.mark.parametrize("norm, scale", [("linf", 255), ("l2", 1)])
def test_the_curve_is_in_the_unit_of_its_norm(ax, norm, scale):
    plotting_audit.eps_curve(ax, _report(norm=norm))
    x, y = ax.lines[0].get_data()
    assert x.tolist() == pytest.approx([0, scale * 2 / 255]) and y.tolist() == [100, 25]


def test_the_surface_has_its_border_where_the_margin_is_zero(ax):
    plotting_audit.loss_surface(ax, _report())
    borders = [path for drawn in ax.collections for path in drawn.get_paths() if len(path.vertices) == 2]
    assert borders and all(abs(x - 1) < 1e-6 for path in borders for x in path.vertices[:, 0])


def test_a_curve_that_could_not_be_measured_is_refused(ax):
    for draw in (plotting_audit.eps_curve, plotting_audit.loss_surface):
        with pytest.raises(InputError, match="no curve"):
            draw(ax, _report(curves={}))


def test_single_attackers_are_means_over_seeds_and_a_missing_one_is_named(ax):
    rows = pd.DataFrame(
        {
            "attacker": ["own"] * 4 + ["dense"] * 4,
            "seed": [0, 0, 1, 1] * 2,
            "success": [True, False, False, False, True, True, True, False],
        }
    )
    attackers = pd.DataFrame({"attacker": ["own", "dense", "other"], "group": ["own", "pool", "encoder"]})
    plotting_audit.attacker_dots(ax, rows, attackers)
    assert [bar.get_width() for bar in ax.patches] == [75, 25]
    assert ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor()
    assert [text.get_text() for text in ax.texts] == ["does not apply"]
    dots = [sorted(line.get_xdata()) for line in ax.lines if line.get_marker() == "o"]
    assert dots == [[50, 100], [0, 50]]


def test_stages_are_means_over_seeds_in_the_given_order(ax):
    stages = pd.DataFrame(
        {
            "model": "net",
            "seed": [0, 1, 0, 1],
            "stage": ["z", "z", "a", "a"],
            "robust_accuracy": [0.5, 0.3, 0.2, 0.0],
        }
    )
    plotting_audit.stage_lines(ax, stages)
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([40, 10])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["z", "a"]


def test_a_planted_network_is_a_dot_on_the_line_of_its_kind(ax):
    rows = pd.DataFrame(
        [("undefended", False, 0.0, "no sign of masking"), ("loss", True, 0.5, "masked"),
         ("loss", True, 0.25, "suspicious"), ("encoder", True, 0.75, "masked")],
        columns=["kind", "masked", "missed", "verdict"],
    )  # fmt: skip
    plotting_audit.planted_dots(ax, rows)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["loss", "encoder", "undefended"], "masks first"
    drawn = {line.get_label(): line for line in ax.lines if line.get_linestyle() == "None"}
    assert set(drawn) == set(plotting_audit.VERDICT_LOOKS)
    assert sorted(drawn["masked"].get_xdata()) == [50, 75] and list(drawn["no sign of masking"].get_xdata()) == [0]
    assert [round(height) for height in drawn["masked"].get_ydata()] == [0, 1]
