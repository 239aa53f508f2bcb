"""The leaderboard: what is left of each network after every stored attack on images, for networks attacked enough.

`figures/<profile>/leaderboard.csv`, made of the published rows. Networks that lack a kind of attack stand below the
ranked ones, with what they lack: an untried network is not a robust one.
"""

from __future__ import annotations

import json

import pandas as pd

from snnlib.companion import paths
from snnlib.companion.measure.archive import read_published
from snnlib.companion.measure.rows import SAMPLE_KEY, clean_accuracy, robust_accuracy, wilson_interval
from snnlib.companion.ozdenizci2024 import networks as conversion
from snnlib.companion.sizes import defence_size
from snnlib.files import write_atomic

STEPS = 10
SURROGATES = 3
WITHOUT_GRADIENT = ("square", "rays", "spsa")
COLUMNS = (
    *("rank", "network", "eps255", "clean", "robust", "low", "high", "seeds", "images", "attacks", "passes", "lacks"),
)


def lacks(rows: pd.DataFrame) -> list[str]:
    """What has not been run on every image of one network at one eps, of what a rank needs.

    A gradient attack of 10 steps or more; three surrogates or more, for a network that spikes; one attack that uses no
    gradient (on those still standing is enough: it is asked whether it breaks what gradients leave). The turns of the
    worst case count as what they are.
    """
    everyone = rows.groupby(["seed", *SAMPLE_KEY]).ngroups
    turn = rows.attack == "worst_case"
    # A turn of APGD spends two passes a step; whoever fell earlier has been attacked enough.
    long_turn = turn & rows.surrogate.str.startswith("apgd") & (rows.success | (rows.backwards >= STEPS))
    whole = rows.attack.isin(("pgd", "apgd", "sa_pgd", "adaptive_ensemble")) & (rows.steps >= STEPS)
    many_steps = rows[whole | long_turn]
    missing = []
    if many_steps.groupby(["seed", *SAMPLE_KEY]).ngroups < everyone:
        missing.append(f"a gradient attack of {STEPS} steps")
    spikes = not rows.model.iloc[0].startswith("ANN")
    if spikes and rows[rows.attack != "transfer"].surrogate.nunique() < SURROGATES:
        missing.append(f"{SURROGATES} surrogates")
    if not (rows.attack.isin(WITHOUT_GRADIENT) | turn & rows.surrogate.isin(WITHOUT_GRADIENT)).any():
        missing.append("an attack without gradient")
    return missing


def leaderboard(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per network and eps on test images: mean over the seeds of what survives everything, ranked per eps.

    rows: of `ROW_COLUMNS`, and image_set: a sample's number counts within its set, so that for each network and eps the
    rows of the largest set count alone. low, high: 95 % (Wilson) over the images, with the seeds' mean as share: seeds
    are not drawn anew. passes: forward and backward passes of an image, all attacks and seeds together.
    """
    chosen = rows[(rows.space == "image") & (rows.batch_norm == "eval") & (rows.norm == "linf")]
    chosen = chosen[chosen.split == "test"]
    chosen = chosen[~chosen.model.isin(conversion.STEPS) & ~chosen.model.str.fullmatch(r"\d+")]
    named = chosen.model.where(~chosen.model.isin(defence_size("paper").names), "SNN of notebook 34: " + chosen.model)
    chosen = chosen.assign(eps255=(255 * chosen.eps).round().astype(int), model=named)
    lines = []
    for (eps, model), every in chosen.groupby(["eps255", "model"]):
        group = _agreed(every[every.image_set == every.groupby("image_set")["sample"].nunique().idxmax()])
        share = robust_accuracy(group, by=["seed"]).robust_accuracy.mean()
        images = group.groupby(list(SAMPLE_KEY)).ngroups
        low, high = wilson_interval(share * images, images)
        lines.append(
            {
                "network": model,
                "eps255": eps,
                "clean": clean_accuracy(group, by=["seed"]).clean_accuracy.mean(),
                "robust": share,
                "low": low,
                "high": high,
                "seeds": group.seed.nunique(),
                "images": images,
                "attacks": ", ".join(sorted(group.attack.unique())),
                "passes": round((group.forwards + group.backwards).sum() / images),
                "lacks": "; ".join(lacks(group)),
            }
        )
    table = pd.DataFrame(lines)
    ranked = table.lacks == ""
    table["rank"] = table[ranked].groupby("eps255").robust.rank(ascending=False, method="min").astype("Int64")
    return table.sort_values(["eps255", "rank", "network"], na_position="last", ignore_index=True)[list(COLUMNS)]


def _agreed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of several devices, which round differently: right without an attack is what all of them got right."""
    if rows.device.nunique() == 1:
        return rows
    return rows.assign(clean_correct=rows.groupby(["seed", *SAMPLE_KEY]).clean_correct.transform("min"))


def publish_leaderboard(profile: str) -> None:
    """Write it beside the published rows; nothing where there are none."""
    results, rows = read_published(profile)
    if len(rows):
        image_sets = {line.result: json.loads(line.arguments)["images"] for line in results.itertuples()}
        text = leaderboard(rows.assign(image_set=rows.result.map(image_sets))).to_csv(index=False, float_format="%.4f")
        write_atomic(paths.published_dir(profile) / "leaderboard.csv", text)
