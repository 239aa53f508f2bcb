"""Attacks without a gradient beside the white-box ones: same networks, same images, same ball, on images.

Any `TrainedNetwork` can be attacked here. Rows are stored one table per network, attack and eps; which rows the
white-box side and the gradient-free side consist of, and what follows, is in `black_box_verdicts`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import pandas as pd

from snnlib.attacks import ATTACKS, AttackResult, Budget, apgd, bit_flip, random_noise, transfer
from snnlib.companion.luu2025 import networks as luu2025
from snnlib.companion.measure.ensemble_rows import ensemble_rows
from snnlib.companion.measure.evaluation import IMAGE, IMAGE_SMOOTH, AttackPlan, ThreatModel, crossed_by
from snnlib.companion.measure.networks import Network, TrainedNetwork, attack_code, code_of, row_options, trained
from snnlib.companion.measure.query_rows import query_rows
from snnlib.companion.measure.store import load_or_make_rows
from snnlib.companion.ozdenizci2024 import networks as ozdenizci2024
from snnlib.companion.ozdenizci2024.sizes import conversion_size
from snnlib.companion.profiles import Profile
from snnlib.data import ImageSet
from snnlib.encoding import encoder_gradient
from snnlib.models import Model

TARGETS = ("sew_max", "defended")
"""Networks of Luu et al. 2025 that every attack is run on; the rest of the chapter's join in the transfer matrix."""
ANN_PROXY = Network(
    "ANN proxy", "sew_resnet18", {"pool": "max", "encoder": "direct", "time_steps": 1, "spiking": False}
)
"""The same definition with ReLU, trained for itself: what an attacker has who knows the family and not the network."""
TRANSFER_ATTACK = "mi_fgsm"


@dataclass(frozen=True)
class Trial:
    """One attack without a gradient: a key of `ATTACKS`, its options, and what it asks of the network.

    access: "nothing" (noise), "score" (logits), "decision" (the class alone).
    """

    attack: str
    access: str
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class BlackBoxSize:
    """Sizes of one profile. images_per_class: test images attacked (of the profile's). eps_levels: in 1/255.

    trials: the gradient-free attacks. apgd_steps, ensemble_steps: of the white-box side. transfer_steps: of the attack
    that crafts; transfer_eps: in 1/255. flips, flip_rounds: of the bit-flip attack.
    """

    images_per_class: int
    eps_levels: tuple[int, ...]
    trials: tuple[Trial, ...]
    apgd_steps: int
    ensemble_steps: int
    transfer_steps: int
    flips: tuple[int, ...]
    flip_rounds: int
    transfer_eps: int = 8


def _trials(draws: int, queries: int, spsa_steps: int, directions: int, decisions: int) -> tuple[Trial, ...]:
    return (
        Trial("random_noise", "nothing", {"draws": draws}),
        Trial("square", "score", {"queries": queries}),
        Trial("spsa", "score", {"steps": spsa_steps, "directions": directions}),
        Trial("rays", "decision", {"queries": decisions}),
    )


SIZES = {
    "smoke": BlackBoxSize(
        images_per_class=1,
        eps_levels=(2, 8),
        trials=_trials(draws=2, queries=12, spsa_steps=2, directions=4, decisions=20),
        apgd_steps=2,
        ensemble_steps=1,
        transfer_steps=2,
        flips=(8, 32),
        flip_rounds=3,
    ),
    "quick": BlackBoxSize(
        images_per_class=5,
        eps_levels=(2, 8),
        trials=_trials(draws=10, queries=200, spsa_steps=6, directions=16, decisions=80),
        apgd_steps=100,
        ensemble_steps=10,
        transfer_steps=6,
        flips=(4, 16, 64),
        flip_rounds=10,
    ),
    "paper": BlackBoxSize(
        images_per_class=100,
        eps_levels=(2, 4, 8),
        trials=_trials(draws=100, queries=5000, spsa_steps=50, directions=64, decisions=5000),
        apgd_steps=100,
        ensemble_steps=20,
        transfer_steps=20,
        flips=(4, 16, 64, 256),
        flip_rounds=50,
    ),
}
"""APGD has the official number of steps, except at "smoke". At "paper" as published for Square: 5000 queries, 8/255."""


def attacked_networks(profile: Profile, data_dir: str | None = None) -> list[TrainedNetwork]:
    """The networks of Luu et al. 2025 that every attack is run on, for every seed of the profile."""
    return luu2025.trained_networks(profile, TARGETS, data_dir)


def converted_networks(profile: Profile, data_dir: str | None = None) -> list[TrainedNetwork]:
    """The converted and robustly fine-tuned SNN of Özdenizci & Legenstein 2024, for every seed of the profile."""
    size = conversion_size(profile.name)
    return [ozdenizci2024.finetuned("adversarial", size, seed, data_dir) for seed in profile.seeds]


def transfer_networks(profile: Profile, data_dir: str | None = None) -> list[TrainedNetwork]:
    """Those of the transfer matrix: max pool, its average-pool twin, the defended one, and the ANN proxy."""
    spiking = luu2025.trained_networks(profile, ("sew_max", "sew_avg", "defended"), data_dir)
    return spiking + [trained(ANN_PROXY, profile, seed, data_dir) for seed in profile.seeds]


def chosen_images(item: TrainedNetwork, profile: Profile) -> ImageSet:
    """The test images that are attacked: the first of each class."""
    return item.splits.test.first_per_class(SIZES[profile.name].images_per_class)


