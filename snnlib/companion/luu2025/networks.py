"""Luu et al. 2025: the networks of the chapter, its attacks, and the measurements behind its figures.

**Source:** the set-up is that of the authors' code (depths, encoder, neuron, stem, optimiser, attack numbers).
Their paper's tables are not available to us, so their layout is reconstructed; see notebook 15.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
from torch import Tensor

from snnlib.attacks import AttackResult
from snnlib.companion.measure.attacked import (
    AUTHORS,
    AUTHORS_DRIFTING,
    ENCODED,
    IMAGE,
    IMAGE_SMOOTH,
    Attack,
    ThreatModel,
    attacked,
    run_attack,
)
from snnlib.companion.measure.networks import (
    Network,
    TrainedNetwork,
    attacked_images,
    trained,
)
from snnlib.companion.measure.store import stored
from snnlib.companion.sizes import Profile
from snnlib.data import ImageSet
from snnlib.encoding import BITS, decode_phase
from snnlib.models import Model
from snnlib.sparsity import gradient_by_operation, input_gradient_measures
from snnlib.training.accuracy import evaluating

HEADLINE_EPS = 6 / 255
"""Perturbation size of the authors' code, for FGSM and PGD."""
DEFENCE = {"name": "r_fgsm", "eps": 8 / 255, "early_stop": True}
"""Inner attack of the defended baseline: one random and one gradient step, the cheapest that trains robustness."""
NETWORKS = {
    "sew_max": Network("SEW-ResNet-18, max pool", "sew_resnet18", {"pool": "max"}),
    "sew_avg": Network("SEW-ResNet-18, average pool", "sew_resnet18", {"pool": "avg"}),
    "spiking_max": Network("Spiking-ResNet-18, max pool", "spiking_resnet18", {"pool": "max"}),
    "defended": Network(
        "SEW-ResNet-18, defended",
        "sew_resnet18",
        {"pool": "max", "encoder": "direct", "time_steps": 4},
        {"objective": "adversarial", "attack": DEFENCE},
    ),
}
"""The vanilla networks use phase coding. The defended one stands for the paper's defended WideResNet-16: the same
SEW-ResNet, adversarially trained on images, with direct coding and T = 4 as its competitors use."""
LADDER = (AUTHORS_DRIFTING, AUTHORS, ENCODED, IMAGE, IMAGE_SMOOTH)
"""Threat models from the authors' own to the deployed network's, in order of increasing trust."""
OTHER_SURROGATES = ("piecewise_linear(width=1)", "straight_through(height=1)")
"""Surrogates beside the training one: an attacker is free to choose how to differentiate a spike."""


def network(key: str, depth: int = 18) -> Network:
    """A network of the chapter at another depth."""
    base = NETWORKS[key]
    return Network(base.label.replace("18", str(depth)), base.name.replace("18", str(depth)), base.model, base.recipe)


def trained_networks(profile: Profile, keys: tuple[str, ...], data_dir: str | None = None) -> list[TrainedNetwork]:
    """Every network of `keys`, for every seed of the profile, trained or loaded."""
    return [trained(NETWORKS[key], profile, seed, data_dir) for key in keys for seed in profile.seeds]


def authors_fgsm(threat: ThreatModel, eps: float = HEADLINE_EPS) -> Attack:
    """FGSM as in the authors' code."""
    return Attack("fgsm", eps, threat)


def authors_pgd(threat: ThreatModel, eps: float = HEADLINE_EPS) -> Attack:
    """PGD as in the authors' code: 7 steps of 0.01 from one uniform random start."""
    return Attack("pgd", eps, threat, options={"steps": 7, "step_size": 0.01})


def strong_pgd(profile: Profile, threat: ThreatModel = IMAGE, eps: float = HEADLINE_EPS) -> Attack:
    """PGD with the profile's number of steps of 2.5 eps / steps."""
    return Attack("pgd", eps, threat, options={"steps": profile.steps})


def pgd_in(profile: Profile, threat: ThreatModel, eps: float = HEADLINE_EPS) -> Attack:
    """PGD as the authors have it on the encoded side, with more steps on images."""
    return authors_pgd(threat, eps) if threat.space == "encoded" else strong_pgd(profile, threat, eps)


