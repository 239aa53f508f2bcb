"""Claims Q1a-Q1c: do the schedule and the choice per image strengthen the attack, and is the worst case one?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from snnlib.companion.measure.rows import SAMPLE_KEY
from snnlib.companion.verdicts.effects import EFFECTS
from snnlib.companion.verdicts.preconditions import mean_of, no_room, not_learned, standing
from snnlib.companion.verdicts.rules import Judgement, judge, of_differences

SHARE_OF_PASSES = 1 / 3
"""Q1a: passes that the schedule may take, relative to those of the fixed members."""


def judge_schedule(fixed: pd.DataFrame, single: Mapping[str, pd.DataFrame], accuracies: pd.DataFrame) -> Judgement:
    """Q1a: short trials, restarts and momentum with one surrogate alone (mean over the names of `single`) break more
    images than all fixed members, with a third of their passes at most; not testable where they take more.

    Rows of one eps, result rows as in `measure.rows`; mean over the networks of each seed.
    """
    passes = float(np.mean([_passes(rows) for rows in single.values()]) / _passes(fixed))
    failures = []
    if passes > SHARE_OF_PASSES:
        failures = [f"the schedule takes {passes:.0%} of the fixed members' passes, more than a third"]
    sides = {"fixed members": {"fixed": fixed}, "one surrogate, scheduled": single}
    return _stronger("Q1a", sides, accuracies, failures, f"passes {passes:.0%} of the fixed members'")


def judge_choice(chosen: pd.DataFrame, single: Mapping[str, pd.DataFrame], accuracies: pd.DataFrame) -> Judgement:
    """Q1b: with the same schedule, choosing the surrogate per image breaks more than one surrogate alone does (mean
    over the names of `single`). Rows as for `judge_schedule`.
    """
    passes = _passes(chosen) / float(np.mean([_passes(rows) for rows in single.values()]))
    sides = {"one surrogate": single, "chosen per image": {"chosen": chosen}}
    return _stronger("Q1b", sides, accuracies, [], f"passes {passes:.0%} of one surrogate's")


def judge_worst_case(worst: pd.DataFrame, others: Mapping[str, pd.DataFrame], accuracies: pd.DataFrame) -> Judgement:
    """Q1c: the worst case breaks as many images as each of `others`, all for the same passes at most.

    Rows at the eps of each network, one attack by name, on the same images; mean over the networks of each seed.
    """
    models = sorted(worst.model.unique())
    table = _broken(worst, models)
    ours = mean_of(table, models)
    found = {f"Q1c/{name}": of_differences(EFFECTS["Q1c"], ours - mean_of(_broken(rows, models), models))
             for name, rows in others.items()}  # fmt: skip
    failures = not_learned(accuracies, models)
    failures += no_room({"left by the worst case": 1 - float(ours.mean())}, 2 * EFFECTS["Q1c"].smallest)
    seeds = [int(seed) for seed in table[models[0]].index]
    words = {name: f"worst case minus {name.removeprefix('Q1c/')}, images broken" for name in found}
    evidence = f"broken by the worst case: {100 * ours.mean():.1f} %"
    return judge(found, evidence, seeds=seeds, samples=ours.shape[1], failures=failures, words=words)


def differences(worst: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What the worst case breaks beyond each of `others`, paired: columns model, way, broken, difference, low, high, p.

    Shares of the images, mean over the seeds; low, high: 95 %. p: that the difference is not below the margin of Q1c.
    """
    lines = []
    for model in worst.model.unique():
        ours = _broken(worst, [model])[model].to_numpy()
        for way, rows in others.items():
            theirs = _broken(rows, [model])[model].to_numpy()
            found = of_differences(EFFECTS["Q1c"], ours - theirs)
            line = {"model": model, "way": way, "broken": theirs.mean(), "difference": found.value}
            lines.append(line | {"low": found.low, "high": found.high, "p": found.p})
    return pd.DataFrame(lines)


def _stronger(
    claim: str,
    sides: Mapping[str, Mapping[str, pd.DataFrame]],
    accuracies: pd.DataFrame,
    failures: list[str],
    evidence: str,
) -> Judgement:
    """Judge what the second side breaks beyond the first, per image: mean over attacks, then over networks."""
    models = sorted(set.intersection(*(set(rows.model) for side in sides.values() for rows in side.values())))
    tables = {name: [_broken(rows, models) for rows in side.values()] for name, side in sides.items()}
    before, after = (np.mean([mean_of(table, models) for table in side], axis=0) for side in tables.values())
    first, second = sides
    table = tables[first][0][models[0]]
    failures = [*failures, *not_learned(accuracies, models)]
    failures += no_room({f"left by {first}": 1 - float(before.mean())}, 2 * EFFECTS[claim].smallest)
    singly = ", ".join(f"{name} {100 * mean_of(_broken(rows, models), models).mean():.1f} %" for side in sides.values()
                       for name, rows in side.items())  # fmt: skip
    return judge(
        {claim: of_differences(EFFECTS[claim], after - before)},
        f"{evidence}; broken: {singly}",
        seeds=[int(seed) for seed in table.index],
        samples=table.shape[1],
        failures=failures,
        words={claim: f"{second} minus {first}, images broken"},
    )


def _broken(rows: pd.DataFrame, models: list[str]) -> dict[str, pd.DataFrame]:
    """Per model [seeds, images]: 1 where some row broke the image."""
    return {model: 1 - table for model, table in standing(rows, models).items()}


def _passes(rows: pd.DataFrame) -> float:
    """Forwards and backwards per attacked sample, all rows of it together."""
    samples = rows.groupby(["model", "seed", *SAMPLE_KEY]).ngroups
    return float((rows.forwards + rows.backwards).sum()) / samples
