"""Attacks without a gradient beside the white-box ones: same networks, same images, same ball, on images.

Any `TrainedNetwork` can be attacked here. Rows are stored one table per network, attack and eps; which rows the
white-box side and the gradient-free side consist of, and what follows, is in `black_box_verdicts`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from snnlib.attacks.ensemble import MEMBERS
from snnlib.companion.luu2025 import networks as luu2025
from snnlib.companion.measure.attacked import IMAGE, IMAGE_SMOOTH, Attack, ThreatModel, attack_rows
from snnlib.companion.measure.networks import Network, TrainedNetwork, trained
from snnlib.companion.ozdenizci2024 import networks as ozdenizci2024
from snnlib.companion.sizes import Profile, black_box_size, conversion_size
from snnlib.data import ImageSet

TARGETS = ("sew_max", "defended")
"""Networks of Luu et al. 2025 that every attack is run on; the rest of the chapter's join in the transfer matrix."""
ANN_PROXY = Network(
    "ANN proxy", "sew_resnet18", {"pool": "max", "encoder": "direct", "time_steps": 1, "spiking": False}
)
"""The same definition with ReLU, trained for itself: what an attacker has who knows the family and not the network."""
TRANSFER_ATTACK = "mi_fgsm"
ON_IMAGES = ThreatModel("image, own encoder gradient", "image")
ON_THE_CODE = ThreatModel("encoded", "encoded")
ACCESS = {"random_noise": "nothing", "square": "score", "spsa": "score", "rays": "decision"}
"""The gradient-free attacks, and what each asks of the network: nothing, the logits, or the class alone."""


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


def gradient_free_attacks(profile: Profile, eps: float) -> list[Attack]:
    """The attacks of `ACCESS` at the profile's numbers."""
    size = black_box_size(profile.name)
    steps, directions = size.spsa
    options = (
        {"draws": size.draws},
        {"queries": size.queries},
        {"steps": steps, "directions": directions},
        {"queries": size.decisions},
    )
    return [Attack(name, eps, ON_IMAGES, options=own) for name, own in zip(ACCESS, options, strict=True)]


def chosen_images(item: TrainedNetwork, profile: Profile) -> ImageSet:
    """The test images that are attacked: the first of each class."""
    return item.splits.test.first_per_class(black_box_size(profile.name).images_per_class)


def gradient_free_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Every gradient-free attack at every eps: one row per image, with the queries that it took."""
    parts = [
        _on_chosen(item, profile, attack).assign(eps255=eps255, access=ACCESS[attack.name])
        for eps255 in black_box_size(profile.name).eps_levels
        for attack in gradient_free_attacks(profile, eps255 / 255)
    ]
    return pd.concat(parts, ignore_index=True)


def white_box_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Three white-box attacks at every eps, told apart in the column `attack`.

    "apgd ce" and "apgd margin" differentiate the network by its own surrogate and run on every image; "ensemble" is PGD
    on the cross-entropy by the 19 members, on whoever "apgd ce" left. APGD goes through each gradient that the encoder
    declares, straight through (or exact) and the smooth one, the ensemble through the last of these.
    """
    size, parts = black_box_size(profile.name), []
    for eps255 in size.eps_levels:
        made = {}
        for loss in ("ce", "margin"):
            options = {"steps": size.apgd_steps, "loss": loss}
            attacks = [Attack("apgd", eps255 / 255, threat, options=options) for threat in _threats(item)]
            rows = pd.concat([_on_chosen(item, profile, attack) for attack in attacks], ignore_index=True)
            made[loss] = rows.assign(attack=f"apgd {loss}")
        fallen = made["ce"].groupby("sample").success.any()
        if len(standing := fallen.index[~fallen]):
            members = {"members": tuple(MEMBERS), "options": {"steps": size.ensemble_steps}}
            attack = Attack("pgd", eps255 / 255, _threats(item)[-1], **members)
            made["ensemble"] = _on_chosen(item, profile, attack, samples=standing).assign(attack="ensemble")
        parts.append(pd.concat(made.values(), ignore_index=True).assign(eps255=eps255, access="white-box"))
    return pd.concat(parts, ignore_index=True)


def transfer_rows(target: TrainedNetwork, source: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Crafted on `source` past its boundary, judged on `target`; access is "transfer", `source` names the network."""
    size = black_box_size(profile.name)
    options = {"attack": TRANSFER_ATTACK, "points": ("best", "last"), "steps": size.transfer_steps}
    attack = Attack("transfer", size.transfer_eps / 255, ON_IMAGES, options=options)
    rows = _on_chosen(target, profile, attack, source=source)
    return rows.assign(eps255=size.transfer_eps, access="transfer", source=source.label)


def flip_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Flips of a 0/1 code, by gradient and at random, for every number allowed (`flips`)."""
    size, parts = black_box_size(profile.name), []
    for flips in size.flips:
        for name, options in (("bit_flip", {"rounds": size.flip_rounds}), ("random_noise", {"draws": 1})):
            attack = Attack(name, flips, ON_THE_CODE, norm="l0", options=options)
            parts.append(_on_chosen(item, profile, attack).assign(flips=flips))
    return pd.concat(parts, ignore_index=True)


def transfer_pairs(
    items: Sequence[TrainedNetwork], targets: Collection[str]
) -> list[tuple[TrainedNetwork, TrainedNetwork]]:
    """(target, source) by their labels: each target with every label's network of the next seed, never with itself."""
    seeds = sorted({item.seed for item in items})
    following = dict(zip(seeds, [*seeds[1:], seeds[0]], strict=True))
    chosen = [item for item in items if item.network.label in targets]
    pairs = [(target, source) for target in chosen for source in items if source.seed == following[target.seed]]
    return [(target, source) for target, source in pairs if source.key != target.key]


def _threats(item: TrainedNetwork) -> list[ThreatModel]:
    return [IMAGE] + [IMAGE_SMOOTH] * ("smooth" in item.model.encoder.gradients)


def _on_chosen(item: TrainedNetwork, profile: Profile, attack: Attack, **options) -> pd.DataFrame:
    images = chosen_images(item, profile)
    rows = attack_rows(item, attack, images, batch_size=profile.attack_batch_size, **options)
    return rows.assign(queries=rows.forwards)
