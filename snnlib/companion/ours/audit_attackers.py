"""Who attacks in the audit chapter: attackers that share one function and differ in how they differentiate it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from snnlib.attacks import ATTACKS, AttackResult, Budget
from snnlib.attacks.ensemble import MEMBERS
from snnlib.attacks.gradients import parse_gradient
from snnlib.attacks.same_function import POOL_GRADIENTS, SparseGradient, dense_pool_gradient
from snnlib.attacks.square import square
from snnlib.attacks.transfer import transfer
from snnlib.audit.run import STRONGEST_MEMBERS
from snnlib.companion.measure.networks import TrainedNetwork
from snnlib.encoding import encoder_gradient

RULES = ("backward_through_rate", "rate_gradient", "hart", "potential_dependent", "adaptive_sharpness")
WIDTHS = ("atan(alpha=0.5)", "atan(alpha=8)")
"""The training surrogate of the chapter (atan, alpha = 2), wider and sharper."""


@dataclass(frozen=True)
class AuditSize:
    """Sizes of the chapter.

    levels, code_levels: eps in 1/255 of the worst case on images and on the code. alone_level, alone_per_class: of the
    comparison of single attackers and of the audits; images of each class, None for all that are attacked. steps: of
    PGD. apgd_steps, queries (of Square). surrogates: gradients of the ensemble. rules: other backward rules. shares: of
    the pixels whose gradient an attacker sees. effort: of the audits. example_images, example_epochs: training of the
    snnTorch and SpikingJelly examples.
    """

    levels: tuple[int, ...]
    code_levels: tuple[int, ...]
    alone_level: int
    alone_per_class: int | None
    steps: int
    apgd_steps: int
    queries: int
    surrogates: tuple[str, ...]
    rules: tuple[str, ...]
    shares: tuple[float, ...]
    effort: str
    example_images: int
    example_epochs: int


SIZES = {
    "smoke": AuditSize(
        levels=(2, 6), code_levels=(6,), alone_level=2, alone_per_class=1, steps=2, apgd_steps=2, queries=5,
        surrogates=STRONGEST_MEMBERS[:1], rules=RULES[:1], shares=(1.0, 0.1), effort="smoke", example_images=200,
        example_epochs=1,
    ),
    "quick": AuditSize(
        levels=(2, 6), code_levels=(6,), alone_level=2, alone_per_class=10, steps=10, apgd_steps=20, queries=200,
        surrogates=STRONGEST_MEMBERS[:3], rules=("backward_through_rate", "hart", "adaptive_sharpness"),
        shares=(1.0, 0.3, 0.1, 0.03, 0.01), effort="quick", example_images=4500, example_epochs=2,
    ),
    "paper": AuditSize(
        levels=(2, 4, 6, 8), code_levels=(2, 4, 6, 8), alone_level=2, alone_per_class=None, steps=50, apgd_steps=100,
        queries=5000, surrogates=tuple(MEMBERS), rules=RULES, shares=(1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01),
        effort="paper", example_images=4500, example_epochs=10,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Attacker:
    """One way to attack a given function; every field but `attack` and `source` is a way to differentiate it.

    group: what is changed. gradient: as `parse_gradient` reads it. pool: a kind of `dense_pool_gradient`, "" for the
    true one. encoder: a gradient that the encoder declares, "" for its own. keep: share of the pixels whose gradient
    is seen. source: key of another network, from which the attack is transferred.
    """

    label: str
    group: str
    attack: str = "pgd"
    gradient: str = "own"
    pool: str = ""
    encoder: str = ""
    batch_norm: str = "eval"
    keep: float = 1.0
    source: str = ""
    options: dict = field(default_factory=dict)


OWN = Attacker("own gradient", "own")


def same_function_attackers(item: TrainedNetwork, space: str, size: AuditSize) -> list[Attacker]:
    """Attackers on one and the same function: the training gradient first, then one change at a time."""
    found = [OWN]
    if has_max_pool(item.model):
        found += [Attacker(f"max pool as {kind}", "pool", pool=kind) for kind in POOL_GRADIENTS]
    found += [Attacker(name, "surrogate", gradient=name) for name in (*WIDTHS, *size.surrogates[:2])]
    found += [Attacker(name.replace("_", " "), "rule", gradient=name) for name in size.rules]
    if space == "image":
        found += [
            Attacker(f"encoder {name}", "encoder", encoder=name)
            for name in item.model.encoder.gradients
            if name not in ("none", item.model.encoder.gradient)
        ]
    else:
        found.append(Attacker("BatchNorm in train", "BatchNorm", batch_norm="train"))
    return found


def chain_attackers(item: TrainedNetwork, space: str, size: AuditSize, sources: Sequence[str]) -> list[Attacker]:
    """Attackers of the worst case, each on what the earlier ones left: the gradient first, then without one."""
    found = [OWN]
    if has_max_pool(item.model):
        found.append(Attacker("max pool dense", "pool", pool="average"))
    if space == "image" and "smooth" in item.model.encoder.gradients:
        found.append(Attacker("smooth encoder", "encoder", encoder="smooth"))
        found.append(Attacker("smooth encoder, wide", "encoder", encoder="smooth", gradient=STRONGEST_MEMBERS[0]))
    found += [Attacker(name, "surrogates", gradient=name) for name in size.surrogates]
    found += [Attacker(name, "rules", gradient=name) for name in size.rules]
    steps = {"steps": size.apgd_steps}
    found.append(Attacker("PGD, margin", "losses", options={"loss": "margin"}))
    found.append(Attacker("APGD-CE", "losses", attack="apgd", options={**steps, "loss": "ce"}))
    found.append(Attacker("APGD-DLR", "losses", attack="apgd", options={**steps, "loss": "dlr"}))
    found += [Attacker(f"transfer from {name}", "transfer", attack="transfer", source=name) for name in sources]
    found.append(Attacker("Square", "Square", attack="square", options={"queries": size.queries}))
    return found


def attack_with(
    item: TrainedNetwork,
    images: Tensor,
    labels: Tensor,
    attacker: Attacker,
    space: str,
    eps: float,
    size: AuditSize,
    sources: dict[str, nn.Module],
) -> AttackResult:
    """One batch of one attacker; the model comes back as it was."""
    options = dict(attacker.options)
    if attacker.attack == "pgd":
        options = {"steps": size.steps, **options}
    if attacker.attack == "transfer":
        options |= {"source": sources[attacker.source], "steps": size.steps}
    run = {**ATTACKS, "square": square, "transfer": transfer}[attacker.attack]
    model: nn.Module = item.model if attacker.keep == 1 else SparseGradient(item.model, attacker.keep, item.seed)
    with ExitStack() as contexts:
        if attacker.pool:
            contexts.enter_context(dense_pool_gradient(item.model, attacker.pool))
        if attacker.encoder:
            contexts.enter_context(encoder_gradient(item.model, attacker.encoder))
        return run(
            model,
            images,
            labels,
            Budget(eps, space=space),
            gradient=parse_gradient(attacker.gradient),
            generator=torch.Generator().manual_seed(item.seed),
            batch_norm=attacker.batch_norm,
            **options,
        )


def has_max_pool(model: nn.Module) -> bool:
    """Whether the model has a max pool whose gradient could be dense."""
    return any(isinstance(module, nn.MaxPool2d) for module in model.modules())
