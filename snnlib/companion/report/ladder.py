"""The picture of the front page: one network, from the first paper's own protocol to every attack that was tried."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from snnlib.companion import paths
from snnlib.companion.measure.rows import wilson_interval
from snnlib.companion.report import style
from snnlib.files import write_atomic

NETWORK, EPS255 = "SEW-ResNet-18, max pool", 6
RUNGS = {
    "authors": "the authors' protocol: code attacked, batch statistics",
    "encoded, BN eval": "the same, BatchNorm as deployed",
    "image": "the image attacked instead of the code",
}
FILE = "ladder.png"


def ladder_steps(profile: str) -> pd.DataFrame:
    """step, share and its 95 % interval low, high: accuracy of `NETWORK` without attack, left by PGD in each threat
    model, and left by every stored attack on images (the leaderboard's); images, seeds.

    Each share is a mean over the seeds, its interval (Wilson) over the images.
    """
    folder = paths.published_dir(profile)
    board = pd.read_csv(folder / "leaderboard.csv")
    ((_, top),) = board[(board.network == NETWORK) & (board.eps255 == EPS255)].iterrows()
    by_pgd = pd.read_csv(folder / "12_ladder.csv").query("model == @NETWORK and attack == 'pgd'")
    shares = {"no attack": top.clean}
    shares |= {text: by_pgd.set_index("threat_model")["mean"][name] for name, text in RUNGS.items()}
    shares["every attack here, the worst case per image"] = top.robust
    lines = [(step, share, *wilson_interval(share * top.images, top.images)) for step, share in shares.items()]
    return pd.DataFrame(lines, columns=["step", "share", "low", "high"]).assign(images=top.images, seeds=top.seeds)


def percent(share: float, digits: int = 1) -> str:
    """A share in percent; halves, which are exact in few images, are rounded up."""
    return f"{100 * share + 1e-9:.{digits}f}"


def in_words(steps: pd.DataFrame) -> str:
    """The numbers of the picture, for those who do not see it."""
    told = [f"{row.step} {percent(row.share)} %" for row in steps.itertuples()]
    return f"{NETWORK}, eps {EPS255}/255, images still classified correctly: " + "; ".join(told)


def draw_ladder(steps: pd.DataFrame) -> bytes:
    """A PNG whose description is `in_words(steps)`."""
    style.use_style()
    fig, axes = style.figure("half", aspect=0.92)
    ax, places, shares = axes[0, 0], range(len(steps)), 100 * steps.share
    colours = ["#bbbbbb", *[style.look(name).colour for name in RUNGS], style.look("all white-box").colour]
    spread = [shares - 100 * steps.low, 100 * steps.high - shares]
    ax.barh(places, shares, 0.42, color=colours, xerr=spread, error_kw={"elinewidth": 1, "ecolor": style.GREY})
    for place, row in zip(places, steps.itertuples(), strict=True):
        ax.text(0, place - 0.28, row.step, fontsize=8.3, va="bottom")
        ax.text(100 * row.high + 1, place, f"{percent(row.share)} %", va="center", fontsize=10, fontweight="bold")
    ax.set(xlim=(0, 60), ylim=(len(steps) - 0.6, -0.75), yticks=[], xlabel="images still classified correctly (%)")
    ax.grid(False)
    ax.set_title(f"One network, one eps ({EPS255}/255),\nfive ways to measure its robustness", fontsize=11, loc="left")
    size = f"{steps.images[0]} images, {steps.seeds[0]} seeds"
    about = f"{NETWORK}, {size};\n95 % intervals; attacks are PGD, but for the last step"
    fig.supxlabel(about, fontsize=8, color=style.GREY)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=200, metadata={"Software": None, "Description": in_words(steps)})
    plt.close(fig)
    return buffer.getvalue()


def write_ladder(profile: str) -> Path:
    """Draw it to `figures/ladder.png`."""
    return write_atomic(paths.FIGURES / FILE, draw_ladder(ladder_steps(profile)))
