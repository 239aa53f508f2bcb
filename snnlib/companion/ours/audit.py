"""Is it masking? The first paper's networks, seen by attackers who differ in nothing but their gradient.

**Source:** the question is that of section 4 of the dossier on Luu et al. 2025: same weights, same function, another
gradient. If robust accuracy moves, it was the attacker that was blind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
import torch

from snnlib.attacks import Budget
from snnlib.attacks.same_function import POOL_GRADIENTS, dense_pool_gradient
from snnlib.audit import AuditReport, audit
from snnlib.companion.luu2025 import networks as luu2025
from snnlib.companion.measure.attacked import AUTHORS, ENCODED, IMAGE, IMAGE_SMOOTH, attack_rows
from snnlib.companion.measure.networks import TrainedNetwork, attacked_images
from snnlib.companion.measure.rows import robust_accuracy
from snnlib.companion.measure.store import Format, stored
from snnlib.companion.ours.audit_attackers import (
    Attacker,
    blinded_attacker,
    chain_attackers,
    same_function_attackers,
)
from snnlib.companion.sizes import Profile, audit_size
from snnlib.data import ImageSet
from snnlib.files import write_atomic
from snnlib.progress import progress
from snnlib.sparsity import gradient_by_operation
from snnlib.training.accuracy import predictions

NETWORKS = ("sew_max", "sew_avg", "defended")
STAGES = ("notebook 12", "own", "pool", "encoder", "surrogates", "rules", "losses", "transfer", "Square")
"""Groups of attackers in the order in which they run for the worst case."""
DENSE = f"max pool as {POOL_GRADIENTS[0]}"
SPACES = {"image": (IMAGE.name, IMAGE_SMOOTH.name), "encoded": (ENCODED.name, AUTHORS.name)}
"""The two threat models, each with the rows of notebook 12 that fall into it: all scored on the deployed network."""
OWN = "own gradient"
REPORTS = Format(
    ".report.json",
    lambda path, report: write_atomic(path, report.to_json()),
    lambda path: AuditReport.from_json(path.read_text(encoding="utf-8")),
)
ROW_KEY = ("model", "seed", "threat_model", "eps255", "dataset", "split")


def attacker_rows(
    item: TrainedNetwork,
    profile: Profile,
    attackers: Iterable[Attacker],
    space: str,
    level: int,
    *,
    samples: Sequence[int],
    in_turn: bool = False,
) -> pd.DataFrame:
    """Rows of each attacker at `level`/255, one per sample; stored as soon as an attacker is done.

    samples: positions among the attacked test images. in_turn: each attacker runs on what the earlier ones left, else
    each on all of them.
    """
    images, chosen, parts = attacked_images(profile, item.splits), list(samples), []
    for attacker in progress(list(attackers), label=f"{item.label}, {space}, {level}/255"):
        if not chosen:
            break
        options = {"batch_size": profile.attack_batch_size, "samples": chosen, "source": attacker.source}
        rows = attack_rows(item, attacker.attack, images, **options)[["sample", "success"]]
        parts.append(rows.assign(attacker=attacker.label, group=attacker.group))
        if in_turn:
            chosen = rows["sample"][~rows.success].tolist()
    if not parts:
        return pd.DataFrame(columns=[*ROW_KEY, "sample", "success", "attacker", "group"])
    return pd.concat(parts, ignore_index=True).assign(**_names(item, space, level))


def earlier_rows(item: TrainedNetwork, profile: Profile, space: str, level: int) -> pd.DataFrame:
    """What notebook 12 has measured on this network at `level`/255 in this space, in the columns of `attacker_rows`."""
    rows = pd.concat([luu2025.ladder_rows(item, profile), luu2025.curve_rows(item, profile)], ignore_index=True)
    rows = rows[rows.threat_model.isin(SPACES[space]) & ((255 * rows.eps - level).abs() < 1e-6)]
    kept = rows[["sample", "success"]].assign(attacker=rows.attack, group="notebook 12")
    return kept.reset_index(drop=True).assign(**_names(item, space, level))


def worst_case_rows(
    item: TrainedNetwork, profile: Profile, space: str, level: int, sources: dict[str, TrainedNetwork]
) -> pd.DataFrame:
    """Notebook 12's rows and those of `chain_attackers` on what they left: the worst case is a query over them."""
    known = earlier_rows(item, profile, space, level)
    size, image_set = audit_size(profile.name), attacked_images(profile, item.splits)
    if known.empty:
        known = _clean_rows(item, profile).assign(**_names(item, space, level))
    broken = set(known["sample"][known.success])
    standing = [sample for sample in range(len(image_set)) if sample not in broken]
    attackers = chain_attackers(item, space, level / 255, size, sources)
    found = attacker_rows(item, profile, attackers, space, level, samples=standing, in_turn=True)
    return pd.concat([known, found], ignore_index=True)


def transfer_sources(item: TrainedNetwork, networks: Sequence[TrainedNetwork], space: str) -> dict[str, TrainedNetwork]:
    """Other networks to craft on: the same one from another seed, and of the same seed those that differ in the pool or
    the defence; on the code only those that encode alike."""

    def alike(other: TrainedNetwork) -> bool:
        return space == "image" or repr(other.model.encoder) == repr(item.model.encoder)

    def is_near(other: TrainedNetwork) -> bool:
        return (other.network == item.network) != (other.seed == item.seed)

    near = [other for other in networks if is_near(other) and alike(other)]
    return {f"{other.network.label}, seed {other.seed}": other for other in near[:2]}


