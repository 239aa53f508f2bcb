"""Attacks at equal cost on the same images (notebook 32): who falls, at how many passes (claims Q1a, Q1b, Q1c)."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

import pandas as pd

from snnlib.attacks.adaptive import CLIMB, FIRST, TRIAL
from snnlib.attacks.ensemble import MEMBERS
from snnlib.attacks.mixed_surrogates import MIXED
from snnlib.attacks.worst_case import ADAPTIVE_WIDTH, NARROW, SCHEDULE, WIDE, Turn
from snnlib.companion.luu2025 import networks as luu2025
from snnlib.companion.measure.attacked import ENCODED, Attack, attack_rows, attacked, worst_case_attack
from snnlib.companion.measure.networks import TrainedNetwork, attacked_images
from snnlib.companion.measure.rows import SAMPLE_KEY
from snnlib.companion.ozdenizci2024 import networks as ozdenizci2024
from snnlib.companion.sizes import AdaptiveSize, ConversionSize, Profile, conversion_size
from snnlib.data import ImageSet

CELL = ["model", "seed", "eps255"]
WORST, FIXED, CHOSEN = "worst case (ours)", "19 members × PGD", "adaptive, chosen per image (ours)"
ALONE = {name: f"adaptive turns, {word} alone (ours)" for name, word in zip(FIRST, ("narrow", "wide"), strict=True)}
CURVES = (WORST, FIXED, CHOSEN, "APGD-CE, training surrogate", "SA-PGD, adaptive sharpness", "mixed surrogates (MDSE)")
"""Drawn over passes; all ways are in the table of differences."""


def adaptive(item: TrainedNetwork, size: ConversionSize, levels: tuple[int, ...]) -> pd.DataFrame:
    """Rows of the adaptive ensemble on the conversion chapter's attacked images, at each level of eps (1/255)."""
    options = {"steps": size.adaptive_steps}
    attacks = [Attack("adaptive_ensemble", level / 255, options=options) for level in levels]
    return attacked(item, attacks, attacked_images(size.profile, item.splits), size.profile.attack_batch_size)


def networks(profile: Profile, data_dir: str | None = None) -> list[TrainedNetwork]:
    """A network of chapter 10 and one of chapter 20, for every seed of the profile."""
    size = conversion_size(profile.name)
    converted = [ozdenizci2024.finetuned("trades", size, seed, data_dir) for seed in size.profile.seeds]
    return [*luu2025.trained_networks(profile, ("sew_max",), data_dir), *converted]


def level(item: TrainedNetwork, size: AdaptiveSize) -> int:
    """eps in 1/255 at which this network is attacked: the first paper's falls to less."""
    return size.natural_level if item.network in luu2025.NETWORKS.values() else size.defended_level


def chosen_images(item: TrainedNetwork, size: AdaptiveSize) -> ImageSet:
    """The test images attacked: the first of each class."""
    return item.splits.test.first_per_class(size.images_per_class)


