"""Pictures of an audit, drawn from its report alone: what each attack leaves, accuracy over eps, the loss surface."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from snnlib.audit import AuditReport
from snnlib.companion.report.statistical import bars, curves, over_seeds
from snnlib.companion.report.style import GREY, PALETTE, look, looks
from snnlib.errors import InputError

OUTCOME_COLOURS = {
    "no": PALETTE[2],
    "note": PALETTE[7],
    "suspicious": PALETTE[1],
    "masked": PALETTE[3],
    "not done": "#999999",
}


def attack_ladder(ax: Axes, report: AuditReport, *, labels: bool = True) -> None:
    """What is left after each attack in turn, in percent of all images; each runs on what the earlier ones left.

    Attacks that found nothing new are joined into one bar between those that did.
    """
    table = ladder_table(report)
    position, heights = np.arange(len(table)), 100 * table.robust_accuracy
    ax.barh(position, heights, 0.7, color=[look("clean").colour, *[PALETTE[0]] * (len(table) - 1)])
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
    """Images left by each attacker alone: mean over seeds, their 95 % intervals as whiskers, each seed as a dot.

    rows: one per sample and attacker (attacker, seed, success). attackers: attacker and group (its colour), in the
    order to draw, so that panels share their lines; those without rows say so. A line marks the mean of the first.
    """
    groups = dict(zip(attackers.attacker, attackers.group, strict=True))
    left = 1 - rows.groupby(["attacker", "seed"], sort=False).success.mean()
    left, images = left.rename("left").reset_index(), len(rows.drop_duplicates("sample")) if "sample" in rows else 0
    merged = over_seeds(left, ["attacker"], "left", images or None)
    seen = looks(attackers.group)
    bars(
        ax,
        merged,
        rows="attacker",
        value="left",
        order=list(attackers.attacker),
        each=left,
        why="does not apply",
        as_looks={name: seen[group] for name, group in groups.items()},
    )
    ax.axvline(100 * left[left.attacker == attackers.attacker.iloc[0]].left.mean(), color=GREY, linestyle=":", lw=1.3)
    ax.set(xlabel="images left (%)", xlim=(0, max(10, 105 * merged.high.max())))


def stage_lines(ax: Axes, stages: pd.DataFrame) -> None:
    """What is left after each group of attackers in turn, a line per model: mean over seeds, and their intervals.

    stages: model, seed, stage, robust_accuracy (and its low, high), in the order to draw.
    """
    names = list(dict.fromkeys(stages.stage))
    merged = over_seeds(stages.assign(place=stages.stage.map(names.index)), ["model", "place"], "robust_accuracy")
    curves(ax, merged, x="place", y="robust_accuracy", by="model")
    ax.set(xlabel="", ylabel="images left (%)")
    ax.set_xticks(range(len(names)), names, rotation=35, ha="right")
    ax.set_ylim(bottom=0)


def eps_curve(ax: Axes, report: AuditReport, **style) -> None:
    """Share of the correct images that PGD leaves, over eps in 1/255 (L2: in pixel units). style: of the line."""
    points = pd.DataFrame(_curve(report, "eps"))
    scale = 255 if report.norm == "linf" else 1
    ax.plot(scale * points.eps, 100 * points.robust_accuracy, **{"marker": "o", **style})
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


def _curve(report: AuditReport, name: str) -> list:
    if not report.curves.get(name):
        raise InputError(f"the report has no curve {name!r}; the check behind it could not be done; leave it out")
    return report.curves[name]
