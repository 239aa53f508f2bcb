"""Luu et al. 2025: the networks of the chapter, its attacks, and the measurements behind its figures.

**Source:** the set-up is that of the authors' code (depths, encoder, neuron, stem, optimiser, attack numbers).
Their paper's tables are not available to us, so their layout is reconstructed; see notebook 15.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import pandas as pd
from torch import Tensor

from snnlib.attacks import AttackResult
from snnlib.companion.measure.evaluation import (
    AUTHORS,
    AUTHORS_DRIFTING,
    ENCODED,
    IMAGE,
    IMAGE_SMOOTH,
    AttackPlan,
    ThreatModel,
    run_attack,
)
from snnlib.companion.measure.networks import (
    Network,
    TrainedNetwork,
    attacked,
    attacked_images,
    inspection_code,
    trained,
)
from snnlib.companion.measure.store import load_or_make_rows
from snnlib.companion.profiles import Profile
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


def authors_fgsm(eps: float = HEADLINE_EPS) -> AttackPlan:
    """FGSM as in the authors' code."""
    return AttackPlan("fgsm", eps)


def authors_pgd(eps: float = HEADLINE_EPS) -> AttackPlan:
    """PGD as in the authors' code: 7 steps of 0.01 from one uniform random start."""
    return AttackPlan("pgd", eps, steps=7, step_size=0.01)


def strong_pgd(profile: Profile, eps: float = HEADLINE_EPS) -> AttackPlan:
    """PGD with the profile's number of steps of 2.5 eps / steps."""
    return AttackPlan("pgd", eps, steps=profile.steps)


def curve_plans(profile: Profile, threat: ThreatModel) -> list[AttackPlan]:
    """FGSM and PGD over the profile's eps, as the authors do on the encoded side, with more steps on images."""
    eps_values = [level / 255 for level in profile.eps_levels]
    pgd_plans = [authors_pgd(eps) if threat.space == "encoded" else strong_pgd(profile, eps) for eps in eps_values]
    return [authors_fgsm(eps) for eps in eps_values] + pgd_plans


def noise_plan(eps: float = HEADLINE_EPS) -> AttackPlan:
    """One draw of uniform noise in the ball, the floor under every attack."""
    return AttackPlan("random_noise", eps)


def ladder_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """The headline eps under every threat model of `LADDER`, with FGSM, PGD and noise.

    On images also PGD by surrogates that the network was not trained with. Noise takes no forward pass in train mode,
    so it moves no running statistics and has no row under drifting BatchNorm.
    """
    plans = ladder_plans(item.model, profile)
    return pd.concat([attacked(item, profile, threat, own) for threat, own in plans], ignore_index=True)


def ladder_plans(model: Model, profile: Profile) -> list[tuple[ThreatModel, list[AttackPlan]]]:
    """What `ladder_rows` runs on a model: the threat models of `LADDER` that its encoder allows, with their plans."""
    found = []
    for threat in LADDER:
        if threat is IMAGE_SMOOTH and "smooth" not in model.encoder.gradients:
            continue
        pgd = authors_pgd() if threat.space == "encoded" else strong_pgd(profile)
        plans = [authors_fgsm(), pgd] if threat is AUTHORS_DRIFTING else [noise_plan(), authors_fgsm(), pgd]
        if threat is IMAGE:
            plans += [replace(pgd, surrogate=surrogate) for surrogate in OTHER_SURROGATES]
        found.append((threat, plans))
    return found


def curve_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Figure 2: the curves under the authors' threat model and in image space."""
    parts = [attacked(item, profile, threat, curve_plans(profile, threat)) for threat in (AUTHORS, IMAGE)]
    return pd.concat(parts, ignore_index=True)


def operation_rows(item: TrainedNetwork, profile: Profile, batch_norm: str) -> pd.DataFrame:
    """Figures 3 and 5: gradient sparsity and norm per operation, on the first test images of each class."""
    chosen = item.splits.test.first_per_class(profile.inspected_per_class)

    def make() -> pd.DataFrame:
        table = gradient_by_operation(
            item.model,
            chosen.batch(slice(None), item.device),
            chosen.labels.to(item.device),
            batch_norm=batch_norm,
            space="encoded",
            batch_size=profile.attack_batch_size,
        )
        return table.assign(model=item.network.label, seed=item.seed, batch_norm=batch_norm)

    config = {
        "network": item.run,
        "label": item.network.label,
        "batch_norm": batch_norm,
        "images": len(chosen),
        "batch_size": profile.attack_batch_size,
        "code": inspection_code(),
    }
    return load_or_make_rows("operations", config, make)


def input_rows(item: TrainedNetwork, profile: Profile, space: str, batch_norm: str) -> pd.DataFrame:
    """Sparsity of the gradient at the input, one row per sample: the quantity of Theorem 4.1."""
    images = attacked_images(profile, item.splits)
    measure = functools.partial(
        input_gradient_measures,
        item.model,
        space=space,
        batch_norm=batch_norm,
        target="true_class_probability",
        batch_size=profile.attack_batch_size,
    )

    def make() -> pd.DataFrame:
        table = measure(images.batch(slice(None), item.device), images.labels.to(item.device))
        return table.assign(model=item.network.label, seed=item.seed, space=space, batch_norm=batch_norm)

    config = {
        "network": item.run,
        "label": item.network.label,
        "space": space,
        "batch_norm": batch_norm,
        "images": len(images),
        "batch_size": profile.attack_batch_size,
        "code": inspection_code(),
    }
    return load_or_make_rows("input_gradients", config, make)


@dataclass(frozen=True)
class Examples:
    """One batch under one attack.

    pictures: [N, C, H, W] in [0, 1] as the eye would see them, bit planes decoded. predicted: [N] classes.
    """

    threat: ThreatModel
    plan: AttackPlan
    result: AttackResult
    pictures: Tensor
    predicted: Tensor


def attacked_examples(item: TrainedNetwork, batch: ImageSet, threat: ThreatModel, plan: AttackPlan) -> Examples:
    """Figure 1: attack one batch of a phase-coded network and keep the pictures, which rows do not."""
    images, labels = batch.batch(slice(None), item.device), batch.labels.to(item.device)
    result = run_attack(item.model, images, labels, threat, plan, seed=item.seed)
    encoded = threat.space == "encoded"
    with evaluating(item.model):
        predicted = (item.model.body if encoded else item.model)(result.adversarial).argmax(1).cpu()
    pictures = decode_phase(result.adversarial) if encoded else result.adversarial
    return Examples(threat, plan, result, pictures.cpu(), predicted)


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
            "threat_model": examples.threat.name,
            "attack": examples.plan.attack,
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
    eps, encoder, images = examples.plan.eps, item.model.encoder, batch.batch(slice(None))[touched]
    encoded, pictures = examples.threat.space == "encoded", examples.pictures[touched]
    above, below = (eps * room if encoded else room.clamp(max=eps) for room in (1 - images, images))
    before, after = encoder(images), examples.result.adversarial.cpu()[:, touched] if encoded else encoder(pictures)
    flipped = ((after > 0.5) != (before > 0.5))[:BITS].float().sum(0)
    moved = 255 * (pictures - images).abs()
    return {
        "threat_model": examples.threat.name,
        "attack": examples.plan.attack,
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


def headline_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """FGSM and PGD at the headline eps, under the authors' threat model and on images; a part of `curve_rows`."""
    authors = attacked(item, profile, AUTHORS, [authors_fgsm(), authors_pgd()])
    on_images = attacked(item, profile, IMAGE, [authors_fgsm(), strong_pgd(profile)])
    return pd.concat([authors, on_images], ignore_index=True)
