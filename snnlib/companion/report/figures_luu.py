"""The pictures of the first paper's chapter (notebooks 10 to 14): tables in, a figure out that says what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from snnlib.companion.report import plotting, style
from snnlib.companion.report.statistical import accuracy_curve, bars, over_seeds

AMPLIFIED = 20
ATTACK_NAMES = {"random_noise": "noise", "fgsm": "FGSM", "pgd": "PGD"}
THREAT_NAMES = {
    "authors": "authors' threat model",
    "image": "on images",
    "authors, drifting BN": "authors,\ndrifting BN",
    "encoded, BN eval": "encoded,\nBN eval",
    "image, smooth encoder": "image,\nsmooth",
}


def training(curves: pd.DataFrame, images: int, classes: int = 10) -> Figure:
    """Validation accuracy over the epochs, of `training_curves`. images: validation images."""
    merged = over_seeds(curves, ["model", "epoch"], "validation_accuracy", images)
    fig, axes = style.figure("full", aspect=0.55)
    ax = axes[0, 0]
    accuracy_curve(ax, merged, x="epoch", y="validation_accuracy", by="model", chance=1 / classes, legend=False)
    ax.set(ylabel="validation accuracy (%)", title="clean accuracy while training")
    ax.xaxis.get_major_locator().set_params(integer=True)
    style.legend_below(fig, ax)
    style.caption(fig, merged, seeds=sorted(curves.seed.unique()), images=images)
    return fig


def adversarial_examples(
    images: Tensor,
    labels: Tensor,
    clean: Tensor,
    blocks: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]],
    shown: Sequence[int],
    names: Sequence[str],
    about: str,
) -> Figure:
    """Figure 1: a column per image of `shown`; clean, then a block per threat model with each attack, and enlarged
    what the last one changed.

    images: [N, C, H, W] in [0, 1]. clean: [N] classes predicted without attack. blocks: per title of a threat model,
    per attack the attacked images and [N] predicted classes. about: network and seed, for the caption.
    """
    shown, heights = list(shown), [1.12, *(1.1 * (1 + len(attacks)) for attacks in blocks.values())]
    fig = plt.figure(figsize=(8, 1.36 * sum(heights)), layout="constrained")
    top, *parts = fig.subfigures(len(heights), 1, height_ratios=heights)

    def row(axes: np.ndarray, pictures: Tensor, label: str, predicted: Tensor | None = None) -> None:
        plotting.show_images(axes, pictures[shown])
        place = {"transform": axes[0].transAxes, "rotation": 90, "ha": "right", "va": "center"}
        axes[0].text(-0.1, 0.5, label, fontsize=11, multialignment="center", **place)
        for ax, position in zip(axes, shown if predicted is not None else (), strict=False):
            right = bool(predicted[position] == labels[position])
            title = f"{names[int(predicted[position])]} {'✓' if right else '✗'}"
            ax.set_title(title, fontsize=10, pad=3, color="black" if right else style.PALETTE[3])

    row(top.subplots(1, len(shown), squeeze=False)[0], images, "clean\n", clean)
    for part, (title, attacks) in zip(parts, blocks.items(), strict=True):
        part.suptitle(title, fontsize=12)
        axes = part.subplots(1 + len(attacks), len(shown), squeeze=False)
        for line, (attack, (pictures, predicted)) in zip(axes, attacks.items(), strict=False):
            row(line, pictures, f"{attack}\n", predicted)
        row(axes[-1], (0.5 + AMPLIFIED * (pictures - images)).clamp(0, 1), f"{attack} − clean\n× {AMPLIFIED}")
    style.caption(fig, networks=about, marks="above each image the predicted class, ✓ right, ✗ wrong")
    return fig


def accuracy_vs_eps(points: pd.DataFrame, levels: Sequence[float], chance: float = 0.1) -> Figure:
    """Figure 2: a panel per threat model and attack, a line per network. points: of `robust_accuracy` per seed."""
    key = ["threat_model", "attack", "model", "eps255"]
    merged = over_seeds(points, key, "robust_accuracy")
    fig, axes = style.figure("full", aspect=0.8, rows=2, columns=2, sharex=True, sharey=True)
    panels = [(threat, attack) for threat in ("authors", "image") for attack in ("fgsm", "pgd")]
    for ax, (threat, attack) in zip(axes.ravel(), panels, strict=True):
        chosen = merged[(merged.threat_model == threat) & (merged.attack == attack)]
        accuracy_curve(ax, chosen, by="model", chance=chance, legend=False)
        ax.set(title=f"{ATTACK_NAMES[attack]}, {THREAT_NAMES[threat]}", xticks=[0, *levels])
        ax.label_outer()
    style.legend_below(fig, axes[0, 0], columns=2)
    style.caption(fig, points, marks=merged.interval.iloc[0])
    return fig


def threat_model_ladder(steps: pd.DataFrame, level: float = 6) -> Figure:
    """From the authors' protocol to the deployed network: bars per threat model and attack, a panel per network.

    steps: of `robust_accuracy` by threat_model, attack, model and seed, at `level`/255.
    """
    merged = over_seeds(steps, ["model", "threat_model", "attack"], "robust_accuracy")
    models = list(dict.fromkeys(merged.model))
    fig, axes = style.figure("full", aspect=0.62, columns=len(models), sharex=True, sharey=True)
    order = list(style.THREATS)
    for ax, model in zip(axes[0], models, strict=True):
        chosen = merged[merged.model == model]
        chosen = chosen.assign(attack=pd.Categorical(chosen.attack, ATTACK_NAMES)).sort_values("attack")
        options = {"by": "attack", "order": order, "names": ATTACK_NAMES | THREAT_NAMES | {"authors": "authors"}}
        bars(ax, chosen, rows="threat_model", value="robust_accuracy", why=_why_no_step, **options)
        ax.set(title=model.replace(", ", ",\n"), xlabel="robust accuracy (%)")
    style.legend_below(fig, axes[0, 0])
    style.caption(fig, steps, eps=[level], marks=merged.interval.iloc[0])
    return fig


def _why_no_step(threat: str, attack: str) -> str:
    if attack == "random_noise" and threat == "authors, drifting BN":
        return "noise moves no statistics"
    return "encoder is exact" if threat == "image, smooth encoder" else "not run"


def gradient_sparsity(operations: pd.DataFrame, images: int, title: str, batch_norm: str = "train") -> Figure:
    """Exact zeros and norm of the gradient per operation, mean over the seeds: as in figures 3 and 5.

    operations: rows of one network, of `operation_rows`; those in another BatchNorm mode are left out.
    """
    rows = operations[operations.batch_norm == batch_norm]
    fig, axes = style.figure("full", aspect=0.72, rows=2, sharex=True)
    plotting.operations_bar(axes[:, 0], mean_over_seeds(operations, batch_norm))
    fig.suptitle(title, fontsize=12)
    marks = f"loss gradient at each operation's input, encoded side, BatchNorm in {batch_norm} mode, mean over seeds"
    style.caption(fig, rows.drop(columns="samples", errors="ignore"), images=images, marks=marks)
    return fig


def mean_over_seeds(operations: pd.DataFrame, batch_norm: str = "train") -> pd.DataFrame:
    """Rows of one network's operations in forward order, numbers averaged over the seeds: what `gradient_sparsity`
    draws."""
    rows = operations[operations.batch_norm == batch_norm]
    names = ["operation", "kind", "block", "inside_residual_block"]
    means = rows.groupby(names, sort=False, dropna=False).mean(numeric_only=True).drop(columns="seed", errors="ignore")
    return means.reset_index().assign(model=rows.model.iloc[0], batch_norm=batch_norm)
