"""The pictures of the event chapter (notebook 17): recordings in space and time, and what attacks leave of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from snnlib.companion.luu2025.events import IN_EVENTS
from snnlib.companion.measure.rows import robust_accuracy
from snnlib.companion.report import style
from snnlib.companion.report.statistical import bars, curves, over_seeds
from snnlib.companion.report.style import measured_ticks

OFF_ON = ("#0173b2", "#d55e00")
CHANGED = "#029e73"
PIXELS = {"image": "on the image", "float frames": "on float frames"}


def recordings(image: Tensor, films: Mapping[str, np.ndarray], height: int) -> Figure:
    """An image [3, H, W], and recordings of it as points in x, time and y. films: title to structured array."""
    fig = plt.figure(figsize=(8, 3.3), layout="constrained")
    parts = fig.add_gridspec(1, 1 + 2 * len(films))
    ax = fig.add_subplot(parts[0])
    ax.imshow(image.permute(1, 2, 0).numpy())
    ax.set_axis_off()
    ax.set_title("image", fontsize=11)
    for number, (title, events) in enumerate(films.items()):
        space = fig.add_subplot(parts[1 + 2 * number : 3 + 2 * number], projection="3d")
        for polarity, name in enumerate(("OFF", "ON")):
            chosen = events[events["p"] == polarity]
            place = chosen["x"], chosen["t"] / 1000, height - 1 - chosen["y"]
            space.scatter(*place, s=1.2, color=OFF_ON[polarity], depthshade=False, label=name, alpha=0.6)
        space.set(xlabel="x (pixels)", ylabel="time (ms)", zlabel="y (pixels)")
        space.set_title(f"{title}: {len(events):,} events", fontsize=11)
        space.tick_params(labelsize=7, pad=-2)
        for axis in (space.xaxis, space.yaxis, space.zaxis):
            axis.label.set_size(8)
            axis.labelpad = -6
        space.set_box_aspect((1, 1.6, 1), zoom=0.9)
        space.view_init(elev=18, azim=-55)
    handles, labels = space.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2, markerscale=6)
    return fig


def recordings_under_attack(rows: pd.DataFrame, models: Sequence[str]) -> Figure:
    """Accuracy left by each attack alone over the cells that may change, and by the worst of all; a panel per network.

    rows: of `luu2025.events.on_attacked`.
    """
    chosen = rows[rows.kind.isin(IN_EVENTS) & rows.model.isin(models)]
    key = ["model", "seed", "amount"]
    worst = robust_accuracy(chosen, by=key).assign(attack="worst of all")
    merged = over_seeds(pd.concat([robust_accuracy(chosen, by=[*key, "attack"]), worst]), ["model", "attack", "amount"],
                        "robust_accuracy")  # fmt: skip
    fig, axes = style.figure("full", aspect=0.62, columns=len(models), sharey=True)
    for ax, model in zip(axes[0], models, strict=True):
        curves(ax, merged[merged.model == model], x="amount", y="robust_accuracy", by="attack")
        measured_ticks(ax, sorted(merged.amount.unique()))
        top = 105 * merged.high.max()
        ax.set(title=model.replace(", ", ",\n"), xlabel="cells that may change", ylim=(0, top))
        ax.set_ylabel("accuracy left (%)")
        ax.label_outer()
    style.legend_below(fig, axes[0, 0], columns=4)
    style.caption(fig, merged, seeds=sorted(chosen.seed.unique()), marks=merged.interval.iloc[0])
    return fig


def image_and_events(rows: pd.DataFrame, model: str) -> Figure:
    """The same network attacked on the image, on its events as floats, and on recordings: accuracy left, and what
    happens to the events; a point per attack and budget."""
    chosen = rows[(rows.model == model) & (rows.clean_correct.astype(bool) | rows.success.astype(bool))]
    pixels = chosen[chosen.kind.isin(PIXELS)]
    key = ["kind", "seed", "amount"]
    left = over_seeds(robust_accuracy(pixels, by=key), ["kind", "amount"], "robust_accuracy")
    fig, axes = style.figure("full", aspect=0.5, columns=2)
    curves(axes[0, 0], left, x="amount", y="robust_accuracy", by="kind", names=PIXELS)
    axes[0, 0].set(xlabel="eps (1/255)", ylabel="accuracy left (%)", title="the same network, two threat models",
                   ylim=(0, None), xticks=sorted(left.amount.unique()))  # fmt: skip
    axes[0, 0].legend()
    image = pixels[(pixels.kind == "image") & pixels.success & (pixels.changed > 0)]
    share = image.assign(share=image.changed / image.events)
    wide = share.groupby("amount").share.quantile([0.25, 0.5, 0.75]).unstack()
    table = wide.reset_index().rename(columns={0.25: "low", 0.5: "share", 0.75: "high"})
    if len(table):
        curves(axes[0, 1], table, x="amount", y="share")
    axes[0, 1].set(xlabel="eps on the image (1/255)", ylabel="changed cells (% of events)",
                   ylim=(0, None),
                   title="what an image attack does to the events", xticks=sorted(left.amount.unique()))  # fmt: skip
    marks = f"{left.interval.iloc[0]}; right: successful attacks, median and quartiles"
    style.caption(fig, left, networks=model, seeds=sorted(pixels.seed.unique()), marks=marks)
    return fig


def filters(table: pd.DataFrame) -> Figure:
    """Accuracy behind each filter: without attack, attacked without it, attacked through it. table: `filter_rows`."""
    kinds = {"clean": "no attack", "unaware": "flips found without the filter", "adaptive": "flips found through it"}
    long = table.melt(["filter", "seed", "images"], list(kinds), "attack", "accuracy")
    merged = over_seeds(long.rename(columns={"images": "samples"}), ["filter", "attack"], "accuracy")
    fig, axes = style.figure("full", aspect=0.45)
    bars(axes[0, 0], merged, rows="filter", value="accuracy", by="attack", names=kinds)
    cells = table.cells.iloc[0]
    axes[0, 0].set(xlabel="accuracy (%)", title=f"a filter before the network, {cells} cells changed by greedy flips")
    style.legend_below(fig, axes[0, 0])
    about = {"networks": table.model.iloc[0], "seeds": sorted(table.seed.unique())}
    style.caption(fig, merged, marks=merged.interval.iloc[0], **about)
    return fig


def animation(panels: Mapping[str, Tensor], milliseconds: int = 400) -> bytes:
    """Rasters [T, 2, H, W] of 0 and 1 side by side, bin after bin, as an animated GIF. Later panels show in green what
    differs from the first."""
    first = next(iter(panels.values()))
    fig, axes = plt.subplots(1, len(panels), figsize=(2.4 * len(panels), 2.7), dpi=80, squeeze=False)
    drawn = [_frame(ax, title) for ax, title in zip(axes[0], panels, strict=True)]

    pictures = []
    for step in range(len(first)):
        for shown, raster in zip(drawn, panels.values(), strict=True):
            shown.set_data(_colours(raster[step], first[step]))
        fig.suptitle(f"bin {step + 1} of {len(first)}", fontsize=9)
        fig.canvas.draw()
        pixels = np.asarray(fig.canvas.buffer_rgba())[..., :3]
        pictures.append(Image.fromarray(pixels).quantize(16))
    plt.close(fig)
    target = io.BytesIO()
    pictures[0].save(target, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    return target.getvalue()


def _frame(ax: Axes, title: str):
    ax.set_axis_off()
    ax.set_title(title, fontsize=9)
    return ax.imshow(np.ones((2, 2, 3)))


def _colours(raster: Tensor, before: Tensor) -> np.ndarray:
    """[H, W, 3]: blue OFF, orange ON, green where a cell of either polarity differs from `before`."""
    picture = np.ones((*raster.shape[1:], 3))
    for polarity, colour in enumerate(OFF_ON):
        picture[raster[polarity].numpy() > 0] = _rgb(colour)
    picture[(raster != before).any(0).numpy()] = _rgb(CHANGED)
    return picture


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
