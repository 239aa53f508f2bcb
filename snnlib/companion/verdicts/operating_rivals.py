"""Rivals that have not learned, put through every rule from rows: no claim may be decided by them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from snnlib.companion.ours.audit import DENSE, OWN
from snnlib.companion.ours.further import AFTER, TRANSFERRED, WAYS
from snnlib.companion.ours.further import NATURAL as NATURAL_START
from snnlib.companion.verdicts import adaptive, audit, black_box, further, luu2025, ozdenizci2024, theorems
from snnlib.companion.verdicts.rules import Judgement

RIVALS = {"constant": (0.1, 0.0), "collapsed": (0.2, 1.0)}
"""Clean accuracy and entropy, in bits, of a network with one answer, and of one that tells two classes apart."""
SOUND = (0.6, 3.2)
IMAGES, SEEDS, LEVEL = 200, 2, 4
NATURAL, TRADES = (f"{ozdenizci2024.CONVERSION}{name}" for name in ("natural", "TRADES"))
END_TO_END = f"{ozdenizci2024.END_TO_END}, equal time"


def judged_with_rival(claim: str, rival: str, seed: int = 0) -> Judgement | None:
    """The verdict where one network compared is `rival`, from `RIVALS`, and the other one is sound.

    None for the theorems, which speak of any network.
    """
    return RULES[claim](rival, np.random.default_rng(seed)) if claim in RULES else None


def rows_of(random: np.random.Generator, model: str, rival: str = "", kept: float = 0.4, **columns) -> pd.DataFrame:
    """Rows of one attack on a sound network that keeps that share, or on a rival: what it gets right, it keeps."""
    labels = np.arange(IMAGES) % 10
    tables = []
    for seed in range(SEEDS):
        if rival:
            correct = stands = labels < (1 if rival == "constant" else 2)
        else:
            correct = random.random(IMAGES) < SOUND[0]
            stands = correct & (random.random(IMAGES) < kept / SOUND[0])
        tables.append(
            pd.DataFrame({"sample": range(IMAGES), "success": ~stands, "clean_correct": correct, "seed": seed})
        )
    names = {"model": model, "dataset": "d", "split": "test", "eps": LEVEL / 255, "eps255": LEVEL, **columns}
    return pd.concat(tables, ignore_index=True).assign(**names)


def accuracies_of(sound: str, rival_model: str, rival: str) -> pd.DataFrame:
    """Accuracies and entropies of a sound network and of the rival."""
    tables = [(sound, SOUND), (rival_model, RIVALS[rival])]
    return pd.DataFrame(
        [
            {"model": model, "seed": seed, "test_accuracy": clean, "class_entropy": entropy, "test_images": 1000}
            for model, (clean, entropy) in tables
            for seed in range(SEEDS)
        ]
    )


def _pair(random: np.random.Generator, sound: str, other: str, rival: str, **columns) -> tuple:
    rows = [rows_of(random, sound, **columns), rows_of(random, other, rival, **columns)]
    return pd.concat(rows, ignore_index=True), accuracies_of(sound, other, rival)


def _c1(rival: str, random: np.random.Generator) -> Judgement:
    return ozdenizci2024.judge_against_end_to_end(*_pair(random, TRADES, END_TO_END, rival), LEVEL)


def _c2(rival: str, random: np.random.Generator) -> Judgement:
    return ozdenizci2024.judge_clean_accuracy(accuracies_of(TRADES, "ANN, TRADES", rival), ["TRADES"])


def _c3(rival: str, random: np.random.Generator) -> Judgement:
    return ozdenizci2024.judge_transfer(*_pair(random, TRADES, NATURAL, rival), ["TRADES"], LEVEL)


def _c4(rival: str, random: np.random.Generator) -> Judgement:
    members = [_pair(random, TRADES, END_TO_END, rival, surrogate=name) for name in ("training", "other")]
    rows = pd.concat([rows for rows, _ in members], ignore_index=True)
    return ozdenizci2024.judge_ensemble(rows, members[0][1], "training")


def _ablated(claim: str) -> Callable:
    def rule(rival: str, random: np.random.Generator) -> Judgement:
        rows, accuracies = _pair(random, TRADES, "ablated", rival)
        moved = pd.Series(0.5, range(SEEDS))
        return ozdenizci2024.judge_ablation(
            claim, rows, accuracies, TRADES, "ablated", LEVEL, moved, "tuned against frozen"
        )

    return rule


def _zeros(rule: Callable) -> Callable:
    def judged(rival: str, random: np.random.Generator) -> Judgement:
        shares = {"in_blocks": 0.5, luu2025.WITHOUT_SHORTCUTS: 0.5, "at_stem_pool": 0.8}
        table = [
            {
                "model": model,
                "seed": seed,
                "batch_norm": "train",
                **{name: part * share for name, share in shares.items()},
            }
            for model, part in ((luu2025.MAX, 1), (luu2025.AVERAGE, 0.1))
            for seed in range(SEEDS)
        ]
        return rule(pd.DataFrame(table), accuracies_of(luu2025.AVERAGE, luu2025.MAX, rival), IMAGES)

    return judged


def _l3(rival: str, random: np.random.Generator) -> Judgement:
    rows, accuracies = _pair(random, luu2025.MAX, luu2025.DEFENDED, rival, threat_model="image")
    return audit.judge_undefended(rows, rows, accuracies)


def _l4(rival: str, random: np.random.Generator) -> Judgement:
    return audit.judge_trade(*_pair(random, luu2025.MAX, luu2025.AVERAGE, rival, threat_model="image"))


def _l6a(rival: str, random: np.random.Generator) -> Judgement:
    rows = rows_of(random, luu2025.MAX, rival)
    count = random.integers(100, 1000, len(rows)).astype(float)
    ranking = rows.assign(l0=count, rho_adv=count, l1_squared=count, l2_squared=count)
    dose = pd.DataFrame(columns=["model", "seed", "network_is", "sample", "share", "nonzeros", "rho_adv"])
    return theorems.judge_scaling(ranking, dose, accuracies_of("other", luu2025.MAX, rival))


def _l6b(rival: str, random: np.random.Generator) -> Judgement:
    attackers = [
        rows_of(random, luu2025.MAX, rival, attacker=name, threat_model=space)
        for name in (OWN, DENSE)
        for space in audit.SPACE_NAMES
    ]
    zeros = pd.DataFrame({"model": luu2025.MAX, "seed": range(SEEDS), "zeros_own": 0.8, "zeros_dense": 0.0})
    seen = pd.DataFrame({"keep": [0.1, 1.0], "success": [0.2, 0.5]})
    accuracies = accuracies_of("other", luu2025.MAX, rival)
    return audit.judge_filled(pd.concat(attackers, ignore_index=True), zeros, seen, accuracies)


def _attack(rule: Callable) -> Callable:
    def judged(rival: str, random: np.random.Generator) -> Judgement:
        costs = ({"forwards": 9, "backwards": 9}, {"forwards": 2, "backwards": 2})
        first, second = (_pair(random, TRADES, END_TO_END, rival, **cost) for cost in costs)
        single = {"one alone": second[0]}
        return rule(first[0], single, first[1])

    return judged


def _q2(rival: str, random: np.random.Generator) -> Judgement:
    white = _pair(random, TRADES, END_TO_END, rival, access="white-box", attack="apgd ce")
    free = white[0].assign(success=~white[0].clean_correct, access="score", attack="square")
    return black_box.judge_gradient_free(pd.concat([white[0], free], ignore_index=True), white[1])


def _q3(rival: str, random: np.random.Generator) -> Judgement:
    models = (f"{TRANSFERRED}HAT", f"{TRANSFERRED}{NATURAL_START}")
    return further.judge_objectives(*_pair(random, *models, rival), ["HAT"], LEVEL)


def _q4(rival: str, random: np.random.Generator) -> Judgement:
    plain, *others = (f"{AFTER}{way}" for way in WAYS)
    pairs = [_pair(random, plain, other, rival) for other in others]
    rows, accuracies = pairs[0]
    for more, clean in pairs[1:]:
        rows, accuracies = (
            pd.concat([table, new[new.model != plain]], ignore_index=True)
            for table, new in ((rows, more), (accuracies, clean))
        )
    passes = pd.DataFrame({"way": WAYS, "passes": 6.0})
    return further.judge_ways(rows, accuracies, passes, LEVEL)


RULES = {
    "L1": _zeros(luu2025.judge_block_sparsity),
    "L2": _zeros(luu2025.judge_pool_effect),
    "L3": _l3,
    "L4": _l4,
    "L6a": _l6a,
    "L6b": _l6b,
    "C1": _c1,
    "C2": _c2,
    "C3": _c3,
    "C4": _c4,
    "C5": _ablated("C5"),
    "C6": _ablated("C6"),
    "Q1a": _attack(adaptive.judge_schedule),
    "Q1b": _attack(adaptive.judge_choice),
    "Q1c": _attack(adaptive.judge_worst_case),
    "Q2": _q2,
    "Q3": _q3,
    "Q4": _q4,
}
