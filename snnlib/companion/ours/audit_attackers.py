"""The attackers of notebook 30: the same function, another gradient; and the chain of the worst case."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from snnlib.attacks.same_function import POOL_GRADIENTS
from snnlib.audit.run import STRONGEST_MEMBERS
from snnlib.companion.measure.attacked import Attack, ThreatModel
from snnlib.companion.measure.networks import TrainedNetwork
from snnlib.companion.sizes import AuditSize

WIDTHS = ("atan(alpha=0.5)", "atan(alpha=8)")
"""The training surrogate of the chapter (atan, alpha = 2), wider and sharper."""


@dataclass(frozen=True)
class Attacker:
    """An attack under the name that tables give it. group: what is changed. source: the network it is crafted on."""

    label: str
    group: str
    attack: Attack
    source: TrainedNetwork | None = None


def own_attacker(space: str, eps: float, size: AuditSize) -> Attacker:
    """PGD by the network's own gradient, `size.steps` steps."""
    return _pgd("own gradient", "own", space, eps, size)


def same_function_attackers(item: TrainedNetwork, space: str, eps: float, size: AuditSize) -> list[Attacker]:
    """Attackers on one and the same function: the training gradient first, then one change at a time."""
    given = (space, eps, size)
    found = [own_attacker(*given)]
    if has_max_pool(item.model):
        found += [_pgd(f"max pool as {kind}", "pool", *given, pool=kind) for kind in POOL_GRADIENTS]
    found += [_pgd(name, "surrogate", *given, gradient=name) for name in (*WIDTHS, *size.surrogates[:2])]
    found += [_pgd(name.replace("_", " "), "rule", *given, gradient=name) for name in size.rules]
    if space == "image":
        found += [
            _pgd(f"encoder {name}", "encoder", *given, encoder=name)
            for name in item.model.encoder.gradients
            if name not in ("none", item.model.encoder.gradient)
        ]
    else:
        found.append(_pgd("BatchNorm in train", "BatchNorm", *given, batch_norm="train"))
    return found


def chain_attackers(
    item: TrainedNetwork, space: str, eps: float, size: AuditSize, sources: dict[str, TrainedNetwork]
) -> list[Attacker]:
    """Attackers of the worst case, each on what the earlier ones left: the gradient first, then without one."""
    given, threat = (space, eps, size), ThreatModel(space, space)
    found = [own_attacker(*given)]
    if has_max_pool(item.model):
        found.append(_pgd("max pool dense", "pool", *given, pool="average"))
    if space == "image" and "smooth" in item.model.encoder.gradients:
        found.append(_pgd("smooth encoder", "encoder", *given, encoder="smooth"))
        wide = {"encoder": "smooth", "gradient": STRONGEST_MEMBERS[0]}
        found.append(_pgd("smooth encoder, wide", "encoder", *given, **wide))
    found += [_pgd(name, "surrogates", *given, gradient=name) for name in size.surrogates]
    found += [_pgd(name, "rules", *given, gradient=name) for name in size.rules]
    found.append(_pgd("PGD, margin", "losses", *given, loss="margin"))
    for label, loss in (("APGD-CE", "ce"), ("APGD-DLR", "dlr")):
        attack = Attack("apgd", eps, threat, options={"steps": size.apgd_steps, "loss": loss})
        found.append(Attacker(label, "losses", attack))
    transferred = Attack("transfer", eps, threat, options={"steps": size.steps})
    found += [Attacker(f"transfer from {name}", "transfer", transferred, source) for name, source in sources.items()]
    square = Attack("square", eps, threat, options={"queries": size.queries})
    return [*found, Attacker("Square", "Square", square)]


def blinded_attacker(keep: float, eps: float, size: AuditSize) -> Attacker:
    """PGD on images with exact zeros put into its gradient, from the image: what it does not see stays as it is."""
    return _pgd(f"sees {keep:.0%} of the pixels", "zeros", "image", eps, size, keep=keep, start="none")


def _pgd(
    label: str,
    group: str,
    space: str,
    eps: float,
    size: AuditSize,
    *,
    encoder: str = "",
    batch_norm: str = "eval",
    gradient: str = "own",
    pool: str = "",
    keep: float = 1.0,
    **options: str,
) -> Attacker:
    threat = ThreatModel(space, space, batch_norm, encoder)
    steps = {"steps": size.steps, **options}
    return Attacker(label, group, Attack("pgd", eps, threat, gradient=gradient, pool=pool, keep=keep, options=steps))


def has_max_pool(model: nn.Module) -> bool:
    """Whether the model has a max pool whose gradient could be dense."""
    return any(isinstance(module, nn.MaxPool2d) for module in model.modules())
