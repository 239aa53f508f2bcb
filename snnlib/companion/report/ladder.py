"""The picture of the front page: one network, from the first paper's own protocol to every attack that was tried."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from snnlib.companion import paths
from snnlib.companion.measure.rows import wilson_interval
from snnlib.companion.report import style
from snnlib.errors import InputError
from snnlib.files import write_atomic

NETWORK, EPS255 = "SEW-ResNet-18, max pool", 6
RUNGS = {
    "authors": "the authors' protocol: code attacked, batch statistics",
    "encoded, BN eval": "the same, BatchNorm as deployed",
    "image": "the image attacked instead of the code",
}
FILE, SOURCES = "ladder.png", ("12_ladder.csv", "leaderboard.csv")


def ladder_profile() -> str:
    """The largest profile of which all steps are published. Errors: InputError where there is none."""
    for profile in paths.published_with(*SOURCES):
        by_pgd, board = _measured(profile)
        if len(board) == 1 and set(RUNGS) <= set(by_pgd.index):
            return profile
    raise InputError(f"no profile in {paths.FIGURES} has all steps of the ladder; publish notebook 12 of one")


def ladder_steps(profile: str) -> pd.DataFrame:
    """step, share and its 95 % interval low, high: accuracy of `NETWORK` without attack, left by PGD in each threat
    model, and left by every stored attack on images (the leaderboard's); profile, images, seeds, attacks (of the last).

    Each share is a mean over the seeds, its interval (Wilson) over the images.
    """
    by_pgd, board = _measured(profile)
    top = board.iloc[0]
    shares = {"no attack": top.clean}
    shares |= {text: by_pgd["mean"][name] for name, text in RUNGS.items()}
    shares["every attack here, the worst case per image"] = top.robust
    lines = [(step, share, *wilson_interval(share * top.images, top.images)) for step, share in shares.items()]
    told = {"profile": profile, "images": top.images, "seeds": top.seeds, "attacks": top.attacks.replace("_", " ")}
    return pd.DataFrame(lines, columns=["step", "share", "low", "high"]).assign(**told)


def _measured(profile: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of `NETWORK` at `EPS255`: what PGD leaves, by threat model; its line of the leaderboard."""
    ladder, board = (pd.read_csv(paths.published_dir(profile) / name) for name in SOURCES)
    by_pgd = ladder.query("model == @NETWORK and attack == 'pgd'").set_index("threat_model")
    return by_pgd, board[(board.network == NETWORK) & (board.eps255 == EPS255)]


def percent(share: float, digits: int = 1) -> str:
    """A share in percent; halves, which are exact in few images, are rounded up."""
    return f"{100 * share + 1e-9:.{digits}f}"


def in_words(steps: pd.DataFrame) -> str:
    """The numbers of the picture, for those who do not see it."""
    told = [f"{row.step} {percent(row.share)} %" for row in steps.itertuples()]
    about = f"{NETWORK}, profile {steps.profile[0]}, eps {EPS255}/255"
    return f"{about}, images still classified correctly: {'; '.join(told)}"


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
    room = max(60, 122 * steps.high.max())  # for the number behind the longest bar
    ax.set(xlim=(0, room), ylim=(len(steps) - 0.6, -0.75), yticks=[], xlabel="images still classified correctly (%)")
    ax.grid(False)
    ax.set_title(f"One network, one eps ({EPS255}/255),\nfive ways to measure its robustness", fontsize=11, loc="left")
    size = f"{steps.images[0]} images, {steps.seeds[0]} seeds, profile {steps.profile[0]}"
    about = f"{NETWORK}, {size};\n95 % intervals; attacks are PGD, but for the last step"
    fig.supxlabel(about, fontsize=8, color=style.GREY)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=200, metadata={"Software": None, "Description": in_words(steps)})
    plt.close(fig)
    return buffer.getvalue()


def write_ladder() -> Path:
    """Draw it to `figures/ladder.png`."""
    return write_atomic(paths.FIGURES / FILE, draw_ladder(ladder_steps(ladder_profile())))
