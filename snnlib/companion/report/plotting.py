"""One house style for every figure, and the few kinds of picture that several notebooks draw.

Sizes are chosen for a page that is 8 inches wide: at half that width labels are still legible. Colours are
those of Okabe & Ito, told apart by colour-blind readers; where colour matters, a marker, a hatch or a label
says the same. Helpers draw into axes that they are given, and return nothing: the figure stays the
notebook's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from snnlib.errors import InputError

WIDTHS = {"full": 8.0, "half": 4.0}
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
KIND_COLOURS = {
    "convolution": PALETTE[0],
    "normalisation": PALETTE[5],
    "neuron": PALETTE[1],
    "pool": PALETTE[2],
    "linear": PALETTE[3],
    "other": "#999999",
}
BAND = "#EEF1F4"
GRID = "#D5D9DD"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "axes.prop_cycle": plt.cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "image.interpolation": "nearest",
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,
}


def use_style() -> None:
    """Set the house style for every figure drawn after it in this process."""
    plt.rcdefaults()
    plt.rcParams.update(STYLE)


def figure(
    width: str = "full", aspect: float = 0.5, rows: int = 1, columns: int = 1, **options
) -> tuple[Figure, np.ndarray]:
    """A figure in the house style and its axes `[rows, columns]`.

    width: "full" (8 inches) or "half" (4). aspect: height over width. options: those of `plt.subplots`, such
    as sharex or height_ratios. Errors: InputError for another width or an aspect that is not positive.
    """
    if width not in WIDTHS:
        raise InputError(f"width is {width!r}; expected one of {', '.join(WIDTHS)}")
    if not aspect > 0:
        raise InputError(f"aspect is {aspect!r}; expected height over width, above 0")
    size = (WIDTHS[width], WIDTHS[width] * aspect)
    return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)


def kind_of(operation: str) -> str:
    """Family of an operation by its class name: one of the keys of `KIND_COLOURS`."""
    families = (
        ("conv", "convolution"),
        ("norm", "normalisation"),
        ("pool", "pool"),
        ("linear", "linear"),
        ("lif", "neuron"),
        ("relu", "neuron"),
    )
    if operation == "IF":
        return "neuron"
    return next((family for part, family in families if part in operation.lower()), "other")


def show_images(axes: np.ndarray, images: Tensor, titles: Sequence[str] | None = None) -> None:
    """Images [N, C, H, W] with values in [0, 1], one per axes, row by row; C is 1 or 3. Axes left over stay
    empty.

    Errors: InputError for another number of channels, values outside [0, 1], or more images than axes.
    """
    grid = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise InputError(f"images have shape {list(images.shape)}; expected [N, 1, H, W] or [N, 3, H, W]")
    if len(images) > len(grid):
        raise InputError(f"{len(images)} images for {len(grid)} axes; expected at least as many axes")
    if not (images.amin() >= 0 and images.amax() <= 1):
        low, high = images.amin().item(), images.amax().item()
        raise InputError(f"images span {low:.3g}..{high:.3g}; expected values in [0, 1]; rescale them")
    for ax in grid:
        ax.set_axis_off()
    for number, (ax, image) in enumerate(zip(grid, images.detach().cpu(), strict=False)):
        ax.imshow(image.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
        if titles is not None:
            ax.set_title(titles[number], fontsize=10)


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
    """Accuracy (a share, drawn in percent) against `x`, one line per value of `by`, in the order of the rows.

    band: "interval" shades the table's columns low..high (the Wilson interval); "std"
    draws the mean over rows of equal x (seeds) and shades one standard deviation of them; None draws the line
    alone. legend: False where one legend serves several panels (`legend_below`).
    chance: accuracy of guessing, a dotted line. Errors: InputError for missing columns or another
    band.
    """
    if band not in ("interval", "std", None):
        raise InputError(f"band is {band!r}; expected 'interval', 'std' or None")
    needed = [x, y, *([by] if by else []), *(("low", "high") if band == "interval" else ())]
    missing = [name for name in needed if name not in table]
    if missing:
        raise InputError(f"the table has no columns {missing}; it has {', '.join(map(str, table.columns))}")
    groups = table.groupby(by, sort=False) if by else [("", table)]
    top = ax.get_ylim()[1]
    for number, (key, group) in enumerate(groups):
        line = _curve(group, x, y, band)
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
        label = (labels or {}).get(key, str(key)) if by else None
        ax.plot(line.index, 100 * line["middle"], color=colour, marker=marker, label=label)
        top = max(top, 105 * line["high"].max())
        if band:
            ax.fill_between(line.index, 100 * line["low"], 100 * line["high"], color=colour, alpha=0.18, lw=0)
    if chance is not None:
        ax.axhline(100 * chance, color="#555555", linestyle=":", linewidth=1.3, label="chance")
    ax.set_xlabel("eps (1/255)" if x == "eps255" else x)
    ax.set_ylim(0, top)
    if ax.yaxis.get_tick_params().get("labelleft", True):
        ax.set_ylabel("accuracy (%)")
    if legend and (by or chance is not None):
        ax.legend()


def legend_below(drawn: Figure, ax: Axes, columns: int = 3) -> None:
    """One legend for all panels of a figure, under them, with the entries of `ax`."""
    handles, labels = ax.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=columns)


def _curve(group: pd.DataFrame, x: str, y: str, band: str | None) -> pd.DataFrame:
    ordered = group.groupby(x, sort=True)
    middle = ordered[y].mean()
    if band == "interval":
        if (ordered.size() > 1).any():
            raise InputError(f"several rows share one {x}; expected one; set by to what tells them apart")
        low, high = ordered["low"].mean(), ordered["high"].mean()
        return pd.DataFrame({"middle": middle, "low": low, "high": high})
    spread = ordered[y].std(ddof=0) if band == "std" else 0.0
    return pd.DataFrame({"middle": middle, "low": middle - spread, "high": middle + spread})


def operations_bar(axes: Sequence[Axes], table: pd.DataFrame) -> None:
    """Gradient at each operation, as `snnlib.sparsity.gradient_by_operation` gives it, in two stacked panels.

    Above: exact zeros of the input gradient (bars, percent); a tick marks the share of small entries where it
    is larger. Below: its L2 norm on a logarithmic axis. Operations are grouped by block; shaded bands tell
    neighbours apart, and colour says the kind of operation. `axes`: two axes that share x.
    **Source:** the layout of Luu et al. 2025, figures 3 and 5.
    """
    upper, lower = np.asarray(axes, dtype=object).ravel()
    position = np.arange(len(table))
    kinds = [kind_of(kind) for kind in table.kind]
    colours = [KIND_COLOURS[kind] for kind in kinds]
    zeros, small = 100 * table.zero_share_grad_input.to_numpy(), 100 * table.small_share_grad_input.to_numpy()
    upper.bar(position, zeros, width=0.85, color=colours)
    visible = small > zeros + 0.5
    upper.plot(position[visible], small[visible], "_", color="black", markersize=7, markeredgewidth=1.5)
    upper.set(ylabel="exact zeros (%)", ylim=(0, 100))
    lower.plot(position, table.l2_grad_input, color="#777777", linewidth=1, zorder=1)
    lower.scatter(position, table.l2_grad_input, color=colours, s=26, zorder=2)
    lower.set(ylabel="L2 norm", yscale="log", xlim=(-0.7, len(table) - 0.3))
    _shade_blocks((upper, lower), table)
    present = [kind for kind in KIND_COLOURS if kind in kinds]
    handles: list = [Patch(color=KIND_COLOURS[kind], label=kind) for kind in present]
    if visible.any():
        handles.append(Line2D([], [], color="black", marker="_", linestyle="", label="with small entries"))
    upper.legend(
        handles=handles,
        ncols=len(handles),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        columnspacing=1.0,
        handlelength=1.0,
        handletextpad=0.4,
    )


def _shade_blocks(axes: tuple[Axes, Axes], table: pd.DataFrame) -> None:
    run = (table.block != table.block.shift()).cumsum()
    middles, names = [], []
    for number, (_, group) in enumerate(table.reset_index(drop=True).groupby(run.to_numpy())):
        first, last = group.index[0] - 0.5, group.index[-1] + 0.5
        for ax in axes if number % 2 else ():
            ax.axvspan(first, last, color=BAND, zorder=0)
        middles.append((first + last) / 2)
        names.append(_group_name(group, number, is_last=group.index[-1] == len(table) - 1))
    for ax in axes:
        ax.grid(False, axis="x")
        ax.set_xticks(middles, names)
        ax.tick_params(axis="x", length=0)
        ax.label_outer()


def _group_name(group: pd.DataFrame, number: int, is_last: bool) -> str:
    block = group.block.iloc[0]
    if block:
        return block.removeprefix("body.").replace("layer", "layer\n")
    return "stem" if number == 0 else "head" if is_last else "between"


def raster(ax: Axes, spikes: Tensor) -> None:
    """Spike raster: a tick where neuron n fires at time step t. `spikes` [T, N] of 0 and 1.

    Errors: InputError for another number of axes.
    """
    if spikes.dim() != 2:
        raise InputError(f"spikes have shape {list(spikes.shape)}; expected [T, N]; flatten the neurons")
    time, neuron = torch.nonzero(spikes.detach().cpu(), as_tuple=True)
    ax.vlines(time, neuron - 0.4, neuron + 0.4, color="black", linewidth=1.5)
    ax.set(xlabel="time step", ylabel="neuron", xlim=(-0.5, len(spikes) - 0.5))
    ax.set_ylim(-0.6, spikes.shape[1] - 0.4)
    ax.grid(False)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.yaxis.get_major_locator().set_params(integer=True)


def membrane_trace(
    ax: Axes,
    membrane: Tensor,
    spikes: Tensor | None = None,
    *,
    threshold: float = 1.0,
    label: str | None = None,
) -> None:
    """Membrane of one neuron over time [T], in units of the threshold's, with the threshold and its spikes
    [T].

    Call it again on the same axes for another neuron: each takes the next colour, marker and row of spikes.
    Errors: InputError for tensors that are not [T].
    """
    for name, values in (("membrane", membrane), ("spikes", spikes)):
        if values is not None and values.shape != (len(membrane),):
            shape = list(values.shape)
            raise InputError(f"{name} has shape {shape}; expected [{len(membrane)}], one neuron over time")
    steps = np.arange(len(membrane))
    drawn = {other.get_gid() for other in ax.lines}
    number = sum(other.get_gid() == "membrane" for other in ax.lines)
    marker = MARKERS[number % len(MARKERS)]
    (line,) = ax.plot(steps, membrane.detach().cpu(), marker=marker, label=label, gid="membrane")
    if "threshold" not in drawn:
        ax.axhline(threshold, color="#555555", linestyle="--", lw=1.2, label="threshold", gid="threshold")
    if spikes is not None:
        fired = steps[spikes.detach().cpu().numpy() > 0]
        row = np.full(len(fired), 1.03 + 0.05 * number)
        (marks,) = ax.plot(fired, row, "v", color=line.get_color(), gid="spikes")
        marks.set(transform=ax.get_xaxis_transform(), clip_on=False)
        marks.set_label("_again" if "spikes" in drawn else "spike")
    ax.set(xlabel="time step", ylabel="membrane")
    ax.xaxis.get_major_locator().set_params(integer=True)
