"""The pictures of notebooks 33 (further objectives, training after the conversion) and 34 (other defences)."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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

    points: of `ours.defences.sparsity_rows`, with a column learned; a point per network and seed, open where it has not
    learned: what a constant answer keeps says nothing.
    """
    fig, axes = figure("full", aspect=0.62, columns=2, sharey=True)
    panels = (("zero_share", 100, "exact zeros in the input gradient (%)"), ("l1", 1, "its 1-norm, mean per image"))
    seen = looks(points.kind)
    for ax, (column, scale, label) in zip(axes[0], panels, strict=True):
        placed = points.assign(x=scale * points[column], y=100 * points.kept)
        for (kind, learned), part in placed.groupby(["kind", "learned"], sort=False):
            fill = {} if learned else {"mfc": "none", "mec": seen[kind].colour, "mew": 1.5}
            text = kind if learned else f"{kind}: has not learned"
            ax.plot(part.x, part.y, label=text, **{**seen[kind].points, "linestyle": "", **fill})
        for x, y, names in _named_places(placed):
            ax.annotate(names, (x, y), xytext=(5, 0), textcoords="offset points", fontsize=7, va="center")
        ax.set(xlabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.margins(x=0.3, y=0.12)
        ax.set_xlim(left=-0.03 * ax.get_xlim()[1])
    axes[0, 0].set(ylabel=f"kept by the worst case, {level}/255\n(% of what is right)", ylim=(-3, None))
    legend_below(fig, axes[0, 0], columns=2)
    caption(fig, points, networks="", images=0, marks=images)
    return fig


def _named_places(placed: pd.DataFrame) -> list[tuple[float, float, str]]:
    """Where to write the names of the points; names that would cover each other stand together."""
    width, height = (max(float(placed[axis].max() - placed[axis].min()), 1e-9) for axis in ("x", "y"))
    groups: list[list] = []

    def covers(group: list, point) -> bool:
        return any(abs(point.x - one.x) < width / 4 and abs(point.y - one.y) < height / 18 for one in group)

    for point in placed.sort_values(["y", "x"]).itertuples():
        group = next((group for group in groups if covers(group, point)), None)
        groups.append([point]) if group is None else group.append(point)
    return [
        (max(one.x for one in group), sum(one.y for one in group) / len(group), _listed(one.network for one in group))
        for group in groups
    ]


def _listed(names: Iterable[str]) -> str:
    return textwrap.fill(", ".join(dict.fromkeys(names)), 26)