def curve_attacks(profile: Profile, threat: ThreatModel) -> list[Attack]:
    """FGSM and PGD over the profile's eps."""
    eps_values = [level / 255 for level in profile.eps_levels]
    return [authors_fgsm(threat, eps) for eps in eps_values] + [pgd_in(profile, threat, eps) for eps in eps_values]


def ladder_attacks(model: Model, profile: Profile) -> list[Attack]:
    """The headline eps under every threat model of `LADDER` that the encoder allows, with noise, FGSM and PGD.

    On images also PGD by surrogates that the network was not trained with. Noise takes no forward pass in train mode,
    so it moves no running statistics and has no row under drifting BatchNorm.
    """
    found = []
    for threat in LADDER:
        if threat is IMAGE_SMOOTH and "smooth" not in model.encoder.gradients:
            continue
        pgd = pgd_in(profile, threat)
        if threat is not AUTHORS_DRIFTING:
            found.append(Attack("random_noise", HEADLINE_EPS, threat))
        found += [authors_fgsm(threat), pgd]
        if threat is IMAGE:
            found += [replace(pgd, gradient=surrogate) for surrogate in OTHER_SURROGATES]
    return found


def on_attacked_images(item: TrainedNetwork, profile: Profile, attacks: list[Attack]) -> pd.DataFrame:
    """Rows of the attacks on the profile's attacked images."""
    return attacked(item, attacks, attacked_images(profile, item.splits), profile.attack_batch_size)


def ladder_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """From the authors' protocol to the deployed network, step by step: rows of `ladder_attacks`."""
    return on_attacked_images(item, profile, ladder_attacks(item.model, profile))


def curve_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Figure 2: the curves under the authors' threat model and in image space."""
    attacks = [attack for threat in (AUTHORS, IMAGE) for attack in curve_attacks(profile, threat)]
    return on_attacked_images(item, profile, attacks)


def headline_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """FGSM and PGD at the headline eps, under the authors' threat model and on images; a part of `curve_rows`."""
    attacks = [attack for threat in (AUTHORS, IMAGE) for attack in (authors_fgsm(threat), pgd_in(profile, threat))]
    return on_attacked_images(item, profile, attacks)


def operation_rows(item: TrainedNetwork, profile: Profile, batch_norm: str) -> pd.DataFrame:
    """Figures 3 and 5: gradient sparsity and norm per operation, on the first test images of each class."""
    chosen = item.splits.test.first_per_class(profile.inspected_per_class)
    table = _by_operation(item, chosen, batch_norm, profile.attack_batch_size)
    return table.assign(model=item.label, seed=item.seed, batch_norm=batch_norm)


@stored("operations")
def _by_operation(item: TrainedNetwork, images: ImageSet, batch_norm: str, batch_size: int) -> pd.DataFrame:
    pixels, labels = images.batch(slice(None), item.device), images.labels.to(item.device)
    options = {"batch_norm": batch_norm, "space": "encoded", "batch_size": batch_size}
    return gradient_by_operation(item.model, pixels, labels, **options)


def input_rows(item: TrainedNetwork, profile: Profile, space: str, batch_norm: str) -> pd.DataFrame:
    """Sparsity of the gradient at the input, one row per sample: the quantity of Theorem 4.1."""
    images = attacked_images(profile, item.splits)
    table = _at_input(item, images, space, batch_norm, profile.attack_batch_size)
    return table.assign(model=item.label, seed=item.seed, space=space, batch_norm=batch_norm)


@stored("input_gradients")
def _at_input(item: TrainedNetwork, images: ImageSet, space: str, batch_norm: str, batch_size: int) -> pd.DataFrame:
    pixels, labels = images.batch(slice(None), item.device), images.labels.to(item.device)
    options = {"batch_norm": batch_norm, "space": space, "batch_size": batch_size}
    return input_gradient_measures(item.model, pixels, labels, target="true_class_probability", **options)


@dataclass(frozen=True)
class Examples:
    """One batch under one attack.

    pictures: [N, C, H, W] in [0, 1] as the eye would see them, bit planes decoded. predicted: [N] classes.
    """

    attack: Attack
    result: AttackResult
    pictures: Tensor
    predicted: Tensor