def alone_samples(item: TrainedNetwork, profile: Profile) -> list[int]:
    """Positions among the attacked test images of those on which each attacker runs alone: the first of each class."""
    labels = attacked_images(profile, item.splits).labels
    limit = audit_size(profile.name).alone_per_class
    seen = pd.Series(labels.numpy()).groupby(labels.numpy()).cumcount()
    return [position for position, before in enumerate(seen) if limit is None or before < limit]


def alone_rows(item: TrainedNetwork, profile: Profile, space: str) -> pd.DataFrame:
    """`same_function_attackers`, each on its own, on the same images."""
    size, samples = audit_size(profile.name), alone_samples(item, profile)
    attackers = same_function_attackers(item, space, size.alone_level / 255, size)
    return attacker_rows(item, profile, attackers, space, size.alone_level, samples=samples)


def sparse_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """PGD on images with exact zeros put into its gradient: column `keep`, the share of the pixels that it sees."""
    size, samples, parts = audit_size(profile.name), alone_samples(item, profile), []
    for keep in size.shares:
        attacker = blinded_attacker(keep, size.alone_level / 255, size)
        rows = attacker_rows(item, profile, [attacker], "image", size.alone_level, samples=samples)
        parts.append(rows.assign(keep=keep))
    return pd.concat(parts, ignore_index=True)


def pool_zeros(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Exact zeros in the gradient at the stem's max pool: its own, and two dense ones of the same function."""
    rows = _pool_zeros(item, item.splits.test.first_per_class(profile.inspected_per_class))
    return rows.assign(model=item.label, seed=item.seed)


@stored("pool_zeros")
def _pool_zeros(item: TrainedNetwork, chosen: ImageSet) -> pd.DataFrame:
    images, labels = chosen.batch(slice(None), item.device), chosen.labels.to(item.device)

    def at_pool() -> float:
        table = gradient_by_operation(item.model, images, labels, space="encoded")
        return float(table[table.kind == "MaxPool2d"].zero_share_grad_input.iloc[0])

    found = {OWN: at_pool()}
    for kind in POOL_GRADIENTS[:2]:
        with dense_pool_gradient(item.model, kind):
            found[f"max pool as {kind}"] = at_pool()
    return pd.DataFrame({"attacker": list(found), "zero_share": list(found.values())})


def nonzero_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Non-zeros of the input gradient (Theorem 4.1), in both spaces with BatchNorm in eval: mean share per network."""
    parts = [luu2025.input_rows(item, profile, space, "eval") for space in SPACES]
    table = pd.concat(parts, ignore_index=True).assign(nonzero_share=lambda rows: 1 - rows.zero_share)
    return table.groupby(["model", "seed", "space"]).nonzero_share.mean().reset_index()


def filled_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Zeros at the stem's max pool, and what PGD leaves, by the own gradient and by the dense one: a row per space."""
    zeros = pool_zeros(item, profile).set_index("attacker").zero_share
    parts = []
    for space in SPACES:
        left = 1 - alone_rows(item, profile, space).groupby("attacker").success.mean()
        parts.append(
            {
                "model": item.network.label,
                "seed": item.seed,
                "space": space,
                "zeros_own": zeros[OWN],
                "zeros_dense": zeros[DENSE],
                "left_own": left[OWN],
                "left_dense": left[DENSE],
            }
        )
    return pd.DataFrame(parts)


def by_stage(rows: pd.DataFrame) -> pd.DataFrame:
    """What is left after each group of attackers in turn, of `worst_case_rows`: one row per group of `STAGES`, per
    threat model, model, seed and eps; share of all images."""
    parts, key = [], ["threat_model", "model", "seed", "eps255"]
    for place, stage in enumerate(STAGES):
        so_far = rows[rows.group.isin(STAGES[: place + 1])]
        parts.append(robust_accuracy(so_far, by=key).assign(stage=stage))
    return pd.concat(parts, ignore_index=True)


def protocol_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """FGSM and PGD as the authors' code has them, at its eps: the number from which the claim starts."""
    rows = luu2025.headline_rows(item, profile)
    rows = rows[rows.threat_model == AUTHORS.name]
    level = round(255 * luu2025.HEADLINE_EPS)
    kept = rows[["sample", "success", "clean_correct"]].assign(attacker=rows.attack, group="authors")
    return kept.reset_index(drop=True).assign(**_names(item, "authors", level))


def audited(item: TrainedNetwork, profile: Profile) -> AuditReport:
    """The audit of a trained network at the chapter's `alone_level` and on its images, stored as JSON."""
    size = audit_size(profile.name)
    chosen = attacked_images(profile, item.splits).take(alone_samples(item, profile))
    return _audited(item, chosen, size.alone_level / 255, size.effort, profile.attack_batch_size)


@stored("audits", version=2, form=REPORTS)
def _audited(item: TrainedNetwork, chosen: ImageSet, eps: float, effort: str, batch_size: int) -> AuditReport:
    images, labels = chosen.batch(slice(None), item.device), chosen.labels.to(item.device)
    seed = torch.Generator().manual_seed(item.seed)
    return audit(item.model, images, labels, Budget(eps), effort=effort, generator=seed, batch_size=batch_size)


def _names(item: TrainedNetwork, space: str, level: int) -> dict:
    return {
        "model": item.network.label,
        "seed": item.seed,
        "threat_model": space,
        "eps255": level,
        "dataset": item.splits.name,
        "split": "test",
    }


def _clean_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    image_set = attacked_images(profile, item.splits)
    wrong = predictions(item.model, image_set, profile.attack_batch_size, item.device) != image_set.labels
    samples = range(len(image_set))
    return pd.DataFrame({"sample": samples, "success": wrong.numpy(), "attacker": "none", "group": STAGES[0]})
