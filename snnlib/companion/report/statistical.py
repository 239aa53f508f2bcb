"""Statistical pictures from tables: curves with bands, bars with whiskers, heat maps, distributions.

An interval is the table's columns low and high and never drawn by resampling, so the same table gives the same picture.
Networks and attacks wear the looks of `style`; what a table leaves out is said in the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy

from snnlib.companion.measure.rows import wilson_interval
from snnlib.companion.report.style import GREY, Look, looks, missing
from snnlib.errors import InputError

RANGE_OF_SEEDS = "mean and range of the seeds"
ENDS_OF_SEEDS = "mean of the seeds; interval: outermost ends of their 95 % intervals"


def over_seeds(table: pd.DataFrame, by: Sequence[str], y: str, images: int | None = None) -> pd.DataFrame:
    """Mean of `y` over the rows (seeds) that agree in `by`, with an interval low..high and a column that names it.

    The interval reaches from the lowest to the highest end of the seeds' own: the columns low and high, or the Wilson
    interval of a share of `images` (or of the column samples); else it is the range of the seeds. It is wide on
    purpose: seeds share their images, so pooling would promise too much. The column samples is carried along.
    """
    _need(table, [*by, y])
    if images:
        table = table.assign(samples=images)
    if "samples" in table and "low" not in table:
        ends = [wilson_interval(round(share * n), n) for share, n in zip(table[y], table.samples, strict=True)]
        table = table.assign(low=[low for low, _ in ends], high=[high for _, high in ends])
    has_ends = {"low", "high"} <= set(table)
    low, high = ("low", "high") if has_ends else (y, y)
    columns = {y: (y, "mean"), "low": (low, "min"), "high": (high, "max")}
    if "samples" in table:
        columns["samples"] = ("samples", "max")
    merged = table.groupby(list(by), sort=False, observed=True).agg(**columns).reset_index()
    return merged.assign(interval=ENDS_OF_SEEDS if has_ends else RANGE_OF_SEEDS)


def curves(
    ax: Axes,
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    by: str | None = None,
    names: Mapping[object, str] | None = None,
    scale: float = 100,
    units: str | None = None,
    step: bool = False,
    markers: bool = True,
    as_looks: Mapping[object, Look] | None = None,
    **style,
) -> None:
    """`y` times `scale` over `x`, a line per value of `by` in its look, with the band low..high where there is one;
    as whiskers, a little apart, where more than four bands would cover each other.

    names: text of a label in the legend. units: a column that tells lines of one look apart (seeds), drawn one by one.
    step: values hold until the next x. as_looks: instead of `looks`. style: of matplotlib's lines.
    Errors: InputError for missing columns, or several rows at one x (averaging is the table's business).
    """
    _need(table, [x, y, *filter(None, (by, units))])
    data = table.assign(_by=table[by] if by else "").sort_values(x, kind="stable")
    _one_row_each(data, ["_by", x, *([units] if units else [])])
    order = list(dict.fromkeys(table[by])) if by else [""]
    seen = dict(as_looks or looks(order))
    data[y] = scale * data[y]
    shared = {"drawstyle": "steps-post"} if step else {}
    for number, label in enumerate(order):
        part, name = data[data._by == label], (names or {}).get(label, str(label))
        options = {**seen[label].line, **({} if markers else {"marker": ""}), **shared, **style}
        lines = {"estimator": None, "errorbar": None, "legend": False, "sort": False}
        sns.lineplot(part, x=x, y=y, units=units, ax=ax, **lines, **options)
        ax.lines[-1].set_label(name if by else "_")
        if units is None and {"low", "high"} <= set(part):
            low, high, colour = scale * part.low, scale * part.high, seen[label].colour
            if len(order) > 4:
                apart = offset_copy(ax.transData, ax.figure, 2.5 * (number - (len(order) - 1) / 2), units="points")
                ax.vlines(part[x], low, high, color=colour, linewidth=1.2, alpha=0.8, transform=apart)
            else:
                kind = {"step": "post"} if step else {}
                ax.fill_between(part[x], low, high, color=colour, alpha=0.18, lw=0, **kind)
    ax.set(xlabel="eps (1/255)" if x == "eps255" else x, ylabel=y)


def bars(
    ax: Axes,
    table: pd.DataFrame,
    *,
    rows: str,
    value: str,
    by: str | None = None,
    order: Sequence | None = None,
    names: Mapping[object, str] | None = None,
    scale: float = 100,
    dots: bool = False,
    each: pd.DataFrame | None = None,
    why: str | Callable[[object, object], str] = "not measured",
    as_looks: Mapping[object, Look] | None = None,
) -> None:
    """Horizontal bars (or dots) of `value`, a row per value of `rows`, side by side for `by`, whiskers low..high.

    order: rows from top to bottom, also such as the table lacks. names: text of a row or an entry of the legend. each:
    rows of single seeds, drawn as black dots. why: reason written where no bar is, or a function of (row, by).
    as_looks: of the values of `by` (else of `rows`), instead of `looks`.
    Errors: InputError for missing columns or several rows for one bar.
    """
    key = [rows, by] if by else [rows]
    _need(table, [*key, value])
    _one_row_each(table, key)
    order = list(order if order is not None else dict.fromkeys(table[rows]))
    parts = list(dict.fromkeys(table[by])) if by else [None]
    seen, thick, texts = as_looks or looks(parts if by else order), 0.8 / len(parts), names or {}
    if not dots and len(table):
        hue, palette = by or rows, {label: each_look.colour for label, each_look in seen.items()}
        options = {"saturation": 1, "errorbar": None, "legend": False, "width": 0.8, "alpha": 0.85}
        scaled = table.assign(**{value: scale * table[value]})
        hues = {"hue": hue, "hue_order": parts if by else order, "palette": palette, "dodge": bool(by)}
        sns.barplot(scaled, x=value, y=rows, order=order, orient="h", ax=ax, **hues, **options)
    indexed = table.set_index(key)
    for number, part in enumerate(parts):
        for row_number, row in enumerate(order):
            place, cell = row_number + (number - (len(parts) - 1) / 2) * thick, (row, part) if by else row
            if cell not in indexed.index:
                missing(ax, place, why if isinstance(why, str) else why(row, part))
                continue
            _whisker(ax, place, indexed.loc[cell], value, scale, seen[part if by else row] if dots else None)
            if each is not None:
                same = (each[rows] == row) & ((each[by] == part) if by else True)
                ax.plot(scale * each[same][value], [place] * same.sum(), "o", color="black", ms=3)
        if by:
            options = seen[part].points | {"linestyle": ""} if dots else {"color": seen[part].colour, "lw": 7}
            ax.plot([], [], label=texts.get(part, str(part)), **options)
    ax.set_yticks(range(len(order)), [texts.get(row, str(row)) for row in order])
    ax.set(ylim=(len(order) - 0.5, -0.5), ylabel="", xlabel=value)
    ax.grid(False, axis="y")


def _whisker(ax: Axes, place: float, row: pd.Series, value: str, scale: float, dot: Look | None) -> None:
    ends = None
    if "low" in row:
        ends = scale * np.clip([[row[value] - row.low], [row.high - row[value]]], 0, None).astype(float)
    points = dot.points if dot else {"marker": ""}
    options = {"ecolor": dot.colour if dot else "black", "elinewidth": 1.3, "capsize": 2, "linestyle": ""}
    ax.errorbar(scale * row[value], place, xerr=ends, **options, **points)


def heat_map(
    ax: Axes,
    table: pd.DataFrame,
    *,
    rows: str,
    columns: str,
    value: str,
    names: Mapping[object, str] | None = None,
    label: str = "",
    scale: float = 100,
    limits: tuple[float, float] = (0, 100),
) -> None:
    """`value` times `scale` per pair of `rows` and `columns`, written into its cell with low..high under it.

    A pair that the table lacks is left grey. label: of the colour bar. Errors: InputError for missing columns or
    several rows for one cell.
    """
    _need(table, [rows, columns, value])
    _one_row_each(table, [rows, columns])
    order = [list(dict.fromkeys(table[key])) for key in (rows, columns)]

    def grid(column: str) -> pd.DataFrame:
        return scale * table.pivot(index=rows, columns=columns, values=column).reindex(order[0], columns=order[1])

    middle = grid(value)
    written = middle.map("{:.0f}".format)
    if {"low", "high"} <= set(table):
        written = written + "\n(" + grid("low").map("{:.0f}".format) + "–" + grid("high").map("{:.0f}".format) + ")"
    ticks = [[(names or {}).get(each, str(each)) for each in labels] for labels in order]
    options = {"vmin": limits[0], "vmax": limits[1], "cmap": "Blues", "linewidths": 1, "cbar_kws": {"label": label}}
    sns.heatmap(middle, annot=written, fmt="", ax=ax, yticklabels=ticks[0], xticklabels=ticks[1], **options)
    ax.set_facecolor("#CCCCCC")
    ax.tick_params(length=0, labelrotation=0)
    ax.set(xlabel="", ylabel="")
    ax.grid(False)


def distribution(
    ax: Axes,
    table: pd.DataFrame,
    *,
    x: str,
    by: str,
    bins: Sequence[float],
    names: Mapping[object, str] | None = None,
    stat: str = "count",
) -> None:
    """Histogram of `x` over `bins` as an outline per value of `by`; what lies beyond the bins counts in the outermost.

    stat: seaborn's, of each outline on its own. A logarithmic axis is the caller's. Errors: InputError for missing
    columns.
    """
    _need(table, [x, by])
    seen = looks(table[by])
    for label, each in seen.items():
        values = table[table[by] == label][x].clip(bins[0], bins[-1])
        line = {"color": each.colour, "linestyle": each.line["linestyle"], "linewidth": 2}
        sns.histplot(values, bins=list(bins), element="step", fill=False, stat=stat, ax=ax, legend=False, **line)
        ax.lines[-1].set_label((names or {}).get(label, str(label)))
    ax.set(xlabel=x)


def _need(table: pd.DataFrame, columns: Sequence[str]) -> None:
    absent = [name for name in columns if name not in table]
    if absent:
        raise InputError(f"the table has no columns {absent}; it has {', '.join(map(str, table.columns))}")


def _one_row_each(table: pd.DataFrame, key: list[str]) -> None:
    several = table[table.duplicated(key, keep=False)]
    if len(several):
        cell = ", ".join(f"{name} {several.iloc[0][name]}" for name in key if name != "_by")
        raise InputError(f"several rows share one {cell}; expected one; give what tells them apart, or use over_seeds")


def accuracy_curve(
    ax: Axes,
    table: pd.DataFrame,
    *,
    x: str = "eps255",
    y: str = "robust_accuracy",
    by: str | None = None,
    band: str | None = "interval",
    labels: Mapping[object, str] | None = None,
    chance: float | None = None,
    legend: bool = True,
) -> None:
    """`curves` of an accuracy (a share, drawn in percent) from zero, with the accuracy of guessing as a dotted line.

    band: "interval" shades the table's columns low..high; "seeds" draws the mean over rows of equal x and what
    `over_seeds` gives as its interval; None draws the line alone. legend: False where one legend serves several panels
    (`legend_below`). Errors: InputError for missing columns or another band.
    """
    if band not in ("interval", "seeds", "std", None):
        raise InputError(f"band is {band!r}; expected 'interval', 'seeds' or None")
    _need(table, [x, y, *([by] if by else []), *(("low", "high") if band == "interval" else ())])
    if band in ("seeds", "std"):
        table = over_seeds(table, [*([by] if by else []), x], y)
    top = max(ax.get_ylim()[1] if ax.lines else 0, 105 * table["high" if band else y].max())
    shown = table if band else table.drop(columns=["low", "high"], errors="ignore")
    curves(ax, shown, x=x, y=y, by=by, names=labels)
    if chance is not None:
        ax.axhline(100 * chance, color=GREY, linestyle=":", linewidth=1.3, label="chance")
    ax.set_ylim(0, top)
    ax.set_ylabel("accuracy (%)" if ax.yaxis.get_tick_params().get("labelleft", True) else "")
    if legend and (by or chance is not None):
        ax.legend()
