"""What notebooks draw with: the house style, statistical pictures, and pictures of images, spikes and operations.

Helpers draw into axes that they are given, and return nothing: the figure stays the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor

from snnlib.companion.report.statistical import accuracy_curve as accuracy_curve
from snnlib.companion.report.statistical import bars as bars
from snnlib.companion.report.statistical import curves as curves
from snnlib.companion.report.statistical import distribution as distribution
from snnlib.companion.report.statistical import heat_map as heat_map
from snnlib.companion.report.statistical import over_seeds as over_seeds
from snnlib.companion.report.style import GREY, KIND_COLOURS, MARKERS, kind_of
from snnlib.companion.report.style import PALETTE as PALETTE
from snnlib.companion.report.style import caption as caption
from snnlib.companion.report.style import figure as figure
from snnlib.companion.report.style import legend_below as legend_below
from snnlib.companion.report.style import look as look
from snnlib.companion.report.style import looks as looks
from snnlib.companion.report.style import missing as missing
from snnlib.companion.report.style import use_style as use_style
from snnlib.errors import InputError

BAND = "#EEF1F4"
KIND_MARKERS = dict(zip(KIND_COLOURS, ("s", "D", "o", "v", "P", "X"), strict=True))


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


def operations_bar(axes: Sequence[Axes], table: pd.DataFrame) -> None:
    """Gradient at each operation, as `snnlib.sparsity.gradient_by_operation` gives it, in two stacked panels.

    Above: exact zeros of the input gradient (bars, percent); a tick marks the share of small entries where it
    is larger. Below: its L2 norm on a logarithmic axis. Operations are grouped by block; shaded bands tell
    neighbours apart, colour and marker say the kind of operation. `axes`: two axes that share x.
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
    present = [kind for kind in KIND_COLOURS if kind in kinds]
    for kind in present:
        here = np.array(kinds) == kind
        look = {"color": KIND_COLOURS[kind], "marker": KIND_MARKERS[kind], "edgecolor": GREY, "linewidth": 0.5}
        lower.scatter(position[here], table.l2_grad_input[here], s=26, zorder=2, **look)
    lower.set(ylabel="L2 norm", yscale="log", xlim=(-0.7, len(table) - 0.3))
    _shade_blocks((upper, lower), table)
    shared = {"linestyle": "", "markeredgecolor": GREY, "markeredgewidth": 0.5}
    handles = [
        Line2D([], [], color=KIND_COLOURS[kind], marker=KIND_MARKERS[kind], label=kind, **shared) for kind in present
    ]
    if visible.any():
        handles.append(Line2D([], [], color="black", marker="_", linestyle="", label="with small entries"))
    upper.legend(
        handles=handles,
        ncols=len(handles),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        columnspacing=1.0,
        handlelength=1.0,
        handletextpad=0.2,
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
        ax.axhline(threshold, color=GREY, linestyle="--", lw=1.2, label="threshold", gid="threshold")
    if spikes is not None:
        fired = steps[spikes.detach().cpu().numpy() > 0]
        row = np.full(len(fired), 1.03 + 0.05 * number)
        (marks,) = ax.plot(fired, row, "v", color=line.get_color(), gid="spikes")
        marks.set(transform=ax.get_xaxis_transform(), clip_on=False)
        marks.set_label("_again" if "spikes" in drawn else "spike")
    ax.set(xlabel="time step", ylabel="membrane")
    ax.xaxis.get_major_locator().set_params(integer=True)
