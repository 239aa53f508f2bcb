"""Other people's defences under one evaluation (notebook 34).

Every network starts from the same natural ANN, converted, and is then trained with its defence on the same images: what
differs is the defence alone. None of it is the size at which its paper reports numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pandas as pd
import torch

from snnlib.attacks import Budget
from snnlib.attacks.worst_case import SCHEDULE
from snnlib.audit import AuditReport, audit
from snnlib.companion.luu2025 import networks as luu2025
from snnlib.companion.measure import networks as common
from snnlib.companion.measure.attacked import Attack, attacked, worst_case_attack
from snnlib.companion.measure.networks import (
    Network,
    TrainedNetwork,
    accuracy,
    attacked_images,
    build_recipe,
    fitted,
)
from snnlib.companion.measure.rows import attack_success_rate_among_correct, robust_accuracy
from snnlib.companion.measure.store import stored
from snnlib.companion.ours.audit import REPORTS
from snnlib.companion.ours.further import PGD
from snnlib.companion.ozdenizci2024 import networks as chapter
from snnlib.companion.ozdenizci2024.networks import TRAINING_EPS, FineTuning
from snnlib.companion.published import load_reference
from snnlib.companion.sizes import ConversionSize, DefenceSize, Profile, with_images_of
from snnlib.conversion import set_trainable
from snnlib.data import ImageSet
from snnlib.training.objectives import membrane_guard, membrane_overlap
from snnlib.training.objectives.membrane import recorded_membranes

PROTOCOL_LEVEL = 8
PROTOCOL = {"steps": 7, "step_size": 0.01}
"""PGD-7 with steps of 0.01 at 8/255, by the network's own gradient: how most of these papers evaluate."""
RANDOM = "poisson"
ON_RANDOM = tuple(turn for turn in SCHEDULE if turn.attack.startswith("apgd"))
"""Turns of the worst case that random networks get. Square would judge by one draw. With SA-PGD, a quarter more passes,
as many images stood at the end (8 draws, 2/255, 84 of 500 on the one network tried)."""
ARCHITECTURAL = {"sew_max": "max pool", "sew_avg": "average pool"}
"""Of the first paper's networks, the sparse one and its dense twin, with their short names."""
SHORT = {luu2025.NETWORKS[key].label: name for key, name in ARCHITECTURAL.items()}
PRINTED = {"none": "clean", "FGSM": "FGSM", "PGD": "PGD"}


@dataclass(frozen=True)
class Defence:
    """One defence. what: in words. source: where its equation is from. ours: what in it is ours, or not the paper's.

    recipe: options of `Recipe` beside the shared ones. model: options of `build_model` that differ. published: what the
    published tables call it, "" where they lack it.
    """

    what: str
    source: str
    ours: str = ""
    recipe: Mapping = field(default_factory=dict)
    model: Mapping = field(default_factory=dict)
    published: str = ""


_AT = {"objective": "adversarial", "attack": {**PGD, "steps": 2}}
_FGSM = {"name": "fgsm", "eps": TRAINING_EPS}
_NOTES = "public reading notes"
DEFENCES: dict[str, Defence] = {
    "none": Defence("natural training", "the reference"),
    "AT": Defence("adversarial training, PGD-2 at 2/255", "Madry et al. 2018", recipe=_AT, published="none"),
    "SR": Defence(
        "small input gradient, by differences",
        "Liu et al. 2024, code",
        "weight",
        {"objective": "sparse_gradient", "objective_parameters": {"weight": 2e-3}},
        published="SR",
    ),
    "MPD-SGR": Defence(
        "few membranes where the surrogate has a gradient",
        f"Jiang et al. 2026, {_NOTES}",
        "reconstructed: measured moments; weight",
        {"objective": "membrane_overlap", "objective_parameters": {"weight": 2.0}},
        published="MPD-SGR",
    ),
    "TGO": Defence(
        "membranes away from the threshold, noisy neurons in training",
        f"Wang et al. 2026, {_NOTES}",
        "reconstructed: margin, noise and weight",
        {
            "objective": "membrane_guard",
            "objective_parameters": {"weight": 2.0, "margin": 0.5, "noise": 0.1},
            "curriculum": {"first": {"weight": 0.0}, "ramp": "cosine"},
        },
        published="TGO",
    ),
    "TG-Reg": Defence(
        "small slope of every step's output by its own frame",
        f"Xu et al. 2026, {_NOTES}",
        "reconstructed: one class drawn",
        {"objective": "step_slopes", "objective_parameters": {"weight": 100.0}},
        published="TG-Reg",
    ),
    "DSD": Defence(
        "weight gradients without their first singular pair",
        "Zhang et al. 2026, code",
        recipe={"deflate_gradients": True},
        published="DSD",
    ),
    "FEEL": Defence(
        "low-pass frames, coarser step by step",
        "Xu et al. 2024, code",
        "without its leak factor; windows for this T",
        model={"encoder": "frequency", "encoder_gradient": None},
        published="FEEL",
    ),
    "SNN-RAT": Defence(
        "FGSM training at 2/255 and nearly orthogonal weights",
        "Ding et al. 2022, code",
        recipe={"objective": "adversarial", "attack": _FGSM, "weight_retraction": 1e-3},
        published="RAT",
    ),
    "Poisson": Defence(
        "an independent spike with probability x at every step",
        "rate coding",
        "attacked by expectation over draws",
        model={"encoder": RANDOM, "encoder_gradient": None},
    ),
}
"""The defences in the order of the tables. Weights marked as ours were chosen once, for networks of this chapter."""
LEFT_OUT = {
    "HIRE-SNN": "updates the weights between parts of one image's time steps, which our training loop does not do",
    "FEEL's leak factor": "one trained leak per neuron and step, which our neurons do not have",
    "STOD, MPPD-TV, RTE": "their equations were not available to us",
}


