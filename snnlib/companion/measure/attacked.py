"""One way from a network, an attack and images to rows: one row per sample, and per member for an ensemble."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor

from snnlib.attacks import ATTACKS, AttackResult, Budget, bit_flip, mixed_surrogates, tg_pgd, transfer
from snnlib.attacks.adaptive import adaptive_ensemble
from snnlib.attacks.ensemble import MEMBERS, EnsembleResult, ensemble_attack
from snnlib.attacks.gradients import parse_gradient
from snnlib.attacks.mixed_surrogates import MIXED
from snnlib.attacks.same_function import SparseGradient, dense_pool_gradient
from snnlib.attacks.worst_case import SCHEDULE, Turn, worst_case
from snnlib.companion.measure.networks import TrainedNetwork
from snnlib.companion.measure.rows import ROW_COLUMNS
from snnlib.companion.measure.store import ROWS, stored
from snnlib.data import ImageSet
from snnlib.encoding import encoder_gradient
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.neurons import kernel_name, neurons_of
from snnlib.progress import progress
from snnlib.training.accuracy import predictions
from snnlib.training.randomness import global_randomness_at


@dataclass(frozen=True)
class ThreatModel:
    """What an attacker may touch, and in which state the network is attacked.

    space: "image", or "encoded" (the perturbation is added after the encoder, to each time step on its own).
    batch_norm: see `snnlib.attacks.prepared.prepared`. encoder_gradient: how an image-space attacker differentiates
    the encoder, "" for its own, or where none is crossed.
    """

    name: str
    space: str
    batch_norm: str = "eval"
    encoder_gradient: str = ""


AUTHORS = ThreatModel("authors", "encoded", batch_norm="train")
"""Luu et al. 2025, their code: perturbation on the bit planes, BatchNorm in train mode, scored in eval mode."""
AUTHORS_DRIFTING = ThreatModel("authors, drifting BN", "encoded", batch_norm="train-and-keep")
"""As `AUTHORS`, and the running statistics keep what the attacked test batches did to them, as in their code."""
ENCODED = ThreatModel("encoded, BN eval", "encoded")
"""As `AUTHORS`, on the function that is scored: BatchNorm in eval mode throughout."""
IMAGE = ThreatModel("image", "image", encoder_gradient="straight_through")
"""The threat model of the field: the image is perturbed and encoded anew, the network is the deployed one."""
IMAGE_SMOOTH = ThreatModel("image, smooth encoder", "image", encoder_gradient="smooth")
"""As `IMAGE`; the attacker differentiates the encoder by its smooth stand-in."""

CUDA_BATCH = 500
"""A GPU waits for its next kernel with fewer images at once; used where batches decide nothing."""
BY_ITSELF = {"adaptive_ensemble": adaptive_ensemble, "mixed_surrogates": mixed_surrogates, "worst_case": worst_case}
"""Attacks that bring their surrogates: the first two take members to choose from or to mix."""
RUNNERS = {**ATTACKS, **BY_ITSELF, "transfer": transfer, "bit_flip": bit_flip, "tg_pgd": tg_pgd}


@dataclass(frozen=True)
class Attack:
    """One attack with its numbers, as plain data.

    name: a key of `RUNNERS`. eps: in pixel units, or a number of flips (norm "l0"). gradient: how the attacker
    differentiates a spike, "own" or as `parse_gradient` reads it. pool: a kind of `dense_pool_gradient`, "" for the
    true gradient of max pools. keep: share of the pixels whose gradient is seen. members: names of `MEMBERS`; each
    runs the attack, on whoever still stands or, `alone`, on everyone; attacks of `BY_ITSELF` choose among them or mix
    them (none: their own). options: keyword arguments of the attack beside the budget (steps, restarts, loss, queries).
    """

    name: str
    eps: float
    threat: ThreatModel = IMAGE
    norm: str = "linf"
    gradient: str = "own"
    pool: str = ""
    keep: float = 1.0
    members: tuple[str, ...] = ()
    alone: bool = False
    options: Mapping = field(default_factory=dict)

    @property
    def budget(self) -> Budget:
        return Budget(self.eps, norm=self.norm, space=self.threat.space)

    @property
    def is_ensemble(self) -> bool:
        """Whether every member runs."""
        return bool(self.members) and self.name not in BY_ITSELF

    def check(self) -> None:
        """Errors: InputError for an unknown attack or member, or an option that this attack does not take."""
        if self.name not in RUNNERS:
            raise InputError(f"attack is {self.name!r}; expected one of {', '.join(RUNNERS)}; choose one of these")
        takes = inspect.signature(RUNNERS[self.name]).parameters
        if unknown := [name for name in self.options if name not in takes] if "options" not in takes else []:
            raise InputError(f"attack {self.name!r} takes no {', '.join(unknown)}; expected none; leave it out")
        if unknown := [name for name in self.members if name not in MEMBERS]:
            raise InputError(f"member is {unknown[0]!r}; expected one of the ensemble's: {', '.join(MEMBERS)}")
        if self.gradient != "own" and (self.members or self.name in BY_ITSELF):
            raise InputError(f"gradient is {self.gradient!r}; attack or members bring theirs; leave it at 'own'")

    @classmethod
    def of(cls, arguments: Mapping) -> Attack:
        """The attack that a stored result's arguments tell of, in JSON's types."""
        given = dict(arguments, members=tuple(arguments.get("members", ())))
        if "threat" in given:
            given["threat"] = ThreatModel(**given["threat"])
        if schedule := given.get("options", {}).get("schedule"):
            given["options"] = {**given["options"], "schedule": tuple(Turn(**turn) for turn in schedule)}
        return cls(**given)

    def repetitions(self, name: str) -> int:
        """The attack's "steps" or "restarts", its default where none is given; 1 for one that does not repeat."""
        parameter = inspect.signature(RUNNERS[self.name]).parameters.get(name)
        return self.options.get(name) or (1 if parameter is None else parameter.default)


