"""What a profile would cost on this machine: the trainings and attacks behind the tables of both papers.

The work is listed from the definitions that the notebooks use, one network of each kind is timed for a few batches, and
everything else is counting. Nothing is trained to the end and nothing is stored.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace

import pandas as pd
import torch

from snnlib.attacks.ensemble import MEMBERS
from snnlib.attacks.gradients import parse_gradient
from snnlib.attacks.prepared import prepared
from snnlib.bench.speed import milliseconds
from snnlib.companion import paths
from snnlib.companion.luu2025 import networks as luu2025
from snnlib.companion.measure import networks as common
from snnlib.companion.measure.attacked import AUTHORS, IMAGE, Attack
from snnlib.companion.measure.networks import Network, attacked_images, build_network, build_recipe
from snnlib.companion.measure.store import Artifact, name_of
from snnlib.companion.ozdenizci2024 import networks as conversion
from snnlib.companion.ozdenizci2024.attacks import TRAINING_SURROGATE, attack_at
from snnlib.companion.ozdenizci2024.tables import ATTACKS
from snnlib.companion.sizes import ConversionSize, Profile, conversion_size, get_profile
from snnlib.companion.verdicts.ozdenizci2024 import HEADLINE
from snnlib.conversion import copy_weights, set_trainable
from snnlib.data import ImageSet, ImageSplits
from snnlib.models import Model
from snnlib.progress import progress
from snnlib.training import Recipe, estimate_training_seconds
from snnlib.training.log import read_log

CLASSES = 10
WHOLE = {"train": 45_000, "validation": 5_000, "test": 10_000}
"""Images of whole CIFAR-10 after `load_images` has held out a tenth of its training images."""
SCORED = 16
"""Validation images that the estimate of a training times itself; the others cost what a forward pass costs."""
COST_COLUMNS = ["notebook", "network", "work", "networks", "images", "passes", "gradients", "images/s", "hours"]
SPENT_COLUMNS = ["notebook", "network", "networks", "epochs", "hours estimated", "hours spent", "estimate/spent"]
NOT_COUNTED = (
    "Not counted: notebooks 16, 17, 30-34 and 40 (theory, events, audit, black box, adaptive, further training, "
    "other defences, speed), the adaptive attack in 21 and 23, the checks on the attacks in 23, calibration, accuracy "
    "without attack, and what 11, 13 and 24 measure."
)

_outlines: dict[str, Model] = {}


@dataclass(frozen=True)
class Training:
    """One network for every seed of `profile`. notebook: the first that asks. The rest: of a fine-tuned SNN, its ANN
    and the ANN's objective, what may be fine-tuned, and options of the calibration."""

    notebook: str
    network: Network
    profile: Profile
    ann: Network | None = None
    objective: str = ""
    how: conversion.FineTuning = conversion.FineTuning()
    calibration: dict = field(default_factory=dict)

    def recipe(self, seed: int = 0) -> Recipe:
        return build_recipe(self.network, self.profile, seed)

    def model(self, seed: int = 0) -> Model:
        """The network before training; a converted one has thresholds of 1."""
        model = build_network(self.ann or self.network, self.profile, CLASSES, seed)
        if self.ann is None:
            return model
        snn = copy_weights(model, time_steps=self.profile.time_steps, **conversion.SNN_OPTIONS)
        set_trainable(snn, thresholds=self.how.thresholds)
        return snn

    def outline(self, seed: int = 0) -> Model:
        """The network without its numbers; asked for again, the same object."""
        key = repr((self.network, self.profile, self.ann, self.how.thresholds, seed))
        if key not in _outlines:
            with torch.device("meta"):
                _outlines[key] = self.model(seed)
        return _outlines[key]

    def artifact(self, seed: int) -> Artifact:
        """What `common.fitted` calls the trained network; asking for it writes nothing."""
        origin = None
        if self.ann is not None:
            ann = Training(self.notebook, self.ann, self.profile).artifact(seed).name
            origin = conversion.conversion_origin(ann, self.calibration, self.how)
        return common.network_artifact(self.outline(seed), self.recipe(seed), "cifar10", self.profile, origin)