def defended(
    name: str, size: ConversionSize, defences: DefenceSize, seed: int, data_dir: str | None = None
) -> TrainedNetwork:
    """The natural ANN, converted, then trained with one of `DEFENCES`."""
    profile = profile_of(size, defences)
    natural = chapter.ann("natural", size, seed, data_dir)
    splits = common.load_profile_images(profile, data_dir)
    snn = chapter.converted(natural, size)
    defence = DEFENCES[name]
    if defence.model:
        snn = chapter.copy_of(snn, **defence.model)
    set_trainable(snn, thresholds=True)
    own = ("objective", "objective_parameters", "attack")
    shared = {key: value for key, value in chapter.finetune_recipe(size).items() if key not in own}
    options = {**shared, "epochs": defences.epochs, "batch_size": defences.batch_size, **defence.recipe}
    network = Network(name, size.network, snn.config, options)
    recipe, origin = build_recipe(network, profile, seed), {"ann": natural.key, "scale": chapter.SCALE, "on": "part"}
    origin |= {"calibration": size.calibration, "how": FineTuning()}
    return fitted(network, snn.to(natural.device), recipe, splits, profile, seed, origin)


def protocol_attack() -> Attack:
    """The attack of most papers, for a table."""
    return Attack("pgd", PROTOCOL_LEVEL / 255, options=PROTOCOL)


def protocol_rows(item: TrainedNetwork, size: ConversionSize, defences: DefenceSize) -> pd.DataFrame:
    """Rows of `protocol_attack`; a random network is judged by the mean over draws."""
    profile, attack = profile_of(size, defences), protocol_attack()
    if item.model.config["encoder"] == RANDOM:
        attack = replace(attack, options={**PROTOCOL, "eot": defences.eot})
    return attacked(item, [attack], attacked_images(profile, item.splits), profile.attack_batch_size)


def worst_rows(item: TrainedNetwork, profile: Profile, defences: DefenceSize, level: int) -> pd.DataFrame:
    """Rows of `attacks.worst_case` at `level`/255; a sample stands where no row broke it.

    A random network is attacked and judged by the mean over draws: as many more passes, by `ON_RANDOM`.
    """
    attack = worst_case_attack(level / 255, defences.passes)
    if item.model.config["encoder"] == RANDOM:
        passes = defences.eot * min(defences.passes, sum(turn.passes for turn in ON_RANDOM))
        attack = worst_case_attack(level / 255, passes, eot=defences.eot, schedule=ON_RANDOM)
    return attacked(item, [attack], attacked_images(profile, item.splits), profile.attack_batch_size)


def audited(item: TrainedNetwork, size: ConversionSize, defences: DefenceSize) -> AuditReport:
    """The audit at the smallest of the levels, on the attacked images, stored as JSON."""
    profile = profile_of(size, defences)
    chosen = attacked_images(profile, item.splits)
    return _audited(item, chosen, min(defences.levels) / 255, defences.effort, profile.attack_batch_size)


def table(networks: list[TrainedNetwork], size: ConversionSize, defences: DefenceSize) -> pd.DataFrame:
    """One row per defence and seed: clean (on the attacked images), protocol, a column per level "worst 2/255", audit
    (the verdict) and checks (names of those that it rests on); shares 0..1.
    """
    rows = []
    for item in networks:
        protocol = protocol_rows(item, size, defences)
        line = {"defence": item.label, "seed": item.seed, "clean": protocol.clean_correct.mean()}
        line["protocol"] = robust_accuracy(protocol).robust_accuracy.item()
        for level in defences.levels:
            left = robust_accuracy(worst_rows(item, profile_of(size, defences), defences, level))
            line[f"worst {level}/255"] = left.robust_accuracy.item()
        line |= {"audit": "not audited", "checks": ""}
        if item.label in defences.audited:
            report = audited(item, size, defences)
            line |= {"audit": report.verdict, "checks": ", ".join(finding.name for finding in report.flagged)}
        rows.append(line)
    return pd.DataFrame(rows)


