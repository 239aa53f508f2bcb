"""How often does the audit err? Networks with a planted mask, and honest ones, under it: hits and false alarms.

The set has two halves that share no trained network, no strength of a mask and no pairing of masks with libraries.
The audit's rules may be changed after a look at the half "development"; the rates that are told come from the half
"published". Whether a mask took is measured by an attacker that the audit does not have: PGD on the margin by the
gradient of the network as it was before the mask (its twin), scored on the network with the mask.
"""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor, nn

from snnlib.attacks import Budget, pgd
from snnlib.audit import AuditReport, audit
from snnlib.audit.case import MASKED_COUNT, MASKED_SHARE
from snnlib.audit.report import CLEAN, INCONCLUSIVE, MASKED, SUSPICIOUS
from snnlib.companion.measure.store import stored
from snnlib.companion.ours.planted_masks import MASKS, PLANES, Front, Quantiser, phase_code
from snnlib.companion.ours.planted_networks import LIBRARIES, converted, trained
from snnlib.companion.sizes import Profile, audit_size
from snnlib.data import ImageSet, ImageSplits
from snnlib.encoding import PoissonEncoder
from snnlib.neurons import use_kernel
from snnlib.progress import progress

HALVES = {"development": 1, "published": 2}
"""Each half with the seed of its networks."""
DEFENDED, CONVERTED = "adversarially trained", "converted"
HONEST: dict[str, Callable[[], nn.Module]] = {
    "undefended": Front,
    DEFENDED: Front,
    CONVERTED: Front,
    "Poisson, straight-through": lambda: PoissonEncoder(PLANES),
    "phase code, smooth": phase_code,
    "quantiser, straight-through": Quantiser,
}
"""Kinds of honest networks, with the front that they are trained with."""
RANDOM = ("randomness", "Poisson, straight-through")
EPS, DEFENCE_EPS = 2 / 255, 4 / 255
REFERENCE_STEPS = 20


@dataclass(frozen=True)
class Plant:
    """One network of the set. kind: a key of `MASKS` or `HONEST`; mask: its name; strength: of the mask, 0..1."""

    library: str
    kind: str
    half: str
    mask: str = ""
    strength: float = 0.0


class Reference(nn.Module):
    """The answers of `deployed`, differentiated as `twin`."""

    def __init__(self, deployed: nn.Module, twin: nn.Module) -> None:
        super().__init__()
        self.deployed, self.twin = deployed, twin

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            answers = self.deployed(images)
        guide = self.twin(images)
        return answers + (guide - guide.detach())


def plants(half: str, random_in: int = len(LIBRARIES)) -> Iterator[Plant]:
    """The networks of a half: every kind in every library, but random ones, whose audit takes ten times as long, in the
    first `random_in` of them alone."""
    turn = HALVES[half]
    generator = torch.Generator().manual_seed(turn)
    for place, library in enumerate(LIBRARIES):
        for kind, masks in MASKS.items():
            mask, strength = masks[(place + turn) % len(masks)], float(torch.rand((), generator=generator))
            if place < random_in or kind not in RANDOM:
                yield Plant(library, kind, half, mask.name, round(strength, 3))
        for kind in HONEST:
            if place < random_in or kind not in RANDOM:
                yield Plant(library, kind, half)


def planted_rows(splits: ImageSplits, profile: Profile, half: str = "published") -> pd.DataFrame:
    """One row per network of the half whose library is installed: the verdict, and how many of the correct images the
    own gradient (left_own), the audit (left_audit) and the reference (left_reference) leave."""
    size = audit_size(profile.name)
    train, test = splits.train.first_per_class(size.planted_train), splits.test.first_per_class(size.planted_test)
    known: dict[tuple, nn.Module] = {}
    chosen = [
        plant
        for plant in plants(half, size.planted_random)
        if (size.planted_kinds is None or plant.kind in size.planted_kinds) and release(plant.library) is not None
    ]
    with use_kernel("reference"):  # the same spikes; to compile takes longer than these networks do
        rows = [
            _row(plant, release(plant.library), train, test, size.planted_epochs, size.planted_effort, known)
            for plant in progress(chosen, label="planted networks")
        ]
    return pd.concat(rows, ignore_index=True)


def release(library: str) -> str | None:
    """Version of a library of others, "" for ours; None where it is not installed."""
    if library == "snnlib":
        return ""
    return importlib.metadata.version(library.lower()) if importlib.util.find_spec(library.lower()) else None


