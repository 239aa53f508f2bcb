"""Pictures of an audit, drawn from its report alone: what each attack leaves, accuracy over eps, the loss surface."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from snnlib.audit.report import AuditReport
from snnlib.errors import InputError
from snnlib.optional import needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, LIGHT, GREY = "#0173b2", "#bbbbbb", "#555555"
WIDTH, DPI = 6.4, 130
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#D5D9DD",
    "font.size": 11,
}


@dataclass(frozen=True)
class Picture:
    """png: the file's bytes, the same for equal reports. caption: one line. numbers: what it shows, in words."""

    png: bytes
    caption: str
    numbers: str


def pictures(report: AuditReport) -> list[Picture]:
    """Those that the report has numbers for. Errors: InputError where matplotlib is not installed."""
    table = ladder_table(report)
    ladder = [f"{row.after} {100 * row.robust_accuracy:.1f} %" for row in table.itertuples()]
    height = 0.9 + 0.33 * len(table)
    drawn = [_picture(attack_ladder, report, height, "Images left after each attack in turn", ladder)]
    unit, scale = ("/255", 255) if report.norm == "linf" else (" in L2", 1)
    if points := report.curves.get("eps"):
        curve = [f"{scale * each['eps']:.3g}{unit} {100 * each['robust_accuracy']:.0f} %" for each in points]
        drawn.append(_picture(eps_curve, report, 2.8, "Correct images that PGD leaves, over eps", curve))
    if points := report.curves.get("surface"):
        margins = [each["margin"] for each in points]
        caption = "Margin along the gradient and along noise, mean over some images; white: the clean images"
        surface = [f"from {min(margins):.3g} to {max(margins):.3g}"]
        drawn.append(_picture(loss_surface, report, 3.4, caption, surface))
    return drawn


def attack_ladder(ax: Axes, report: AuditReport, *, labels: bool = True) -> None:
    """What is left after each attack in turn, in percent of all images; each runs on what the earlier ones left.

    Attacks that found nothing new are joined into one bar between those that did.
    """
    table = ladder_table(report)
    position, heights = np.arange(len(table)), 100 * table.robust_accuracy
    ax.barh(position, heights, 0.7, color=[LIGHT, *[BLUE] * (len(table) - 1)])
    for place, height in zip(position, heights, strict=True):
        ax.text(height + 1, place, f"{height:.1f}", va="center", fontsize=9)
    ax.set(xlabel="images left (%)", xlim=(0, 108), yticks=position)
    ax.set_yticklabels(table.after if labels else [""] * len(table))
    ax.invert_yaxis()
    ax.grid(False, axis="y")


def ladder_table(report: AuditReport) -> pd.DataFrame:
    """The numbers of `attack_ladder`: after (label), robust_accuracy (share of all images)."""
    rows = [{"after": "no attack", "robust_accuracy": report.correct / report.images}]
    idle, left = 0, report.correct
    for line in report.attacks:
        if not line.same_ball:
            continue
        if line.left == left:
            idle += 1
            continue
        rows.append({"after": line.label, "robust_accuracy": line.left / report.images})
        left = line.left
    if idle:
        rows.append({"after": f"{idle} more, no gain", "robust_accuracy": left / report.images})
    return pd.DataFrame(rows)


def eps_curve(ax: Axes, report: AuditReport, **style) -> None:
    """Share of the correct images that PGD leaves, over eps in 1/255 (L2: in pixel units). style: of the line."""
    points = pd.DataFrame(_curve(report, "eps"))
    scale = 255 if report.norm == "linf" else 1
    ax.plot(scale * points.eps, 100 * points.robust_accuracy, **{"marker": "o", "color": BLUE, **style})
    ax.axvline(scale * report.eps, color=GREY, linestyle=":", linewidth=1.2)
    ax.set(xlabel="eps (1/255)" if scale == 255 else "eps (L2)", ylabel="left by PGD (% of correct)", ylim=(0, 103))


def loss_surface(ax: Axes, report: AuditReport) -> None:
    """Mean margin (strongest wrong minus right logit) along the gradient and along noise, in units of eps.

    The black line is the border at which the mean image is misclassified.
    """
    points = pd.DataFrame(_curve(report, "surface"))
    grid = points.pivot(index="along_noise", columns="along_gradient", values="margin")
    drawn = ax.contourf(grid.columns, grid.index, grid, levels=12, cmap="cividis")
    if grid.to_numpy().min() < 0 < grid.to_numpy().max():
        ax.contour(grid.columns, grid.index, grid, levels=[0], colors="black", linewidths=1.5)
    ax.plot(0, 0, "o", color="white", markeredgecolor="black")
    ax.set(xlabel="along the gradient (eps)", ylabel="along noise (eps)")
    ax.figure.colorbar(drawn, ax=ax, label="margin")


def _picture(draw: Callable, report: AuditReport, height: float, caption: str, numbers: list[str]) -> Picture:
    matplotlib, figures = (needs(name, extra="report") for name in ("matplotlib", "matplotlib.figure"))
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        fig = figures.Figure(figsize=(WIDTH, height), layout="constrained")  # pyplot would want a display
        draw(fig.add_subplot(), report)
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return Picture(buffer.getvalue(), caption, ", ".join(numbers))


def _curve(report: AuditReport, name: str) -> list:
    if not report.curves.get(name):
        raise InputError(f"the report has no curve {name!r}; the check behind it could not be done; leave it out")
    return report.curves[name]