@dataclass(frozen=True)
class Work:
    """Attacks that differ in eps alone, on the networks of one training."""

    notebook: str
    training: Training
    attacks: tuple[Attack, ...]

    @property
    def label(self) -> str:
        attack = self.attacks[0]
        steps, gradient = attack.options.get("steps"), attack.gradient.removeprefix("own")
        members = f"{len(attack.members)} members{', each alone' * attack.alone}" if attack.members else ""
        levels = "eps " + ", ".join(f"{255 * each.eps:g}" for each in self.attacks)
        parts = (attack.name, f"{steps} steps" * bool(steps), gradient, members, attack.threat.name, levels)
        return ", ".join(filter(None, parts))


def luu_trainings(profile: Profile) -> list[Training]:
    """Networks of notebook 10, then those that `luu2025.table_networks` adds for notebook 15."""
    families, known = ("sew_max", "sew_avg", "spiking_max"), luu2025.NETWORKS.values()
    tables = [luu2025.network(key, depth) for key in families for depth in profile.depths]
    deeper = [Training("15", network, profile) for network in tables if network not in known]
    return [Training("10", network, profile) for network in known] + deeper


def luu_attacks(trainings: Iterable[Training], profile: Profile) -> list[Work]:
    """`curve_rows` and `ladder_rows` of notebook 12, then what `headline_rows` adds in notebook 15 for all."""
    curves = [luu2025.NETWORKS[key] for key in ("sew_max", "sew_avg", "defended")]
    wanted = []
    for training in trainings:
        if training.network in curves:
            attacks = [attack for threat in (AUTHORS, IMAGE) for attack in luu2025.curve_attacks(profile, threat)]
            attacks += luu2025.ladder_attacks(training.outline(), profile)
            wanted += [Work("12", training, (attack,)) for attack in attacks]
        for threat in (AUTHORS, IMAGE):
            attacks = (luu2025.authors_fgsm(threat), luu2025.pgd_in(profile, threat))
            wanted += [Work("15", training, (attack,)) for attack in attacks]
    return _merged(wanted)


def conversion_trainings(size: ConversionSize) -> list[Training]:
    """ANNs (notebook 20), TRADES fine-tuned and its ablations (21), "equal time" (22), the rest of the table (23)."""
    anns = [Training("20", conversion.ann_network(name, size), size.profile) for name in conversion.OBJECTIVES]
    ways = (conversion.FineTuning(), *conversion.ABLATIONS.values())
    tuned = [_finetuned("21", "trades", size, how) for how in ways]
    tuned += [_finetuned("23", name, size, ways[0]) for name in conversion.OBJECTIVES if name != "trades"]
    rivals = {name: conversion.end_to_end_network(name, size) for name in size.end_to_end_epochs}
    asked_by = {"equal time": "22", "equal steps": "23"}
    trained = [Training(asked_by[name], network, size.profile) for name, network in rivals.items()]
    return sorted([*anns, *tuned, *trained], key=lambda training: training.notebook)


def _finetuned(notebook: str, objective: str, size: ConversionSize, how: conversion.FineTuning) -> Training:
    """As `ozdenizci2024.finetuned`, without its training."""
    network = conversion.finetuned_network(objective, size, how, {})
    ann = conversion.ann_network(objective, size)
    return Training(notebook, network, size.profile, ann, objective, how, size.calibration)


def conversion_attacks(trainings: Iterable[Training], size: ConversionSize) -> list[Work]:
    """Plain attacks on ANNs, ensembles on SNNs, by the notebook that asks first, of 20 to 23."""
    return _merged(
        Work(notebook, training, (attack_at(name, level, size, members, alone),))
        for training in trainings
        for notebook, name, levels, members, alone in _asked(training, size)
        for level in levels
    )


