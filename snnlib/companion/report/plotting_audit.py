"""Pictures of several audits, and those of one report from `snnlib.audit.pictures`."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from snnlib.audit.pictures import attack_ladder, eps_curve, ladder_table, loss_surface
from snnlib.companion.report.statistical import bars, curves, over_seeds
from snnlib.companion.report.style import GREY, PALETTE, Look, looks

__all__ = ["attack_ladder", "attacker_dots", "eps_curve", "ladder_table", "loss_surface", "planted_dots", "stage_lines"]
VERDICT_LOOKS = {
    "masked": Look(PALETTE[3], "X"),
    "suspicious": Look(PALETTE[1], "D"),
    "no sign of masking": Look(PALETTE[0], "o"),
    "inconclusive": Look(PALETTE[6], "s", hollow=True),
}


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


def planted_dots(ax: Axes, rows: pd.DataFrame) -> None:
    """A dot per planted network: the verdict, over what its own gradient misses; a line per kind, masks first.

    rows: kind, masked, missed (share of the correct images), verdict; of `snnlib.companion.ours.planted.judged`.
    """
    ordered = rows.sort_values("masked", ascending=False, kind="stable")
    kinds = list(dict.fromkeys(ordered.kind))
    line = pd.Series([kinds.index(kind) for kind in ordered.kind], index=ordered.index)
    line = line - 0.27 + 0.12 * ordered.groupby(["kind", "verdict"]).cumcount()
    for place, (verdict, drawn) in enumerate(VERDICT_LOOKS.items()):
        here = ordered.verdict == verdict
        ax.plot(100 * ordered.missed[here], line[here] + 0.1 * place, linestyle="none", label=verdict, **drawn.points)
    ax.axvline(0, color=GREY, linewidth=1)
    ax.axhline(ordered[ordered.masked].kind.nunique() - 0.5, color=GREY, linestyle=":", linewidth=1.3)
    ax.set(xlabel="correct images left by the own gradient and not by the reference (%)", yticks=range(len(kinds)))
    ax.set_yticklabels(kinds)
    ax.invert_yaxis()
