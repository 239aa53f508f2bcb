"""Claims L3, L4 and L6b: what is left after every attack, and what exact zeros have to do with it.

Judged on images, the threat model of the field; the code is evidence.
"""

from __future__ import annotations

import pandas as pd

from snnlib.companion.measure.rows import clean_accuracy, robust_accuracy
from snnlib.companion.ours.audit import DENSE, OWN
from snnlib.companion.verdicts.effects import EFFECTS
from snnlib.companion.verdicts.luu2025 import AVERAGE, DEFENDED, MAX
from snnlib.companion.verdicts.preconditions import (
    COMPARATOR,
    FLOOR,
    no_room,
    not_applied,
    not_learned,
    standing,
    told,
)
from snnlib.companion.verdicts.rules import Judgement, judge, of_differences, of_shares, untestable
from snnlib.errors import InputError

SPACE_NAMES = {"image": "on images", "encoded": "on the code"}


def worst_case(rows: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy per threat model, model, seed and eps: per sample the worst of all rows."""
    return robust_accuracy(rows, by=["threat_model", "model", "seed", "eps255"])


def clean_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Clean accuracy per model and seed, on the images of these rows."""
    return clean_accuracy(rows, by=["model", "seed"])[["model", "seed", "clean_accuracy"]]


def success_among_correct(robust: pd.DataFrame, clean: pd.DataFrame) -> pd.DataFrame:
    """`robust` (of `worst_case`) with the column success: share of the correct images that some attack fooled.

    clean: model, seed and clean_accuracy on the same images.
    """
    joined = robust.merge(clean, on=["model", "seed"], validate="many_to_one")
    return joined.assign(success=1 - joined.robust_accuracy / joined.clean_accuracy)


def deciding_level(robust: pd.DataFrame, space: str, models: tuple[str, ...], floor: float = FLOOR) -> int | None:
    """The largest eps (1/255) at which one of `models` keeps `floor` on average; below it nothing can be compared."""
    rows = robust[(robust.threat_model == space) & robust.model.isin(models)]
    means = rows.groupby(["eps255", "model"]).robust_accuracy.mean().groupby("eps255").max()
    kept = means[means >= floor]
    return None if kept.empty else int(kept.index.max())


def judge_undefended(rows: pd.DataFrame, protocol: pd.DataFrame, accuracies: pd.DataFrame) -> Judgement:
    """L3: on images, after the worst of all attacks, the vanilla network is as robust as the defended one.

    At the largest eps at which the defended network keeps `COMPARATOR`; not testable where it never does. rows: of all
    attacks, with threat_model and eps255. protocol: of the authors' attack alone, with clean_correct, as evidence.
    """
    robust = worst_case(rows)
    evidence = f"{_elsewhere(robust)}; the authors' protocol alone leaves {_pair(worst_case(protocol))}"
    level = deciding_level(robust, "image", (DEFENDED,), COMPARATOR)
    if level is None:
        best = robust[(robust.model == DEFENDED) & (robust.threat_model == "image")].groupby("eps255").robust_accuracy
        kept = f"{100 * best.mean().max():.1f} % at most on images, expected {COMPARATOR:.0%}"
        return untestable("L3", f"the defended network is not robust itself ({kept}); {evidence}", **_size(rows, MAX))
    chosen = _at(rows, "image", level)
    tables = standing(chosen, [MAX, DEFENDED])
    found = of_differences(EFFECTS["L3"], (tables[MAX] - tables[DEFENDED]).to_numpy())
    return judge(
        {"L3": found},
        f"{told(chosen, {'vanilla': [MAX], 'defended': [DEFENDED]}, protocol)}; {evidence}",
        seeds=[int(seed) for seed in tables[MAX].index],
        samples=tables[MAX].shape[1],
        failures=not_learned(accuracies, [MAX, DEFENDED]),
        words={"L3": f"vanilla minus defended, standing at {level}/255 on images"},
    )


def judge_trade(rows: pd.DataFrame, accuracies: pd.DataFrame) -> Judgement:
    """L4: average pool has the higher clean accuracy (all test images) and, on images, the lower robust accuracy.

    At the largest eps at which one of the two networks keeps `FLOOR`; not testable where neither does. rows: as L3;
    accuracies: with test_images as well.
    """
    robust = worst_case(rows)
    level = deciding_level(robust, "image", (MAX, AVERAGE))
    if level is None:
        return untestable("L4", f"neither network keeps {FLOOR:.0%} on images at any eps", **_size(rows, MAX))
    tables = standing(_at(rows, "image", level), [MAX, AVERAGE])
    seeds = list(tables[MAX].index)
    failures = not_learned(accuracies, [MAX, AVERAGE])
    clean = accuracies.pivot(index="seed", columns="model", values="test_accuracy").loc[seeds]
    shares = clean[[AVERAGE]].to_numpy(), clean[[MAX]].to_numpy()
    parts = {
        "L4": of_differences(EFFECTS["L4"], (tables[MAX] - tables[AVERAGE]).to_numpy()),
        "L4 clean": of_shares(EFFECTS["L4 clean"], *shares, int(accuracies.test_images.min())),
    }
    kept = {"max pool": float(tables[MAX].mean(axis=None)), "average pool": float(tables[AVERAGE].mean(axis=None))}
    return judge(
        parts,
        "",
        seeds=[int(seed) for seed in seeds],
        samples=tables[MAX].shape[1],
        failures=[*failures, *no_room(kept)],
        words={
            "L4": f"max minus average pool, standing at {level}/255 on images",
            "L4 clean": "average minus max pool, clean",
        },
    )


def judge_filled(alone: pd.DataFrame, zeros: pd.DataFrame, seen: pd.DataFrame, accuracies: pd.DataFrame) -> Judgement:
    """L6b: the same weights attacked through a gradient whose zeros at the max pool are filled in: PGD leaves fewer.

    alone: one attacker at a time, of the max pool's networks (attacker, threat_model, success). zeros: zeros_own and
    zeros_dense per seed (`filled_rows`). seen: keep and success of attackers that see that share of the pixels, told.
    """
    tables = {}
    for space in SPACE_NAMES:
        rows = alone[(alone.threat_model == space) & (alone.model == MAX)]
        own, dense = (standing(rows[rows.attacker == name], [MAX])[MAX] for name in (OWN, DENSE))
        if not own.index.equals(dense.index):
            raise InputError("the two gradients are of different seeds; expected pairs; run notebook 30 again")
        tables[space] = own, dense
    own, dense = tables["image"]
    of_max = zeros[zeros.model == MAX].groupby("seed")[["zeros_own", "zeros_dense"]].mean()
    code = tables["encoded"][0].mean(axis=None) - tables["encoded"][1].mean(axis=None)
    ends = seen.groupby("keep").success.mean()
    evidence = (
        f"zeros at the max pool {100 * of_max.zeros_own.mean():.0f} -> {100 * of_max.zeros_dense.mean():.0f} %; own "
        f"gradient leaves {100 * own.mean(axis=None):.1f} %; on the code {100 * code:+.1f} points; an attacker who "
        f"sees {ends.index.min():.0%} of the pixels leaves {100 - 100 * ends.iloc[0]:.1f} instead of "
        f"{100 - 100 * ends.iloc[-1]:.1f} %"
    )
    failures = not_learned(accuracies, [MAX])
    failures += not_applied(of_max.zeros_own - of_max.zeros_dense, "filling in changes the share of zeros")
    failures += no_room({"own gradient": float(own.mean(axis=None))})
    return judge(
        {"L6b": of_differences(EFFECTS["L6b"], (own - dense).to_numpy())},
        evidence,
        seeds=[int(seed) for seed in own.index],
        samples=own.shape[1],
        failures=failures,
        words={"L6b": "own minus dense gradient, left by PGD on images"},
    )


def _at(rows: pd.DataFrame, space: str, level: int) -> pd.DataFrame:
    return rows[(rows.threat_model == space) & (rows.eps255 == level)]


def _size(rows: pd.DataFrame, model: str) -> dict:
    chosen = rows[(rows.model == model) & (rows.threat_model == "image")]
    return {"seeds": sorted(chosen.seed.unique()), "samples": chosen["sample"].nunique()}


def _pair(robust: pd.DataFrame) -> str:
    means = [100 * robust[robust.model == model].robust_accuracy.mean() for model in (MAX, DEFENDED)]
    return f"{means[0]:.1f} % vanilla, {means[1]:.1f} % defended"


def _elsewhere(robust: pd.DataFrame) -> str:
    """The code's numbers: another threat model, told and not judged."""
    level = deciding_level(robust, "encoded", (DEFENDED,))
    if level is None:
        return f"on the code the defended network keeps {FLOOR:.0%} at no eps"
    return f"on the code at {level}/255 {_pair(_at(robust, 'encoded', level))}"
