"""How every picture looks, and what it says of itself.

One colour, marker and dash per network and per attack, in all notebooks; no colour stands for one of each. Sizes are
chosen for a page that is 8 inches wide: at half that width labels are still legible.
"""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from snnlib.errors import InputError

WIDTHS = {"full": 8.0, "half": 4.0}
PALETTE = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494", "#56b4e9")
"""seaborn's "colorblind" without its two palest, told apart by colour-blind readers; networks wear its colours."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.5), (1, 1), (4, 1.5, 1, 1.5))
GREY, GRID = "#555555", "#D5D9DD"

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


@dataclass(frozen=True)
class Look:
    """How one thing is drawn. dash: on and off lengths in line widths, () for solid. hollow: markers are not filled."""

    colour: str
    marker: str = "o"
    dash: tuple[float, ...] = ()
    hollow: bool = False

    @property
    def line(self) -> dict:
        """The look as matplotlib's options of a line."""
        dash = (0, self.dash) if self.dash else "-"
        return {"color": self.colour, "linestyle": dash, **self.points}

    @property
    def points(self) -> dict:
        """The look as matplotlib's options of markers without a line."""
        return {"marker": self.marker, "mfc": "white" if self.hollow else self.colour, "mec": self.colour}


OBJECTIVES = {
    "natural": Look(PALETTE[6], "o"),
    "AT": Look(PALETTE[7], "s"),
    "TRADES": Look(PALETTE[3], "^"),
    "MART": Look(PALETTE[5], "D"),
}
NETWORKS = {
    "SEW-ResNet-18, max pool": Look(PALETTE[0], "o"),
    "SEW-ResNet-18, average pool": Look(PALETTE[1], "s"),
    "SEW-ResNet-18, defended": Look(PALETTE[2], "^"),
    "Spiking-ResNet-18, max pool": Look(PALETTE[4], "D"),
    "ANN proxy": Look("#4d4d4d", "v"),
    "SNN, end to end, equal time": Look("#000000", "P"),
    "SNN, end to end, equal steps": Look("#8c7f00", "X"),
    **{f"SNN, conversion from {name}": each for name, each in OBJECTIVES.items()},
    **{f"ANN, {name}": replace(each, dash=DASHES[1], hollow=True) for name, each in OBJECTIVES.items()},
}
ATTACKS = {
    "clean": Look("#bbbbbb", "o"),
    "random_noise": Look("#bba63c", "o", hollow=True),
    "fgsm": Look("#88ccee", "s"),
    "pgd": Look("#332288", "D"),
    "apgd ce": Look("#44aa99", "s"),
    "apgd ce + ensemble": Look("#117733", "^"),
    "apgd margin": Look("#999933", "v"),
    "all white-box": Look("#661100", "D"),
    "transfer": Look("#6699cc", "v", hollow=True),
    "square": Look("#cc6677", "s", DASHES[2], hollow=True),
    "spsa": Look("#aa4499", "D", DASHES[1], hollow=True),
    "rays": Look("#882255", "^", hollow=True),
    "bit_flip": Look("#cc6677", "X"),
}
"""By Tol's "muted" colours, also told apart by colour-blind readers. Hollow: works without the network's gradient."""
THREATS = {  # from the authors' own to the deployed network's, in order of increasing trust
    "authors, drifting BN": Look("#b6d7a8", "o", DASHES[2]),
    "authors": Look("#7fb069", "o"),
    "encoded, BN eval": Look("#4f8a5b", "s"),
    "image": Look("#20504f", "D"),
    "image, smooth encoder": Look("#20304f", "^", DASHES[1]),
}
KIND_COLOURS = {
    "convolution": "#77aadd",
    "normalisation": "#99ddff",
    "neuron": "#ee8866",
    "pool": "#44bb99",
    "linear": "#aaaa00",
    "other": "#999999",
}
"""By Tol's "light" colours: families of operations are neither networks nor attacks."""
GRADIENTS = {
    "own": ATTACKS["pgd"],
    "pool": Look(KIND_COLOURS["pool"], "v"),
    "surrogate": Look(KIND_COLOURS["neuron"], "o"),
    "rule": Look("#ffaabb", "P"),
    "encoder": Look("#bbcc33", "X"),
    "BatchNorm": Look(KIND_COLOURS["normalisation"], "D"),
}
"""What an attacker differentiates in another way than the network does."""
LOOKS = NETWORKS | ATTACKS | THREATS | GRADIENTS | {"follow-up": Look("#c2a5cf", "X")}