def _asked(training: Training, size: ConversionSize) -> list[tuple[str, str, tuple[int, ...], tuple[str, ...], bool]]:
    """What the notebooks want of one network: notebook, attack, levels, members, each alone."""
    levels, top, together = size.eps_levels, (max(size.eps_levels),), (tuple(MEMBERS), False)
    if training.notebook == "20":
        return [("20", name, levels, (), False) for name in ATTACKS]
    asked = [("21", "fgsm", (HEADLINE,), *together)] if training.notebook == "21" else []
    if training.how.label:  # an ablation, which no table holds
        return asked
    if training.notebook in ("21", "22"):
        asked += [("22", "fgsm", top, tuple(MEMBERS), True), *(("22", name, top, *together) for name in ATTACKS)]
    return asked + [("23", name, levels, *together) for name in ATTACKS]


def _merged(wanted: Iterable[Work]) -> list[Work]:
    """Works of one attack each, without those already stored by an earlier one, joined where only eps differs."""
    seen, groups = set(), {}
    for work in wanted:
        (attack,), label = work.attacks, work.training.network.label
        if (label, name_of(asdict(attack))) not in seen:
            seen.add((label, name_of(asdict(attack))))
            key = (work.notebook, label, name_of(asdict(replace(attack, eps=0.0))))
            groups.setdefault(key, []).append(work)
    joined = [replace(group[0], attacks=tuple(each.attacks[0] for each in group)) for group in groups.values()]
    return sorted(joined, key=lambda work: work.notebook)


def passes_of(work: Work) -> tuple[int, int]:
    """Forward passes of an image that never falls, and how many of them give a gradient, summed over the attacks.

    As the attacks' docstrings have it, and before each attack the prediction without it.
    """
    members = [MEMBERS[name] for name in work.attacks[0].members] or [None]
    proxies = sum(member is not None and not member.same_forward for member in members)
    passes = gradients = 0
    for attack in work.attacks:
        slopes = 0 if attack.name == "random_noise" else attack.repetitions("steps")
        scores_clean = attack.name != "fgsm" and attack.threat.batch_norm == "eval"
        passes += 1 + len(members) * (slopes + 1 + scores_clean) + proxies * slopes
        gradients += len(members) * slopes
    return passes, gradients


