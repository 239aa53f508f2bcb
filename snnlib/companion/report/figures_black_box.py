"""The pictures of notebook 31: attacks with and without a gradient, from its tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from snnlib.companion.report.statistical import accuracy_curve, bars, curves, heat_map
from snnlib.companion.report.style import caption, figure, legend_below, look, measured_ticks

ATTACK_NAMES = {
    "random_noise": "noise",
    "rays": "RayS (decisions)",
    "transfer": "transfer",
    "square": "Square (scores)",
    "spsa": "SPSA (scores)",
    "apgd ce": "APGD-CE",
    "apgd ce + ensemble": "APGD-CE + ensemble",
    "apgd margin": "APGD-margin",
    "all white-box": "all white-box",
}
POOLED = "95 % Wilson interval over the images of all seeds"


def side_by_side(attacks: pd.DataFrame, seeds: Sequence[int], transfer_eps: float) -> Figure:
    """Robust accuracy under each attack alone, of `by_attack`; a panel per network and eps.

    seeds: pooled in `attacks`. transfer_eps: the one level at which transfer was run.
    """
    fig, axes = _grid(attacks, 0.36)
    for model, eps255, ax in _panels(attacks, axes):
        chosen = attacks[(attacks.model == model) & (attacks.eps255 == eps255)]
        options = {"rows": "attack", "value": "robust_accuracy", "order": list(ATTACK_NAMES), "names": ATTACK_NAMES}
        bars(ax, chosen, dots=True, why=lambda attack, _: _why(attack, transfer_eps), **options)
        ax.set(title=f"{model},\n{eps255:g}/255", xlabel="robust accuracy (%)")
        ax.label_outer()
    marks = f"filled: with gradients of the attacked network, hollow: without; whiskers: {POOLED}"
    caption(fig, attacks, networks="", seeds=seeds, marks=marks)
    return fig


def _why(attack: object, transfer_eps: float) -> str:
    return f"run at {transfer_eps:g}/255 only" if attack == "transfer" else "not run"


def queries(standing: pd.DataFrame, attacks: pd.DataFrame, seeds: Sequence[int]) -> Figure:
    """Images still standing after so many forward passes, of `standing_by_queries`; beside the white-box side.

    attacks: of `by_attack`, for what all white-box attacks together leave.
    """
    fig, axes = _grid(standing, 0.32)
    for model, eps255, ax in _panels(standing, axes):
        chosen = standing[(standing.model == model) & (standing.eps255 == eps255)]
        options = {"names": ATTACK_NAMES, "step": True, "markers": False}
        curves(ax, chosen, x="queries", y="robust_accuracy", by="attack", **options)
        end = attacks[(attacks.model == model) & (attacks.eps255 == eps255) & (attacks.attack == "all white-box")]
        for left in end.robust_accuracy:
            ax.axhline(100 * left, color=look("all white-box").colour, linewidth=1.2, label="all white-box")
        ax.set(title=f"{model},\n{eps255:g}/255", xscale="log")
        ax.set(xlabel="forward passes", ylabel="still standing (%)")
        ax.label_outer()
    axes[0, 0].set(ylim=(0, None))  # at last: it ends the search for the range that all panels share
    legend_below(fig, axes[0, 0], columns=4)
    images = int(attacks.samples.max())
    caption(fig, standing, networks="", images=images, seeds=seeds, marks=f"images pooled; bands: {POOLED}")
    return fig


def transfer_matrix(matrix: pd.DataFrame, seeds: Sequence[int]) -> Figure:
    """Share of the correct samples that fall to a perturbation made on another network, of `transfer_matrix`."""
    fig, axes = figure("full", aspect=0.5)
    ax, labels = axes[0, 0], [*matrix.model, *matrix.source]
    names = {label: label.removeprefix("SEW-ResNet-18, ") for label in labels}
    options = {"rows": "model", "columns": "source", "value": "attack_success_rate", "names": names}
    heat_map(ax, matrix, label="fooled (%)", **options)
    ax.set(xlabel="made on (MI-FGSM)", ylabel="judged on", title="SEW-ResNet-18: transfer between networks")
    marks = (
        f"of the images that are right without attack; in brackets: 95 % Wilson interval, seeds {_text(seeds)} pooled"
    )
    low, high = int(matrix.samples.min()), int(matrix.samples.max())
    counts = f"cells of {low} to {high} images" if low < high else f"cells of {low} images"
    caption(fig, matrix, networks=counts, images=0, seeds=(), marks=marks)
    return fig


def bit_flips(standing: pd.DataFrame, seeds: Sequence[int]) -> Figure:
    """Accuracy over the number of bits of the code that may flip, of `standing_by_flips`."""
    fig, axes = figure("full", aspect=0.5)
    ax = axes[0, 0]
    labels = {"bit_flip": "flips chosen by the gradient", "random_noise": "flips at random"}
    accuracy_curve(ax, standing, x="flips", by="attack", labels=labels, legend=False)
    measured_ticks(ax, sorted(standing.flips.unique()))
    ax.set_xlabel("bits of the code that may flip")
    legend_below(fig, ax)
    caption(fig, standing, seeds=seeds, marks=f"bands: {POOLED}")
    return fig


def _grid(table: pd.DataFrame, height: float) -> tuple[Figure, np.ndarray]:
    rows, columns = table.model.nunique(), table.eps255.nunique()
    return figure("full", aspect=height * rows + 0.2, rows=rows, columns=columns, sharex=True, sharey=True)


def _panels(table: pd.DataFrame, axes: np.ndarray) -> Iterator[tuple[str, float, Axes]]:
    for model, line in zip(dict.fromkeys(table.model), axes, strict=True):
        for eps255, ax in zip(sorted(table.eps255.unique()), line, strict=True):
            yield model, eps255, ax


def _text(values: Sequence) -> str:
    return ", ".join(map(str, values))