def look(label: Hashable) -> Look:
    """The look of a network, an attack or a threat model; of an unknown label one that is always the same."""
    number = zlib.crc32(str(label).encode())
    unknown = Look(PALETTE[number % 8], MARKERS[number // 8 % 8], DASHES[number // 64 % 4])
    return LOOKS.get(str(label), unknown)


def looks(labels: Iterable[Hashable]) -> dict[Hashable, Look]:
    """The looks of what one picture shows together: numbers take shades of one colour, in their order, and unknown
    labels give way to each other and to known ones."""
    labels = list(dict.fromkeys(labels))
    if labels and all(isinstance(label, Real) for label in labels):
        shades = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(labels)))
        return {
            label: Look(to_hex(shades[place]), MARKERS[place % 8], DASHES[place % 4])
            for place, label in enumerate(sorted(labels))
        }
    found = {label: look(label) for label in labels}
    taken = [each for label, each in found.items() if str(label) in LOOKS]
    for label in sorted((label for label in labels if str(label) not in LOOKS), key=str):
        own = found[label]
        colour = _free(own.colour, PALETTE, {each.colour for each in taken})
        found[label] = replace(own, colour=colour, marker=_free(own.marker, MARKERS, {each.marker for each in taken}))
        taken.append(found[label])
    return found


def _free(first: str, choice: Sequence[str], taken: set[str]) -> str:
    start = choice.index(first)
    return next((each for each in (*choice[start:], *choice[:start]) if each not in taken), first)


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


def legend_below(drawn: Figure, ax: Axes, columns: int = 3) -> None:
    """One legend for all panels of a figure, under them and under its caption, with the entries of `ax`."""
    handles, labels = ax.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=columns)
    _write_caption(drawn, drawn.get_supxlabel())


def caption(
    drawn: Figure,
    table: pd.DataFrame | None = None,
    *,
    networks: str | None = None,
    images: int | None = None,
    seeds: Sequence[int] | None = None,
    eps: Sequence[float] | str | None = None,
    marks: str | None = None,
) -> None:
    """A small line under the axes: which network, how many images, seeds, which eps (1/255), what the bands are.

    What is not given is read from the table's columns model, samples, seed, eps255 and interval; a table of several
    networks names none of them here, since its legend or panels do. Errors: InputError where there is nothing to say.
    """
    told = _told(table if table is not None else pd.DataFrame())
    given = {"networks": networks, "images": images, "seeds": seeds, "eps": eps, "marks": marks}
    told |= {name: value for name, value in given.items() if value is not None}
    parts = [told["networks"], f"{told['images']} images" if told["images"] else ""]
    if len(told["seeds"]):
        parts.append(f"seed{'s' * (len(told['seeds']) > 1)} {', '.join(map(str, told['seeds']))}")
    if len(told["eps"]):
        levels = told["eps"] if isinstance(told["eps"], str) else ", ".join(f"{level:.3g}" for level in told["eps"])
        parts.append(f"eps {levels} (1/255)")
    text = " · ".join(part for part in [*parts, told["marks"]] if part)
    if not text:
        raise InputError("the caption is empty; give networks, images, seeds, eps or a table that has them")
    lines = textwrap.wrap(text, width=int(16.5 * drawn.get_figwidth()))
    _write_caption(drawn, "\n".join(lines))


def _write_caption(drawn: Figure, text: str) -> None:
    # matplotlib's layout puts a legend outside of the axes and a label of the figure on top of each other
    drawn.supxlabel("" if drawn.legends else text, fontsize=8, color=GREY)
    for legend in drawn.legends if text else ():
        legend.set_title(text, prop={"size": 8})
        legend.get_title().set(color=GREY, multialignment="center")


def _told(table: pd.DataFrame) -> dict:
    def values(column: str) -> list:
        return sorted(table[column].dropna().unique().tolist()) if column in table else []

    models, samples = values("model"), values("samples")
    return {
        "networks": models[0] if len(models) == 1 else "",
        "images": " to ".join(map(str, dict.fromkeys((samples[0], samples[-1])))) if samples else "",
        "seeds": values("seed"),
        "eps": [level for level in values("eps255") if level > 0],
        "marks": "; ".join(values("interval")),
    }


def measured_ticks(ax: Axes, values: Iterable[float]) -> None:
    """Logarithmic x axis whose only ticks are the values that were measured."""
    values = list(values)
    ax.set_xscale("log")
    ax.set_xticks(values, [f"{value:g}" for value in values], minor=False)
    ax.set_xticks([], minor=True)


def missing(ax: Axes, place: float, reason: str, size: float = 8) -> None:
    """Say at the row `place` of horizontal bars why none is there."""
    where = {"transform": ax.get_yaxis_transform(), "va": "center_baseline", "ha": "left"}
    ax.text(0.01, place, reason, fontsize=size, fontstyle="italic", color=GREY, **where)