@functools.cache
def made_up_images() -> ImageSplits:
    """Random images in the numbers of whole CIFAR-10, 512 of them different: a dry run downloads nothing."""
    pool = torch.randint(256, (512, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    places = {name: torch.arange(count) for name, count in WHOLE.items()}
    parts = {name: ImageSet(pool[place % len(pool)], place % CLASSES) for name, place in places.items()}
    return ImageSplits("cifar10", **parts, num_classes=CLASSES, class_names=tuple(map(str, range(CLASSES))))


def images_of(profile: Profile) -> ImageSplits:
    """The profile's images, made up where it takes whole CIFAR-10."""
    return made_up_images() if profile.subset == "whole" else common.load_profile_images(profile)


class Meter:
    """Times this machine, equal work once. batches: timed in each measurement, after an untimed one.

    rates: what is known without measuring, by the key of the work: seconds of an epoch, or of a forward pass and of
    one with its gradient, per image.
    """

    def __init__(self, device: str, batches: int, rates: dict[str, float | tuple[float, float]] | None = None) -> None:
        self.device, self.batches, self.rates = device, batches, {} if rates is None else rates

    def epoch(self, training: Training) -> float:
        """Seconds of one epoch, training and validation, of one network."""
        recipe, splits = replace(training.recipe(), epochs=1), images_of(training.profile)
        free = dict.fromkeys(("learning_rate", "weight_decay", "schedule", "seed"))

        def measure() -> float:
            part = replace(splits, validation=splits.validation.take(slice(0, SCORED)))
            seconds = estimate_training_seconds(training.model(), part, recipe, self.device, batches=self.batches)
            return seconds + (len(splits.validation) - len(part.validation)) * self.passes(training, "own")[0]

        return self._once(training, {**recipe.as_config(), **free, "images": len(splits.train)}, measure)

    def passes(self, training: Training, surrogate: str) -> tuple[float, float]:
        """Seconds per image of a forward pass, and of one with the gradient by the image, as attacks take them."""
        size = training.profile.attack_batch_size

        def measure() -> tuple[float, float]:
            images = attacked_images(training.profile, images_of(training.profile)).batch(slice(0, size), self.device)
            x, model = images.clone().requires_grad_(True), training.model().to(self.device)
            with prepared(model, gradient=parse_gradient(surrogate)):
                kinds = {
                    "forward": torch.no_grad()(lambda: model(images)),
                    "gradient": lambda: torch.autograd.grad(model(x).logsumexp(1).sum(), x),
                }
                times = milliseconds(kinds, self.batches, self.device, warm_up=1)
            per_image = {kind: sum(taken) / self.batches / 1e3 / len(images) for kind, taken in times.items()}
            return per_image["forward"], per_image["gradient"]

        return self._once(training, {"batch_size": size, "surrogate": surrogate}, measure)

    def under(self, work: Work, images: int) -> float:
        """Seconds for one network, at most. An ensemble's passes are timed with its first member."""
        attack = work.attacks[0]
        forward, gradient = self.passes(work.training, TRAINING_SURROGATE if attack.members else attack.gradient)
        passes, gradients = passes_of(work)
        return images * ((passes - gradients) * forward + gradients * gradient)

    def _once(self, training: Training, work: dict, measure: Callable) -> float | tuple[float, float]:
        key = name_of({"model": {**training.outline().config, "seed": None}, "work": work})
        if key not in self.rates:
            self.rates[key] = measure()
        return self.rates[key]


def work_of(name: str) -> tuple[list[Training], list[Work]]:
    """All trainings and attacks of the profile of that name. Errors: InputError for another one."""
    profile, size = get_profile(name), conversion_size(name)
    luu, converted = luu_trainings(profile), conversion_trainings(size)
    return luu + converted, luu_attacks(luu, profile) + conversion_attacks(converted, size)


def estimated(trainings: list[Training], attacks: list[Work], meter: Meter) -> pd.DataFrame:
    """One row per training (passes: epochs) and attack; hours = networks · images · passes / (images/s) / 3600."""
    rows = []
    for work in progress([*trainings, *attacks], label="measuring"):
        trains = isinstance(work, Training)
        training = work if trains else work.training
        splits = images_of(training.profile)
        images = len(splits.train if trains else attacked_images(training.profile, splits))
        passes, gradients = (training.recipe().epochs, "") if trains else passes_of(work)
        seconds = passes * meter.epoch(work) if trains else meter.under(work, images)
        networks = len(training.profile.seeds)
        names = (work.notebook, training.network.label, "training" if trains else work.label)
        rows.append((*names, networks, images, passes, gradients, images * passes / seconds, networks * seconds / 3600))
    return pd.DataFrame(rows, columns=COST_COLUMNS)


def beside_spent(trainings: list[Training], meter: Meter) -> pd.DataFrame:
    """One row per training with a log that a run would take up; epochs: those with a known time, which are compared."""
    rows = []
    for training in trainings:
        runs = [training.artifact(seed).name for seed in training.profile.seeds]
        logs = [read_log(paths.ARTIFACTS / "networks" / run / "log.jsonl") for run in runs]
        known = [line["seconds"] for log in logs for line in log if line["seconds"] is not None]
        if known:
            hours = len(known) * meter.epoch(training) / 3600, sum(known) / 3600
            found = f"{sum(map(bool, logs))} of {len(runs)}"
            rows.append((training.notebook, training.network.label, found, len(known), *hours, hours[0] / hours[1]))
    return pd.DataFrame(rows, columns=SPENT_COLUMNS)
