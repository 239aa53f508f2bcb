"""Claims Q3 and Q4: do further objectives transfer as C3 asks, and does training after the conversion help?"""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from snnlib.companion.ours.further import AFTER, NATURAL, TRANSFERRED, WAYS
from snnlib.companion.verdicts.ozdenizci2024 import more_stands
from snnlib.companion.verdicts.rules import Judgement


def judge_objectives(
    rows: pd.DataFrame, accuracies: pd.DataFrame, objectives: Collection[str], level: int
) -> Judgement:
    """Q3: from an ANN trained with each objective, conversion and fine-tuning leave more standing at `level`/255 than
    from the natural ANN. Rows and accuracies of `transferred`.
    """
    pairs = {f"Q3/{name}": ([f"{TRANSFERRED}{name}"], [f"{TRANSFERRED}{NATURAL}"]) for name in objectives}
    return more_stands("Q3", rows, accuracies, level, pairs, ("further objectives", "natural start"))


def judge_ways(rows: pd.DataFrame, accuracies: pd.DataFrame, passes: pd.DataFrame, level: int) -> Judgement:
    """Q4: direct adversarial training after the conversion, with a schedule and with drawn surrogates too, each leaves
    more standing at `level`/255 than plain fine-tuning on, at no more passes.

    passes: of `passes_of_ways`; a way that takes a tenth more than fine-tuning is not compared but said to be dearer.
    """
    plain, *others = WAYS
    pairs = {f"Q4/{way}": ([f"{AFTER}{way}"], [f"{AFTER}{plain}"]) for way in others}
    taken = passes.set_index("way").passes
    dearer = [
        f"{way} takes {taken[way]:.0f} passes, {plain} {taken[plain]:.0f}"
        for way in others
        if taken[way] > 1.1 * taken[plain]
    ]
    return more_stands("Q4", rows, accuracies, level, pairs, ("direct training", plain), dearer)
