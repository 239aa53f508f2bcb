"""The pictures of the second paper's chapter (notebooks 20 to 24): tables in, a figure out that says what it shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from snnlib.companion.report.statistical import accuracy_curve, bars, curves, over_seeds
from snnlib.companion.report.style import GREY, caption, figure, legend_below, looks, measured_ticks

STAGES = {"calibrated": "calibrated", "scaled": "scaled by 0.3", "fine_tuned": "fine-tuned"}
COSTS = ("spikes per image", "synaptic operations", "follow-up's formula")


def training_and_robustness(
    training: pd.DataFrame,
    points: pd.DataFrame,
    *,
    validation: int,
    test: int,
    attacked: int,
    steps: int,
    classes: int = 10,
) -> Figure:
    """Left: clean accuracy of the ANNs while training; right: under PGD over eps.

    training: of `training_curves`. points: model, seed, eps255, accuracy; eps 0 on all test images. validation, test,
    attacked: numbers of images.
    """
    epochs = over_seeds(training, ["model", "epoch"], "validation_accuracy", validation)
    under_attack = over_seeds(_counted(points, test, attacked), ["model", "eps255"], "accuracy")
    fig, axes = figure("full", aspect=0.55, columns=2)
    left, right = axes[0]
    accuracy_curve(left, epochs, x="epoch", y="validation_accuracy", by="model", legend=False)
    left.set(title="while training, clean", ylabel="validation accuracy (%)", xlim=(0.5, epochs.epoch.max() + 0.5))
    left.xaxis.get_major_locator().set_params(integer=True)
    accuracy_curve(right, under_attack, y="accuracy", by="model", chance=1 / classes, legend=False)
    right.set(title=f"PGD, {steps} steps", ylabel="test accuracy (%)", xticks=sorted(points.eps255.unique()))
    legend_below(fig, right, columns=5)
    marks = f"left: {validation} validation images; right: {_counts(test, attacked)}; {under_attack.interval.iloc[0]}"
    caption(fig, points, images=0, marks=marks)
    return fig


def steps_of_conversion(steps: pd.DataFrame, level: int, *, test: int, attacked: int, network: str) -> Figure:
    """Clean accuracy and accuracy under PGD after each step of the conversion, of `accuracy_of_steps`."""
    both = _clean_and_robust(steps, "step", level, test, attacked)
    fig, axes = figure("full", aspect=0.62)
    ax = axes[0, 0]
    bars(ax, both, rows="step", value="accuracy", by="attack", names=_names(level))
    ax.axvline(10, color=GREY, linestyle=":", label="chance")
    ax.set_xlabel("accuracy (%)")
    legend_below(fig, ax)
    marks = f"{_counts(test, attacked)}; {both.interval.iloc[0]}"
    caption(fig, steps, networks=network, images=0, marks=marks)
    return fig


def thresholds(table: pd.DataFrame, network: str) -> Figure:
    """Thresholds per spiking layer after calibration, scaling and fine-tuning, of `threshold_table`."""
    long = table.melt(["number", "seed"], list(STAGES), var_name="stage", value_name="threshold")
    merged = over_seeds(long, ["stage", "number"], "threshold")
    fig, axes = figure("full", aspect=0.5)
    ax = axes[0, 0]
    seen = dict(zip(STAGES, looks(range(len(STAGES))).values(), strict=True))
    curves(ax, merged, x="number", y="threshold", by="stage", names=STAGES, scale=1, as_looks=seen)
    ax.set(xlabel="spiking layer", ylabel="threshold", yscale="log", xticks=sorted(table.number.unique()))
    legend_below(fig, ax)
    caption(fig, table, networks=network, marks=merged.interval.iloc[0])
    return fig


def time_steps(table: pd.DataFrame, level: int, trained: int, *, test: int, attacked: int, network: str) -> Figure:
    """Accuracy of the fine-tuned network at other numbers of time steps than the `trained` one."""
    both = _clean_and_robust(table, "time_steps", level, test, attacked)
    fig, axes = figure("full", aspect=0.5)
    ax = axes[0, 0]
    accuracy_curve(ax, both, x="time_steps", y="accuracy", by="attack", labels=_names(level), legend=False)
    ax.axvline(trained, color=GREY, linestyle="--", linewidth=1, label="as trained")
    measured_ticks(ax, sorted(table.time_steps.unique()))
    ax.set_xlabel("time steps")
    legend_below(fig, ax)
    marks = f"{_counts(test, attacked)}; {both.interval.iloc[0]}"
    caption(fig, table, networks=network, images=0, marks=marks)
    return fig


def _clean_and_robust(table: pd.DataFrame, by: str, level: int, test: int, attacked: int) -> pd.DataFrame:
    parts = [
        over_seeds(table.rename(columns={column: "accuracy"}), [by], "accuracy", images).assign(attack=attack)
        for column, attack, images in (("clean", "clean", test), ("robust", "pgd", attacked))
    ]
    return pd.concat(parts, ignore_index=True)


def _counted(points: pd.DataFrame, test: int, attacked: int) -> pd.DataFrame:
    return points.assign(samples=np.where(points.eps255 == 0, test, attacked))


def _counts(test: int, attacked: int) -> str:
    return f"{test} test images clean, {attacked} under attack"


def _names(level: int) -> dict[str, str]:
    return {"pgd": f"PGD, {level}/255", "clean": "clean", "copied, thresholds 1": "copied,\nthresholds 1"}


def members(
    table: pd.DataFrame, published: pd.DataFrame, together: pd.DataFrame, level: float, networks: dict[str, str]
) -> Figure:
    """Accuracy under each of the 19 members alone, ours beside the follow-up's, ordered by the latter.

    table: of `member_table` with the column kind. published: share per member (index) and kind. together: kind,
    robust_accuracy under all members. networks: label of our network per kind.
    """
    order = published.iloc[:, 0].sort_values(ascending=False).index
    fig, axes = figure("full", aspect=0.85, columns=len(networks), sharey=True)
    for ax, (kind, label) in zip(axes[0], networks.items(), strict=True):
        ours = over_seeds(table[table.kind == kind], ["member"], "robust_accuracy").assign(whose=label)
        theirs = published[kind].rename("robust_accuracy").rename_axis("member").reset_index()
        both = pd.concat([ours, theirs.assign(whose="follow-up")], ignore_index=True)
        bars(ax, both, rows="member", value="robust_accuracy", by="whose", order=order, names={label: "ours"})
        all_members = 100 * together[together.kind == kind].robust_accuracy.mean()
        ax.axvline(all_members, color="black", linestyle="--", linewidth=1, label="ours, all 19 together")
        ax.set(title=label.replace(", ", ",\n", 1), xlabel=f"accuracy under FGSM, {level:g}/255 (%)", xlim=(0, 100))
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8)
    marks = f"follow-up: VGG-16, 90 % sparse, printed without an interval; {ours.interval.iloc[0]}"
    caption(fig, table, eps=[level], marks=marks)
    return fig


def survivors(turns: pd.DataFrame, level: float, steps: int, images: int, networks: dict[str, str]) -> Figure:
    """Images still standing as the members take their turns, in FGSM and in PGD of `steps`; of `survivors`."""
    turns = turns.assign(model=turns.kind.map(networks))
    merged = over_seeds(turns, ["attack", "model", "number"], "standing", images)
    fig, axes = figure("full", aspect=0.5, columns=2, sharey=True)
    for ax, attack in zip(axes[0], ("fgsm", "pgd"), strict=True):
        curves(ax, merged[merged.attack == attack], x="number", y="standing", by="model", markersize=3)
        taken = 1 if attack == "fgsm" else steps
        ax.set(title=f"{attack.upper()}, {taken} step{'s' * (taken > 1)}", xlabel="members that have run")
        ax.set_xticks([1, 5, 10, 15, 19])
    axes[0, 0].set(ylabel="images standing (%)", ylim=(0, None))
    axes[0, 1].set_ylabel("")
    legend_below(fig, axes[0, 0], columns=2)
    caption(fig, turns, eps=[level], images=images, marks=merged.interval.iloc[0])
    return fig


def accuracy_vs_eps(
    points: pd.DataFrame, titles: dict[str, str], *, test: int, attacked: int, chance: float = 0.1
) -> Figure:
    """Accuracy of the SNNs over eps, a panel per attack of `titles`; points: model, seed, eps255, accuracy, attack."""
    points = points[points.model.str.startswith("SNN")]
    merged = over_seeds(_counted(points, test, attacked), ["attack", "model", "eps255"], "accuracy")
    fig, axes = figure("full", aspect=0.6, columns=len(titles), sharey=True)
    names = {model: model.removeprefix("SNN, ") for model in merged.model}
    for ax, (attack, title) in zip(axes[0], titles.items(), strict=True):
        chosen = merged[merged.attack == attack]
        accuracy_curve(ax, chosen, y="accuracy", by="model", labels=names, chance=chance, legend=False)
        ax.set(title=title, xticks=sorted(chosen.eps255.unique()))
        ax.label_outer()
    legend_below(fig, axes[0, 0], columns=3)
    caption(fig, points, images=0, marks=f"SNNs; {_counts(test, attacked)}; {merged.interval.iloc[0]}")
    return fig


def spikes_per_layer(spikes: pd.DataFrame, steps: int, images: int) -> Figure:
    """Spikes per neuron and image in each spiking layer; spikes: model, seed, number, spikes_per_neuron."""
    merged = over_seeds(spikes, ["model", "number"], "spikes_per_neuron")
    fig, axes = figure("full", aspect=0.55)
    ax = axes[0, 0]
    names = {model: model.removeprefix("SNN, ") for model in merged.model}
    curves(ax, merged, x="number", y="spikes_per_neuron", by="model", names=names, scale=1)
    ax.set(xlabel="spiking layer", ylabel=f"spikes per neuron in T = {steps} steps", ylim=(0, None))
    ax.set_xticks(sorted(merged.number.unique()))
    legend_below(fig, ax)
    caption(fig, spikes, images=images, marks=f"SNNs, mean per image; {merged.interval.iloc[0]}")
    return fig


def operations(totals: pd.DataFrame, images: int, costs: Sequence[str] = COSTS) -> Figure:
    """Spikes and operations of each SNN over those of the one trained end to end: columns "…, over end to end"."""
    fig, axes = figure("full", aspect=0.45, columns=len(costs), sharey=True)
    names = {model: model.removeprefix("SNN, ").replace("conversion from ", "from ") for model in totals.model}
    for ax, cost in zip(axes[0], costs, strict=True):
        column = f"{cost}, over end to end"
        merged = over_seeds(totals, ["model"], column)
        bars(ax, merged, rows="model", value=column, names=names, scale=1, each=totals)
        ax.axvline(1, color="black", linewidth=1, linestyle="--")
        ax.set_xlabel(f"{cost},\nover end to end")
    caption(fig, totals, images=images, marks=f"dots: seeds; dashed: end to end, equal time; {merged.interval.iloc[0]}")
    return fig