def worst_case_attack(eps: float, passes: int, *, schedule: Sequence[Turn] = SCHEDULE, **options) -> Attack:
    """`attacks.worst_case` with its schedule told whole: rows by another one have another name."""
    return Attack("worst_case", eps, options={"passes": passes, "schedule": tuple(schedule), **options})


def run_attack(
    model: Model, images: Tensor, labels: Tensor, attack: Attack, *, seed: int = 0, source: Model | None = None
) -> AttackResult | EnsembleResult:
    """One batch of one attack; the model comes back as it was, except for drifting BatchNorm.

    source: where a transferred attack is crafted.
    """
    attack.check()
    options = {
        "generator": torch.Generator().manual_seed(seed),
        "batch_norm": attack.threat.batch_norm,
        **attack.options,
    }
    if source is not None:
        options["source"] = source
    if attack.members:
        options["members"] = {name: MEMBERS[name] for name in attack.members}
    elif attack.name not in BY_ITSELF:
        options["gradient"] = parse_gradient(attack.gradient)
    run = RUNNERS[attack.name]
    if attack.is_ensemble:
        run, options = ensemble_attack, {**options, "attack": attack.name, "alone": attack.alone}
    with _as_the_attacker_sees_it(model, attack, seed) as seen:
        return run(seen, images, labels, attack.budget, **options)


def attack_rows(
    network: TrainedNetwork,
    attack: Attack,
    images: ImageSet,
    *,
    batch_size: int,
    samples: Sequence[int] | None = None,
    source: TrainedNetwork | None = None,
    split: str = "test",
) -> pd.DataFrame:
    """Rows of `ROW_SCHEMA` for every image, or for those at `samples`; stored, so that a second call reads them.

    split: which of the network's images these are; no number in a table of robust accuracies is of any but "test".

    The column `surrogate` names how spikes were differentiated: for an ensemble there is a row per member that ran,
    so the worst case of a sample is `success.any()` over its rows. Batches matter only where BatchNorm looks at them.
    """
    attack.check()
    samples = None if samples is None else [int(sample) for sample in samples]
    seen_by_batch_norm = batch_size if attack.threat.batch_norm != "eval" else None
    if seen_by_batch_norm is None and network.device.startswith("cuda"):
        batch_size = max(batch_size, CUDA_BATCH)
    rows = _rows(network, attack, images, batch_size, seen_by_batch_norm, samples, source, split)
    return rows.assign(model=network.network.label)


def attacked(network: TrainedNetwork, attacks: Iterable[Attack], images: ImageSet, batch_size: int) -> pd.DataFrame:
    """`attack_rows` of several attacks, one after the other."""
    parts = [attack_rows(network, attack, images, batch_size=batch_size) for attack in attacks]
    return pd.concat(parts, ignore_index=True)