@stored("planted", unnamed=("known",))
def _row(
    plant: Plant, release: str, train: ImageSet, test: ImageSet, epochs: int, effort: str, known: dict
) -> pd.DataFrame:
    """release: of the library, for the result's name. known: networks already trained, by what makes them."""
    model, twin = network(plant, train, epochs, known)
    images, labels = test.batch(slice(None)), test.labels
    generator = torch.Generator().manual_seed(HALVES[plant.half])
    report = audit(model, images, labels, Budget(EPS), effort=effort, generator=generator)
    row = {
        **{name: getattr(plant, name) for name in ("half", "library", "kind", "mask", "strength")},
        "masked": plant.kind in MASKS,
        "images": report.images,
        "correct": report.correct,
        "left_own": report.own_robust,
        "left_audit": report.robust,
        "left_reference": _left_by_reference(model, twin, images, labels, report),
        "verdict": report.verdict,
        "flags": ", ".join(found.name for found in report.flagged),
    }
    return pd.DataFrame([row])


def network(plant: Plant, train: ImageSet, epochs: int, known: dict) -> tuple[nn.Module, nn.Module]:
    """The network of a plant, and its twin, which for an honest one is itself."""
    mask = next((each for each in MASKS.get(plant.kind, ()) if each.name == plant.mask), None)
    front = mask.front if mask else HONEST[plant.kind]
    special = plant.kind if plant.kind in (DEFENDED, CONVERTED) else ""
    name = (plant.library, plant.half, front, special)
    if name not in known:
        options = {"epochs": epochs, "seed": HALVES[plant.half]}
        if special == CONVERTED:
            known[name] = converted(plant.library, train, **options)
        else:
            eps = DEFENCE_EPS if special == DEFENDED else 0.0
            known[name] = trained(plant.library, front(), train, eps=eps, **options)
    twin = known[name]
    if mask is None:
        return twin, twin
    model = copy.deepcopy(twin)
    mask.plant(model, plant.strength)
    return model, twin


def _left_by_reference(
    model: nn.Module, twin: nn.Module, images: Tensor, labels: Tensor, report: AuditReport
) -> int:
    is_random = report.finding("randomised_output").outcome != CLEAN
    found = pgd(
        Reference(model, twin),
        images,
        labels,
        Budget(EPS),
        loss="margin",
        steps=REFERENCE_STEPS,
        eot=report.effort["eot"] if is_random else 1,
        generator=torch.Generator().manual_seed(HALVES["published"] + 1),
    )
    return int((~found.success).sum())


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with `flagged` (masked or suspicious), `missed`: the share of the correct images that the own gradient
    leaves and the reference does not, and `group`: "masked", "honest", or "mask without effect" where that is less than
    the audit itself would count."""
    beyond = rows.left_own - rows.left_reference
    took = (beyond >= MASKED_COUNT) & (beyond >= MASKED_SHARE * rows.correct)
    group = pd.Series("honest", index=rows.index).mask(rows.masked, "mask without effect")
    group = group.mask(rows.masked & took, "masked")
    flagged = rows.verdict.isin((MASKED, SUSPICIOUS))
    return rows.assign(flagged=flagged, missed=beyond / rows.correct, group=group)


def rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Of `judged` rows, for each group and for each kind in it: networks, how many are flagged (by the verdict masked
    or suspicious) and how many of these "masked", inconclusive, and the flagged share with its 95 % interval.

    **Source:** Clopper & Pearson 1934. Networks of a half that share a library also share trained weights: the
    intervals take them as independent, and are somewhat too narrow.
    """
    parts = [_counted(part, group, "all") for group, part in rows.groupby("group", sort=False)]
    parts += [_counted(part, *names) for names, part in rows.groupby(["group", "kind"], sort=False)]
    return pd.DataFrame(parts)


def _counted(rows: pd.DataFrame, group: str, kind: str) -> dict:
    flagged = int(rows.flagged.sum())
    low, high = proportion_confint(flagged, len(rows), method="beta")
    return {
        "group": group,
        "kind": kind,
        "networks": len(rows),
        "flagged": flagged,
        "called_masked": int((rows.verdict == MASKED).sum()),
        "inconclusive": int((rows.verdict == INCONCLUSIVE).sum()),
        "share": flagged / len(rows),
        "low": float(low),
        "high": float(high),
    }


def names_of(rows: pd.DataFrame) -> str:
    """Networks in words, for a sentence about those that were missed or wrongly flagged."""
    named = (f"{row.kind}{f' ({row.mask})' if row.mask else ''} in {row.library}" for row in rows.itertuples())
    return "; ".join(named) or "none"
