"""The pictures of our own questions (notebooks 30 and 32) and of notebook 40: tables in, a figure out."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from snnlib.audit import AuditReport
from snnlib.companion.report import plotting_audit
from snnlib.companion.report.statistical import bars, curves, over_seeds
from snnlib.companion.report.style import caption, figure, legend_below, measured_ticks

SPACE_NAMES = {"image": "on images", "encoded": "on the code"}


def audit(report: AuditReport, network: str, seed: int) -> Figure:
    """One audit: what each attack leaves, accuracy over eps, and the loss surface, where they could be measured."""
    curves_measured = [name for name in ("eps", "surface") if report.curves.get(name)]
    bars_drawn = len(plotting_audit.ladder_table(report))
    fig = figure("full", aspect=0.55 + 0.035 * bars_drawn)[0]
    fig.clear()
    rows = fig.add_gridspec(2, max(1, len(curves_measured)), height_ratios=(0.15 + 0.04 * bars_drawn, 0.42))
    ladder = fig.add_subplot(rows[0, :])
    plotting_audit.attack_ladder(ladder, report)
    ladder.set_title("what is left after each attack in turn")
    for place, name in enumerate(curves_measured):
        ax = fig.add_subplot(rows[1, place])
        draw = {"eps": plotting_audit.eps_curve, "surface": plotting_audit.loss_surface}[name]
        draw(ax, report)
    level = [255 * report.eps] if report.norm == "linf" else f"{report.eps:g} in L2, not"
    marks = "each attack runs on what the earlier ones left"
    caption(fig, networks=network, images=report.images, seeds=[seed], eps=level, marks=marks)
    return fig


def same_function(by_space: dict[str, pd.DataFrame], attackers: pd.DataFrame, level: float, network: str) -> Figure:
    """One function, many gradients: what each attacker alone leaves, a panel per space of `alone_rows`."""
    fig, axes = figure("full", aspect=0.8, columns=len(by_space), sharey=True)
    for ax, (space, rows) in zip(axes[0], by_space.items(), strict=True):
        plotting_audit.attacker_dots(ax, rows, attackers)
        ax.set_title(f"{SPACE_NAMES[space]}, {level:g}/255")
    rows = pd.concat(by_space.values())
    marks = "bars: mean of seeds (dots), whiskers: outermost ends of their 95 % intervals; dotted: own gradient"
    caption(fig, rows, networks=network, images=rows["sample"].nunique(), eps=[level], marks=marks)
    return fig


def hidden_pixels(hidden: pd.DataFrame, images: int, level: float, network: str) -> Figure:
    """What PGD leaves if it sees the gradient of a share of the pixels only; hidden: keep, seed, left."""
    merged = over_seeds(hidden.assign(pixels=100 * hidden.keep), ["pixels"], "left", images)
    fig, axes = figure("full", aspect=0.45)
    ax = axes[0, 0]
    curves(ax, merged.assign(model=network), x="pixels", y="left", by="model")
    measured_ticks(ax, sorted(merged.pixels))
    ax.set(xlabel="pixels with a gradient (%)", ylabel="images left by PGD (%)", ylim=(0, None))
    caption(fig, hidden, networks=network, images=images, eps=[level], marks=merged.interval.iloc[0])
    return fig


def worst_case(stages: pd.DataFrame, panels: Sequence[tuple[str, float]]) -> Figure:
    """What is left after each group of attackers in turn, of `by_stage`; a panel per (space, level)."""
    fig, axes = figure("full", aspect=0.58, columns=len(panels))
    for ax, (space, level) in zip(axes[0], panels, strict=True):
        plotting_audit.stage_lines(ax, stages[(stages.threat_model == space) & (stages.eps255 == level)])
        ax.set_title(f"{SPACE_NAMES[space]}, {level:g}/255")
    for ax in axes[0, 1:]:
        ax.set_ylabel("")
    legend_below(fig, axes[0, 0], columns=2)
    marks = over_seeds(stages, ["model", "stage", "eps255", "threat_model"], "robust_accuracy").interval.iloc[0]
    caption(fig, stages, eps=(), marks=marks)
    return fig


def planted(rows: pd.DataFrame) -> Figure:
    """Verdicts on networks with a planted mask (above the dotted line) and on honest ones; rows of `judged`."""
    fig, axes = figure("full", aspect=0.62)
    plotting_audit.planted_dots(axes[0, 0], rows)
    legend_below(fig, axes[0, 0], columns=4)
    images = rows.images.max()
    caption(fig, networks=f"{len(rows)} planted networks", images=images, eps=[2], marks="one dot per network")
    return fig


def broken_by_passes(table: pd.DataFrame, images: int, seeds: Sequence[int]) -> Figure:
    """Images broken within a number of passes, a panel per network and a line per attack.

    table: model, eps255, passes, broken, way; of `broken_by_passes`.
    """
    models = list(dict.fromkeys(table.model))
    fig, axes = figure("full", aspect=0.6, columns=len(models), sharey=True)
    for ax, model in zip(axes[0], models, strict=True):
        chosen = table[table.model == model]
        curves(ax, chosen, x="passes", y="broken", by="way", step=True, markers=False, linewidth=1.6)
        title = f"{model.removeprefix('SNN, ')}\neps = {chosen.eps255.iloc[0]:g}/255"
        ax.set(title=title, xscale="log", xlabel="passes that the image took", ylabel="images broken (%)")
        ax.label_outer()
    legend_below(fig, axes[0, 0], columns=2)
    marks = "seeds pooled, no interval; images that are wrong without attack count as broken"
    caption(fig, networks="", images=images, seeds=seeds, eps=(), marks=marks)
    return fig


def worst_case_differences(table: pd.DataFrame, images: int, seeds: Sequence[int]) -> Figure:
    """What the worst case breaks beyond each attack at the same passes; a panel per network.

    table: `differences`, and passes, the most that an image may take.
    """
    models = list(dict.fromkeys(table.model))
    budgets = {passes: f"at most {passes:,} passes an image" for passes in dict.fromkeys(table.passes)}
    fig, axes = figure("full", aspect=0.62, columns=len(models), sharey=True, sharex=True)
    for ax, model in zip(axes[0], models, strict=True):
        chosen = table[table.model == model]
        bars(ax, chosen, rows="way", by="passes", value="difference", names=budgets, dots=True)
        ax.axvline(0, color="black", lw=0.8)
        ax.set(title=model.removeprefix("SNN, "), xlabel="worst case minus attack,\nimages broken (points)")
    legend_below(fig, axes[0, 0], columns=2)
    marks = "dots: mean of the seeds, whiskers: 95 %, paired per image"
    caption(fig, networks="", images=images, seeds=seeds, eps=(), marks=marks)
    return fig


def lif_speed(layers: pd.DataFrame) -> Figure:
    """Forward and backward of one spiking layer per contender, a panel per shape; dashed: the floor."""
    shapes = list(layers["shape"].unique())
    is_floor = layers.contender.str.startswith("floor")
    fig, axes = figure("full", aspect=0.5, columns=len(shapes), sharey=True)
    for ax, shape in zip(axes[0], shapes, strict=True):
        here = layers["shape"] == shape
        bars(ax, layers[here & ~is_floor], rows="contender", value="best_ms", scale=1)
        floor = layers[here & is_floor].best_ms.item()
        ax.axvline(floor, color="black", linestyle="--", lw=1.5, label="floor: bytes / copy bandwidth")
        ax.set(title=f"[T,N,C,H,W] =\n{shape.replace('x', '·')}", xlabel="forward + backward (ms)")
    legend_below(fig, axes[0, 0])
    rounds = f"LIF in float32; bars: the best of {layers.rounds.iloc[0]} rounds, no interval"
    caption(fig, networks=f"{layers.device.iloc[0]}", marks=rounds)
    return fig