@stored("rows", form=ROWS, unnamed=("batch_size",))
def _rows(
    network: TrainedNetwork,
    attack: Attack,
    images: ImageSet,
    batch_size: int,
    batch_norm_batch: int | None = None,
    samples: list[int] | None = None,
    source: TrainedNetwork | None = None,
    split: str = "test",
) -> pd.DataFrame:
    model, device = network.model, network.device
    index = torch.arange(len(images)) if samples is None else torch.tensor(samples)
    # A random network is asked about all images by the same draw: the same answers in the rows of every attack.
    with global_randomness_at(torch.device(device), "clean", network.seed):
        clean_correct = (predictions(model, images, batch_size, device) == images.labels)[index]
    if attack.threat.batch_norm == "train-and-keep":
        model = copy.deepcopy(model)
    parts = []
    label = f"{attack.name} {255 * attack.eps:g}/255 on {network.network.label}, {attack.threat.name}"
    crafted_on = None if source is None else source.model
    for batch in progress(index.split(batch_size), label=label):
        pixels, labels = images.batch(batch, device), images.labels[batch].to(device)
        found = run_attack(model, pixels, labels, attack, seed=network.seed, source=crafted_on)
        parts += [_measured(result, batch[part]).assign(surrogate=name) for name, part, result in _parts(found)]
    rows = pd.concat(parts, ignore_index=True)
    rows["clean_correct"] = rows["sample"].map(dict(zip(index.tolist(), clean_correct.tolist(), strict=True)))
    rows["label"] = images.labels.numpy()[rows["sample"].to_numpy()]
    if attack.name == "mixed_surrogates":
        rows["surrogate"] = f"mixed({' | '.join(attack.members or MIXED)})"
    elif not attack.members and attack.name not in BY_ITSELF:
        own = neurons_of(model)
        rows["surrogate"] = repr(own[0].surrogate) if attack.gradient == "own" and own else attack.gradient
    return rows.assign(split=split, **_conditions(network, attack))[list(ROW_COLUMNS)]


def _parts(found: AttackResult | EnsembleResult) -> list[tuple[str, Tensor | slice, AttackResult]]:
    """Name, place in the batch, and result of every member; of the one attack where there are no members."""
    if isinstance(found, EnsembleResult):
        return [(name, part.index.cpu(), part.result) for name, part in found.by_member.items()]
    return [("", slice(None), found)]


def _measured(result: AttackResult, sample: Tensor) -> pd.DataFrame:
    names = ("success", "first_successful_step", "loss", "linf", "l2", "forwards", "backwards")
    return pd.DataFrame({"sample": sample.numpy(), **{name: getattr(result, name).cpu().numpy() for name in names}})


def _conditions(network: TrainedNetwork, attack: Attack) -> dict:
    """The columns of result rows that say what was attacked and under what conditions."""
    threat, encoder = attack.threat, network.model.encoder
    return {
        "run": network.key,
        "model": network.network.label,
        "dataset": network.splits.name,
        "seed": network.seed,
        "threat_model": threat.name,
        "attack": attack.name,
        "space": threat.space,
        "batch_norm": threat.batch_norm,
        "norm": attack.norm,
        "eps": float(attack.eps),
        "steps": attack.repetitions("steps"),
        "step_size": float(attack.options.get("step_size") or "nan"),
        "restarts": attack.repetitions("restarts"),
        "encoder_gradient": crossed_by(network.model, threat) or (encoder.gradient if threat.space == "image" else ""),
        "kernel": kernel_name(torch.device(network.device).type),
        "device": torch.device(network.device).type,
    }


@contextmanager
def _as_the_attacker_sees_it(model: Model, attack: Attack, seed: int):
    """The model with the attacker's gradients through pools and encoder, or with a share of the pixels' gradient."""
    with ExitStack() as contexts:
        contexts.enter_context(encoder_gradient(model, crossed_by(model, attack.threat)))
        if attack.pool:
            contexts.enter_context(dense_pool_gradient(model, attack.pool))
        yield model if attack.keep == 1 else SparseGradient(model, attack.keep, seed)


def crossed_by(model: Model, threat: ThreatModel) -> str | None:
    """The gradient by which the attacker crosses this model's encoder; None for the encoder's own.

    Straight through an encoder that has an exact gradient is that gradient. Raises InputError for any other gradient
    that the encoder does not declare.
    """
    wanted, declared = threat.encoder_gradient, model.encoder.gradients
    if not wanted or (wanted == "straight_through" and "exact" in declared):
        return None
    if wanted not in declared:
        raise InputError(
            f"threat model {threat.name!r} crosses the encoder by {wanted!r}; this one declares {', '.join(declared)}"
        )
    return wanted
