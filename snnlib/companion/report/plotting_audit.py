"""Pictures of an audit, drawn from its report alone: what each attack leaves, accuracy over eps, the loss surface."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from snnlib.audit import AuditReport
from snnlib.companion.report.plotting import MARKERS, PALETTE
from snnlib.errors import InputError

OUTCOME_COLOURS = {
    "no": PALETTE[2],
    "note": PALETTE[5],
    "suspicious": PALETTE[4],
    "masked": PALETTE[1],
    "not done": "#999999",
}


def attack_ladder(ax: Axes, report: AuditReport, *, labels: bool = True) -> None:
    """What is left after each attack in turn, in percent of all images; each runs on what the earlier ones left.

    Attacks that found nothing new are joined into one bar between those that did.
    """
    table = ladder_table(report)
    position, heights = np.arange(len(table)), 100 * table.robust_accuracy
    ax.barh(position, heights, 0.7, color=[PALETTE[7] if step == 0 else PALETTE[0] for step in position])
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


def attacker_dots(ax: Axes, rows: pd.DataFrame, attackers: pd.DataFrame) -> None:
    """Images left by each attacker alone: the mean over seeds as a bar, each seed as a dot.

    rows: one per sample and attacker (attacker, seed, success). attackers: attacker and group (its colour), in the
    order to draw, so that panels share their lines; those without rows say so. A line marks the mean of the first.
    """
    left = 100 * (1 - rows.groupby(["attacker", "seed"]).success.mean())
    groups = list(dict.fromkeys(attackers.group))
    for place, (name, group) in enumerate(zip(attackers.attacker, attackers.group, strict=True)):
        dots = left[left.index.get_level_values("attacker") == name]
        if dots.empty:
            ax.text(0.01, place, "does not apply", transform=ax.get_yaxis_transform(), va="center", fontsize=9)
            continue
        ax.barh(place, dots.mean(), 0.65, color=PALETTE[groups.index(group) % len(PALETTE)], alpha=0.75)
        ax.plot(dots, [place] * len(dots), "o", color="black", markersize=4)
    ax.axvline(left[attackers.attacker.iloc[0]].mean(), color="#555555", linestyle=":", linewidth=1.3)
    ax.set(xlabel="images left (%)", yticks=range(len(attackers)), xlim=(0, max(10, 1.05 * left.max())))
    ax.set_yticklabels(attackers.attacker)
    ax.set_ylim(len(attackers) - 0.4, -0.6)
    ax.grid(False, axis="y")


def stage_lines(ax: Axes, stages: pd.DataFrame) -> None:
    """What is left after each group of attackers in turn, a line per model: mean over seeds, and their range.

    stages: model, seed, stage, robust_accuracy, in the order to draw.
    """
    names = list(dict.fromkeys(stages.stage))
    for number, (model, rows) in enumerate(stages.groupby("model", sort=False)):
        over_seeds = 100 * rows.groupby("stage").robust_accuracy.agg(["mean", "min", "max"]).loc[names]
        colour, marker = PALETTE[number], MARKERS[number]
        ax.plot(range(len(names)), over_seeds["mean"], color=colour, marker=marker, label=model)
        ax.fill_between(range(len(names)), over_seeds["min"], over_seeds["max"], color=colour, alpha=0.18, lw=0)
    ax.set(ylabel="images left (%)", xticks=range(len(names)))
    ax.set_xticklabels(names, rotation=35, ha="right")
    ax.set_ylim(bottom=0)


def eps_curve(ax: Axes, report: AuditReport, **style) -> None:
    """Share of the correct images that PGD leaves, over eps in 1/255 (L2: in pixel units). style: of the line."""
    points = pd.DataFrame(_curve(report, "eps"))
    scale = 255 if report.norm == "linf" else 1
    ax.plot(scale * points.eps, 100 * points.robust_accuracy, **{"marker": "o", **style})
    ax.axvline(scale * report.eps, color="#555555", linestyle=":", linewidth=1.2)
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


def _curve(report: AuditReport, name: str) -> list:
    if not report.curves.get(name):
        raise InputError(f"the report has no curve {name!r}; the check behind it could not be done; leave it out")
    return report.curves[name]
