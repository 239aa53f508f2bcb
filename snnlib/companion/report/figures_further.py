"""The pictures of notebooks 33 (further objectives, training after the conversion) and 34 (other defences)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from snnlib.companion.report.statistical import bars, over_seeds
from snnlib.companion.report.style import caption, figure, legend_below, looks

CLEAN, WORST = "clean", "worst case"


def side_by_side(groups: dict[str, pd.DataFrame], level: int, *, test: int, attacked: int) -> Figure:
    """Clean accuracy and what the worst case at `level`/255 leaves, a panel per group of networks.

    groups: title to a table with the columns network, seed, clean (of `test` images) and worst (of `attacked`).
    """
    fig, axes = figure("full", aspect=0.5, columns=len(groups))
    for ax, (title, table) in zip(axes[0], groups.items(), strict=True):
        long = table.melt(["network", "seed"], ["clean", "worst"], var_name="of", value_name="accuracy")
        long = long.assign(samples=long.of.map({"clean": test, "worst": attacked}))
        merged = over_seeds(long, ["network", "of"], "accuracy")
        names = {"clean": CLEAN, "worst": f"{WORST}, {level}/255"}
        bars(ax, merged, rows="network", value="accuracy", by="of", each=long, names=names)
        ax.set(title=title, xlabel="accuracy (%)")
    legend_below(fig, axes[0, 0])
    marks = f"clean: {test} test images; worst case: {attacked}; black dots: seeds; {merged.interval.iloc[0]}"
    caption(fig, pd.concat(groups.values()), networks="", images=0, marks=marks)
    return fig


def defences(table: pd.DataFrame, levels: Sequence[int], *, protocol: int, attacked: int) -> Figure:
    """Per defence: clean accuracy, the papers' PGD at `protocol`/255, and the worst case at each level.

    table: of `ours.defences.table`.
    """
    kinds = {"clean": CLEAN, "protocol": f"PGD-7 as in the papers, {protocol}/255"}
    kinds |= {f"worst {level}/255": f"{WORST}, {level}/255" for level in levels}
    long = table.melt(["defence", "seed"], list(kinds), var_name="of", value_name="accuracy")
    merged = over_seeds(long.assign(samples=attacked), ["defence", "of"], "accuracy")
    fig, axes = figure("full", aspect=0.95)
    ax = axes[0, 0]
    bars(ax, merged, rows="defence", value="accuracy", by="of", names=kinds)
    ax.set(xlabel="accuracy (%)")
    legend_below(fig, ax, columns=2)
    caption(fig, table, networks="", images=attacked, marks=merged.interval.iloc[0])
    return fig


def trained_and_architectural(points: pd.DataFrame, level: int, images: str) -> Figure:
    """What the worst case keeps of what is right, over zeros and over the 1-norm of the input gradient, by kind.

    points: of `ours.defences.sparsity_rows`; a point per network and seed, named where there is room.
    """
    fig, axes = figure("full", aspect=0.62, columns=2, sharey=True)
    panels = (("zero_share", 100, "exact zeros in the input gradient (%)"), ("l1", 1, "its 1-norm, mean per image"))
    seen = looks(points.kind)
    for ax, (column, scale, label) in zip(axes[0], panels, strict=True):
        for kind, part in points.groupby("kind", sort=False):
            options = {**seen[kind].points, "linestyle": ""}
            ax.plot(scale * part[column], 100 * part.kept, label=f"{kind} sparsity", **options)
        for line in points.drop_duplicates("network").itertuples():
            place = (scale * getattr(line, column), 100 * line.kept)
            ax.annotate(line.network, place, xytext=(4, 3), textcoords="offset points", fontsize=7)
        ax.set(xlabel=label)
        ax.margins(x=0.18, y=0.12)
    axes[0, 1].set_xscale("log")
    axes[0, 0].set(ylabel=f"kept by the worst case, {level}/255\n(% of what is right)", ylim=(-3, None))
    legend_below(fig, axes[0, 0])
    caption(fig, points, networks="", images=0, marks=images)
    return fig