def ways(size: AdaptiveSize, passes: int, eps: float) -> dict[str, Attack]:
    """Every attack on images, each with the steps that `passes` allow an image that survives.

    Only the 19 fixed members take no less than what their published 10 steps take; see `within`.
    """

    def single(attack: str, gradient: str, **options) -> Attack:
        turn = Turn(attack, passes, gradient, options).arguments(passes, 1)
        kept = {name: value for name, value in turn.items() if name not in ("gradient", "eot")}
        return Attack(attack, eps, gradient=gradient, options=kept)

    targets = {"loss": "targeted_dlr", "targets": 3}
    adaptive = {"steps": adaptive_steps(passes)}
    fixed = {"steps": max(size.fixed_steps, (passes // len(MEMBERS) - 2) // 2)}
    return {
        WORST: worst_case_attack(eps, passes),
        FIXED: Attack("pgd", eps, members=tuple(MEMBERS), options=fixed),
        CHOSEN: Attack("adaptive_ensemble", eps, options=adaptive),
        **{text: Attack("adaptive_ensemble", eps, members=(name,), options=adaptive) for name, text in ALONE.items()},
        "APGD-CE, training surrogate": single("apgd", "own", loss="ce"),
        "APGD-CE, narrow": single("apgd", NARROW, loss="ce"),
        "APGD-CE, wide": single("apgd", WIDE, loss="ce"),
        "APGD-T on DLR, training surrogate": single("apgd_targeted", "own", **targets),
        "APGD-T on DLR, narrow": single("apgd_targeted", NARROW, **targets),
        "SA-PGD, adaptive sharpness": single("sa_pgd", ADAPTIVE_WIDTH),
        "mixed surrogates (MDSE)": Attack(
            "mixed_surrogates", eps, options={"steps": max(1, (passes - 1) // (2 * len(MIXED) + 1))}
        ),
    }


def adaptive_steps(passes: int) -> int:
    """Steps of the adaptive ensemble that take no more than `passes`: two a step, one a turn, and the clean sample."""

    def cost(steps: int) -> int:
        climbs = -(-max(0, steps - TRIAL * len(FIRST)) // CLIMB)
        return 2 * steps + min(len(FIRST), -(-steps // TRIAL)) + climbs + 1

    return max((steps for steps in range(1, passes) if cost(steps) <= passes), default=1)


def way_rows(item: TrainedNetwork, size: AdaptiveSize, passes: int, profile: Profile) -> pd.DataFrame:
    """Rows of all `ways` on the network's images, told apart in the column `way`."""
    images, found = chosen_images(item, size), []
    for name, attack in ways(size, passes, level(item, size) / 255).items():
        found.append(attacked(item, [attack], images, profile.attack_batch_size).assign(way=name))
    return pd.concat(found, ignore_index=True)


def openings(passes: int, eps: float) -> dict[str, Attack]:
    """The worst case as it is, and with its second or third turn in front; the rest keeps its order."""
    found = {}
    for first in SCHEDULE[:3]:
        rest = (turn for turn in SCHEDULE if turn != first)
        found[first.name] = worst_case_attack(eps, passes, schedule=(first, *rest))
    return found


def opening_table(networks: list[TrainedNetwork], size: AdaptiveSize, profile: Profile) -> pd.DataFrame:
    """What the worst case breaks of *validation* images, by the turn that it begins with: no test image says which.

    Columns: model, eps255, seed, passes, first_turn, broken, images.
    """
    lines = []
    for item, passes in itertools.product(networks, size.passes):
        images, eps255 = item.splits.validation.first_per_class(size.validation_per_class), level(item, size)
        for name, attack in openings(passes, eps255 / 255).items():
            rows = attack_rows(item, attack, images, batch_size=profile.attack_batch_size, split="validation")
            line = {"model": item.label, "eps255": eps255, "seed": item.seed, "passes": passes, "first_turn": name}
            lines.append({**line, "broken": int(per_sample(rows).broken.sum()), "images": len(images)})
    return pd.DataFrame(lines)


def per_step_rows(item: TrainedNetwork, size: AdaptiveSize, profile: Profile) -> pd.DataFrame:
    """A perturbation of each time step on its own, by the gradient of the last read-out (PGD) and by that of each step
    (TG-PGD): a freer attacker than one of images, so these stand apart."""
    eps, steps = level(item, size) / 255, size.per_step_steps
    attacks = {"PGD on the code": "pgd", "TG-PGD": "tg_pgd"}
    parts = []
    for way, name in attacks.items():
        attack = Attack(name, eps, ENCODED, options={"steps": steps})
        rows = attacked(item, [attack], chosen_images(item, size), profile.attack_batch_size)
        parts.append(rows.assign(way=way))
    return pd.concat(parts, ignore_index=True)


def within(rows: pd.DataFrame, passes: int) -> pd.DataFrame:
    """`rows` as if each image had left after `passes`: a success that came later is none. Rows of a way in their order.

    What an image took is the sum over its rows: of an ensemble, whole members before the one that broke it.
    """
    taken = (rows.forwards + rows.backwards).groupby([rows[name] for name in ("model", "seed", *SAMPLE_KEY)]).cumsum()
    return rows.assign(success=rows.success & (taken <= passes))


def per_sample(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per network, eps and sample: whether any row broke it, and the passes of all its rows together.

    A pass is one forward or one backward of one sample. Samples that are wrong without attack count as broken.
    """
    table = rows.assign(eps255=(255 * rows.eps).round().astype(int), passes=rows.forwards + rows.backwards)
    grouped = table.groupby([*CELL, *SAMPLE_KEY], sort=True)
    return grouped.agg(broken=("success", "any"), passes=("passes", "sum")).reset_index()


def broken_by_passes(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Share of the images broken within a number of passes, over all seeds: columns model, eps255, passes, broken.

    A broken image's passes are all that it took until it fell. The last line of a network stands at `most`.
    """
    lines = []
    for (model, eps255), group in per_sample(rows).groupby(["model", "eps255"]):
        needed = group[group.broken & (group.passes <= most)].passes.sort_values().to_numpy()
        steps = {int(passes): (number + 1) / len(group) for number, passes in enumerate(needed)}
        steps[most] = max(steps.values(), default=0.0)
        lines += [{"model": model, "eps255": eps255, "passes": at, "broken": share} for at, share in steps.items()]
    return pd.DataFrame(lines, columns=["model", "eps255", "passes", "broken"])


def by_way(rows: pd.DataFrame, passes: int, without: Collection[str] = ()) -> dict[str, pd.DataFrame]:
    """Rows of each way, cut where `passes` end."""
    return {way: within(group, passes) for way, group in rows.groupby("way", sort=False) if way not in without}


def surrogates_alone(parts: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Those of `by_way` that have the adaptive turns with a single surrogate: nothing is left to choose."""
    return {text: parts[text] for text in ALONE.values()}