def claimed() -> pd.DataFrame:
    """What public sources say of each defence at 8/255 on CIFAR-10: rows of the table of competitors, percent.

    Columns: defence, training, network, clean, FGSM, PGD ("" where not told; of PGD the fewest steps), source (whose
    paper prints it), note.
    """
    reference = load_reference("competitors")
    reference = reference[(reference.dataset == "CIFAR-10") & (reference.metric == "accuracy")]
    reference = reference[reference.eps255.isin([0, PROTOCOL_LEVEL])]
    rows = []
    for name, defence in DEFENCES.items():
        own = reference[reference.method.eq(defence.published)] if defence.published else reference[:0]
        if name == "AT":
            own = own[own.training == "adversarial"]
        for key, group in own.groupby(["source", "training", "architecture"], sort=False):
            values = group.sort_values("steps", kind="stable").drop_duplicates("attack").set_index("attack").value
            cells = {shown: values.get(attack, "") for attack, shown in PRINTED.items()}
            if any(cells.values()):
                source, training, network = key
                line = {"defence": name, "training": training, "network": network, **cells}
                rows.append({**line, "source": source, "note": group.note.iloc[0]})
    return pd.DataFrame(rows)


@stored("membranes")
def membranes(item: TrainedNetwork, images: ImageSet) -> pd.DataFrame:
    """One row: defence, near (share of membranes within 1 of the threshold, mean over layers), and what MPD-SGR and
    TGO push down: overlap, constraint."""
    pixels, labels = images.batch(slice(None), item.device), images.labels.to(item.device)
    with recorded_membranes(item.model) as distances, torch.no_grad():
        item.model(pixels)
    near = [(layer.abs() < 1).double().mean().item() for layer in distances]
    overlap = membrane_overlap(item.model, pixels, labels, weight=1.0)[1]["overlap"].item()
    constraint = membrane_guard(item.model, pixels, labels, weight=1.0)[1]["constraint"].item()
    line = {"defence": item.label, "near": sum(near) / len(near), "overlap": overlap, "constraint": constraint}
    return pd.DataFrame([line])


def described() -> pd.DataFrame:
    """One row per defence: what it does, where its equation is from, what in it is ours."""
    rows = [{"defence": name, "what": each.what, "source": each.source, "ours": each.ours}
            for name, each in DEFENCES.items()]  # fmt: skip
    return pd.DataFrame(rows)


def sparsity_rows(
    networks: list[TrainedNetwork], kind: str, profile: Profile, defences: DefenceSize
) -> pd.DataFrame:
    """One row per network: zero_share and l1 of the input gradient (means), what `accuracy` gives, and kept: of what is
    right, the share that the worst case leaves at the smallest level. kind: what the picture calls them.
    """
    rows = []
    for item in networks:
        measured = luu2025.input_rows(item, profile, "image", "eval")
        left = worst_rows(item, profile, defences, min(defences.levels))
        success = attack_success_rate_among_correct(left).attack_success_rate.item()
        line = {"network": SHORT.get(item.label, item.label), "seed": item.seed, "kind": kind, "kept": 1 - success}
        line |= accuracy(item, item.splits.test).iloc[0].to_dict()
        rows.append({**line, "zero_share": measured.zero_share.mean(), "l1": measured.l1.mean()})
    return pd.DataFrame(rows)


def architectural(profile: Profile, data_dir: str | None = None) -> list[TrainedNetwork]:
    """The first paper's networks with max and average pool, first seed: sparse by their build, trained plainly."""
    return [luu2025.trained(luu2025.NETWORKS[key], profile, profile.seeds[0], data_dir) for key in ARCHITECTURAL]


def profile_of(size: ConversionSize, defences: DefenceSize) -> Profile:
    """The chapter's profile with the images that this notebook trains on, attacks and tests on."""
    return with_images_of(size.profile, defences)


@stored("defence_audits", form=REPORTS, unnamed=("batch_size",))
def _audited(item: TrainedNetwork, chosen: ImageSet, eps: float, effort: str, batch_size: int) -> AuditReport:
    images, labels = chosen.batch(slice(None), item.device), chosen.labels.to(item.device)
    seed = torch.Generator().manual_seed(item.seed)
    return audit(item.model, images, labels, Budget(eps), effort=effort, generator=seed, batch_size=batch_size)