def attacked_examples(item: TrainedNetwork, batch: ImageSet, attack: Attack) -> Examples:
    """Figure 1: attack one batch of a phase-coded network and keep the pictures, which rows do not."""
    images, labels = batch.batch(slice(None), item.device), batch.labels.to(item.device)
    result = run_attack(item.model, images, labels, attack, seed=item.seed)
    encoded = attack.threat.space == "encoded"
    with evaluating(item.model):
        predicted = (item.model.body if encoded else item.model)(result.adversarial).argmax(1).cpu()
    pictures = decode_phase(result.adversarial) if encoded else result.adversarial
    return Examples(attack, result, pictures.cpu(), predicted)


def one_per_class(predicted: Tensor, labels: Tensor, count: int) -> list[int]:
    """Positions of the first images of `count` different classes, correctly classified ones before others."""
    order = sorted(range(len(labels)), key=lambda position: (bool(predicted[position] != labels[position]), position))
    first: dict[int, int] = {}
    for position in order:
        first.setdefault(int(labels[position]), position)
    return sorted(list(first.values())[:count])


def example_rows(
    examples: Examples, batch: ImageSet, clean: Tensor, shown: list[int], class_names: tuple[str, ...]
) -> pd.DataFrame:
    """One row per shown image: label, class without attack (`clean`) and with it, size of the perturbation."""
    classes = {"label": batch.labels, "without_attack": clean, "under_attack": examples.predicted}
    return pd.DataFrame(
        {
            "threat_model": examples.attack.threat.name,
            "attack": examples.attack.name,
            "position": shown,
            **{name: [class_names[int(number)] for number in numbers[shown]] for name, numbers in classes.items()},
            "success": examples.result.success.cpu()[shown].numpy(),
            "linf": examples.result.linf.cpu()[shown].numpy(),
            "l2": examples.result.l2.cpu()[shown].numpy(),
        }
    )


def pixel_levels(item: TrainedNetwork, batch: ImageSet, examples: Examples) -> dict:
    """How far the decoded pictures lie from the images, in levels (1/255), and how far their codes lie apart.

    Averages run over the images that the attack moved: one that is misclassified without it may be left alone.
    may_rise, may_fall: what the budget allows, on average over the pixels. A bit plane of a 0/1 code can move one way
    only, so on the encoded side a pixel of level v may rise by eps·(255 − v) and fall by eps·v.
    """
    touched = (examples.result.linf > 0).cpu()
    eps, encoder, images = examples.attack.eps, item.model.encoder, batch.batch(slice(None))[touched]
    encoded, pictures = examples.attack.threat.space == "encoded", examples.pictures[touched]
    above, below = (eps * room if encoded else room.clamp(max=eps) for room in (1 - images, images))
    before, after = encoder(images), examples.result.adversarial.cpu()[:, touched] if encoded else encoder(pictures)
    flipped = ((after > 0.5) != (before > 0.5))[:BITS].float().sum(0)
    moved = 255 * (pictures - images).abs()
    return {
        "threat_model": examples.attack.threat.name,
        "attack": examples.attack.name,
        "images_moved": len(images),
        "nominal_eps": 255 * eps,
        "may_rise": 255 * above.mean().item(),
        "may_fall": 255 * below.mean().item(),
        "mean_move": moved.mean().item(),
        "mean_of_largest_moves": moved.flatten(1).amax(1).mean().item(),
        "bits_flipped_per_pixel": flipped.mean().item(),
        "linf_of_the_code": (after - before).abs().flatten(2).amax((0, 2)).mean().item(),
    }


def table_networks(profile: Profile, data_dir: str | None = None) -> list[TrainedNetwork]:
    """The networks of tables 1 and 2 at the profile's depths, and the defended one, for every seed."""
    vanilla = [network(key, depth) for key in ("sew_max", "sew_avg", "spiking_max") for depth in profile.depths]
    wanted = [*vanilla, NETWORKS["defended"]]
    return [trained(each, profile, seed, data_dir) for each in wanted for seed in profile.seeds]