def gradient_free_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Every trial at every eps: one row per image, with the queries that it took."""
    size, parts = SIZES[profile.name], []
    for eps255 in size.eps_levels:
        for trial in size.trials:
            attack = functools.partial(ATTACKS[trial.attack], **trial.options)
            config = {"attack": trial.attack, "options": trial.options, "code": attack_code(trial.attack)}
            rows = _on_chosen(item, profile, Budget(eps255 / 255), attack, config)
            parts.append(rows.assign(eps255=eps255, access=trial.access))
    return pd.concat(parts, ignore_index=True)


def white_box_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Three white-box attacks at every eps, told apart in the column `attack`.

    "apgd ce" and "apgd margin" differentiate the network by its own surrogate and run on every image; "ensemble" is PGD
    on the cross-entropy by the 19 members, on whoever "apgd ce" left. APGD goes through each gradient that the encoder
    declares, straight through (or exact) and the smooth one, the ensemble through the last of these.
    """
    size, parts = SIZES[profile.name], []
    for eps255 in size.eps_levels:
        by_loss = {loss: _apgd(item, profile, eps255, loss) for loss in ("ce", "margin")}
        fallen = by_loss["ce"].groupby("sample").success.any()
        standing = [int(sample) for sample in fallen.index[~fallen]]
        made = list(by_loss.values())
        if standing:
            made.append(_ensemble(item, profile, eps255, standing))
        parts.append(pd.concat(made, ignore_index=True).assign(eps255=eps255, access="white-box"))
    return pd.concat(parts, ignore_index=True)


def transfer_rows(target: TrainedNetwork, source: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Crafted on `source` past its boundary, judged on `target`; access is "transfer", `source` names the network."""
    size = SIZES[profile.name]
    options = {"attack": TRANSFER_ATTACK, "points": ("best", "last"), "steps": size.transfer_steps}
    attack = functools.partial(transfer, source=source.model, **options)
    code = [attack_code(TRANSFER_ATTACK), code_of("snnlib.attacks.transfer")]
    config = {"attack": "transfer", "source": source.run, "options": options, "code": code}
    rows = _on_chosen(target, profile, Budget(size.transfer_eps / 255), attack, config)
    return rows.assign(eps255=size.transfer_eps, access="transfer", source=source.network.label)


def flip_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Flips of a 0/1 code, by gradient and at random, for every number allowed (`flips`)."""
    size, parts = SIZES[profile.name], []
    for flips in size.flips:
        for name, attack, options in (
            ("bit_flip", bit_flip, {"rounds": size.flip_rounds}),
            ("random_noise", random_noise, {"draws": 1}),
        ):
            config = {"attack": name, "options": options, "code": code_of(attack.__module__)}
            budget = Budget(flips, norm="l0", space="encoded")
            rows = _on_chosen(item, profile, budget, functools.partial(attack, **options), config)
            parts.append(rows.assign(flips=flips))
    return pd.concat(parts, ignore_index=True)


def transfer_pairs(
    items: Sequence[TrainedNetwork], targets: Collection[str]
) -> list[tuple[TrainedNetwork, TrainedNetwork]]:
    """(target, source) by their labels: each target with every label's network of the next seed, never with itself."""
    seeds = sorted({item.seed for item in items})
    following = dict(zip(seeds, [*seeds[1:], seeds[0]], strict=True))
    chosen = [item for item in items if item.network.label in targets]
    pairs = [(target, source) for target in chosen for source in items if source.seed == following[target.seed]]
    return [(target, source) for target, source in pairs if source.run != target.run]


def _threats(item: TrainedNetwork) -> list[ThreatModel]:
    return [IMAGE] + [IMAGE_SMOOTH] * ("smooth" in item.model.encoder.gradients)


def _apgd(item: TrainedNetwork, profile: Profile, eps255: int, loss: str) -> pd.DataFrame:
    options = {"steps": SIZES[profile.name].apgd_steps, "loss": loss}
    parts = []
    for threat in _threats(item):

        def attack(model: Model, *arguments, threat: ThreatModel = threat, **keywords) -> AttackResult:
            with encoder_gradient(model, crossed_by(model, threat)):
                return apgd(model, *arguments, **options, **keywords)

        config = {"attack": f"apgd {loss}", "options": options, "threat": vars(threat), "code": attack_code("apgd")}
        rows = _on_chosen(item, profile, Budget(eps255 / 255), attack, config)
        parts.append(rows.assign(threat_model=threat.name))
    return pd.concat(parts, ignore_index=True)


def _ensemble(item: TrainedNetwork, profile: Profile, eps255: int, standing: list[int]) -> pd.DataFrame:
    """The members on the samples `standing`: one row per sample and member that ran on it."""
    plan = AttackPlan("pgd", eps255 / 255, steps=SIZES[profile.name].ensemble_steps)
    images, threat = chosen_images(item, profile), _threats(item)[-1]

    def make() -> pd.DataFrame:
        rows = ensemble_rows(item.model, images.take(standing), threat, plan, **row_options(item, profile))
        return rows.assign(sample=[standing[place] for place in rows["sample"]])

    config = {
        "network": item.run,
        "label": item.network.label,
        "images": len(images),
        "standing": standing,
        "plan": plan.as_config(),
        "threat": vars(threat),
        "batch_size": profile.attack_batch_size,
        "code": [attack_code("pgd"), code_of("snnlib.companion.measure.ensemble_rows")],
    }
    rows = load_or_make_rows("white_box", config, make)
    return rows.assign(attack="ensemble", queries=rows.forwards)


def _on_chosen(
    item: TrainedNetwork, profile: Profile, budget: Budget, attack: Callable[..., AttackResult], config: dict
) -> pd.DataFrame:
    return query_rows(item, chosen_images(item, profile), profile.attack_batch_size, budget, attack, config)
