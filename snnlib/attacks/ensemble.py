"""The surrogate ensemble: one attack, run once for each of many ways to differentiate a spike.

A spiking network has no gradient of its own, so an attack that fails may only have been given the wrong one. The
ensemble asks for samples that survive all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.gradients import SpikeGradient, backward_through_rate, bptt, relu_proxy, straight_through
from snnlib.attacks.inputs import check_inputs
from snnlib.attacks.registry import ATTACKS
from snnlib.attacks.result import AttackResult
from snnlib.errors import InputError
from snnlib.neurons import surrogates
from snnlib.optional import axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _members() -> dict[str, SpikeGradient]:
    linear = [bptt(surrogates.piecewise_linear(width=g, height=1 / g)) for g in (1, 2, 3, 0.5, 0.25)]
    exponential = [
        bptt(surrogates.exponential(height=height, rate=g)) for height in (0.3, 1.0) for g in (0.5, 1, 2)
    ]
    rectangular = [bptt(surrogates.rectangular(width=g)) for g in (0.25, 0.5, 1, 2, 4)]
    others = [straight_through(), backward_through_rate(), relu_proxy()]
    return {member.name: member for member in (*linear, *exponential, *rectangular, *others)}


MEMBERS: dict[str, SpikeGradient] = _members()
"""The 19 members in their order, by name, with u = membrane − threshold::

     1- 5  piecewise linear     (1/g²) max(0, g − |u|)     g = 1, 2, 3, 0.5, 0.25
     6- 8  exponential, damped  0.3 exp(−g|u|)             g = 0.5, 1, 2
     9-11  exponential          exp(−g|u|)                 g = 0.5, 1, 2
    12-16  rectangular          (1/g) 1[|u| <= g/2]        g = 0.25, 0.5, 1, 2, 4
    17     straight-through     1
    18     backward through rate
    19     ReLU proxy (conversion-based)

**Source:** Özdenizci & Legenstein 2024, authors' code, in the order in which it runs; there the rectangle is open.
"""


def members_for(model: nn.Module) -> dict[str, SpikeGradient]:
    """Those of `MEMBERS` that reach the model's neurons: all 19, or the 17 surrogates for neurons of other frameworks.

    All 19 too for a model without neurons, which then says so.
    """
    return {name: member for name, member in MEMBERS.items() if member.reaches(model)} or MEMBERS


@dataclass(frozen=True, repr=False)
class MemberResult:
    """What one member did. index: [n] int64, the samples it ran on, as positions in the batch; result: of these n."""

    index: Tensor
    result: AttackResult

    def __repr__(self) -> str:
        return f"broke {int(self.result.success.sum()):,} of {len(self.index):,}"


@dataclass(frozen=True, repr=False)
class EnsembleResult:
    """Outcome of an ensemble on N samples; prints as the worst case and a line for each member.

    result: per sample the worst case. A sample that was fooled carries the point of the first member that fooled it,
    and its step within that member; one that never was, the point of the highest loss of all members. Passes are summed
    over the members; `zero_gradient` where no member that took a gradient had one at first.
    by_member: in the order of the members, only those that had samples left to run on.
    """

    result: AttackResult
    by_member: dict[str, MemberResult]

    def table(self) -> pd.DataFrame:
        """`AttackResult.table` of the worst case, and `fooled_by`: the first member that did, "" where none had to."""
        rows = self.result.table()
        rows["fooled_by"] = ""
        for name, member in reversed(self.by_member.items()):
            fooled = member.result.success & (member.result.first_successful_step > 0)
            rows.loc[member.index[fooled].tolist(), "fooled_by"] = name
        return rows

    def plot(self, ax: Axes | None = None) -> Axes:
        """Share of the samples left after each member in turn, in percent, as far as earlier ones left them.

        ax: to draw into; None makes a figure. Errors: InputError where matplotlib is missing.
        """
        ax = axes_for(ax)
        broken = torch.zeros(len(self.result), dtype=torch.bool)
        left = []
        for member in self.by_member.values():
            broken[member.index[member.result.success].cpu()] = True
            left.append(100 * float((~broken).double().mean()))
        ax.barh(list(self.by_member), left)
        ax.invert_yaxis()
        ax.set(xlabel="samples left after this member and those above (%)", xlim=(0, 103))
        return ax

    def __repr__(self) -> str:
        width = max(map(len, self.by_member), default=0)
        members = (f"{name:>{width}}  {member}" for name, member in self.by_member.items())
        return "\n".join([f"{type(self).__name__}, worst case: {self.result}", *members])


def ensemble_attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    attack: str = "pgd",
    members: Mapping[str, SpikeGradient] | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    alone: bool = False,
    **options,
) -> EnsembleResult:
    """Run `attack`, whole and from an own random start, once for each member on the samples that still stand.

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. attack: a key of `ATTACKS`; `options` go to it.
    members: name to gradient, in the order of running; None = `members_for(model)`. generator: gives the seed; a
    member's own is derived from it and the member's number, so its random start is the same whoever ran before, and
    `alone` or not.
    alone: every member runs on every sample, which gives the table of single members at the price of all of them.
    Cost of a sample that survives: members · the attack's cost, and the ReLU proxy's additional forwards.
    Errors: InputError for an unknown attack or no members, and what the attack refuses.
    **Source:** Özdenizci & Legenstein 2024, section 5.1 and authors' code (attack/ensemble.py).

    >>> from snnlib import attacks, data, models
    >>> test = data.load_images("cifar10").test.first_per_class(1)
    >>> model = models.released("snn-conversion-from-trades-night-0")
    >>> names = ("rectangular(width=1)", "straight_through(height=1)")
    >>> members = {name: attacks.parse_gradient(name) for name in names}  # left out: all 19
    >>> images, budget = test.batch(slice(None)), attacks.Budget(2 / 255)
    >>> found = attacks.ensemble_attack(model, images, test.labels, budget, members=members, steps=2)
    >>> list(found.by_member), len(found.result), len(found.table())
    (['rectangular(width=1)', 'straight_through(height=1)'], 10, 10)
    """
    if attack not in ATTACKS:
        raise InputError(f"attack is {attack!r}; expected one of {', '.join(ATTACKS)}; choose one of these")
    check_inputs(model, images, labels, budget, generator)
    members = members_for(model) if members is None else members
    if not members:
        raise InputError("the ensemble has no members; expected at least one, such as MEMBERS")
    standing = torch.arange(len(images), device=images.device)
    by_member: dict[str, MemberResult] = {}
    for number, (name, gradient) in enumerate(members.items()):
        if len(standing) == 0:
            break
        result = ATTACKS[attack](
            model,
            images[standing],
            labels[standing],
            budget,
            gradient=gradient,
            generator=member_generator(generator, number),
            batch_norm=batch_norm,
            **options,
        )
        by_member[name] = MemberResult(standing, result)
        if not alone:
            standing = standing[~result.success]
    return EnsembleResult(joined(list(by_member.values())), by_member)


def member_generator(generator: torch.Generator | None, number: int) -> torch.Generator:
    """The generator of the member `number` (from 0): its seed depends on the seed of `generator` and the number."""
    seed = 0 if generator is None else generator.initial_seed()
    message = b"member" + seed.to_bytes(8, "little") + number.to_bytes(8, "little")
    return torch.Generator().manual_seed(int.from_bytes(blake2b(message, digest_size=8).digest(), "little"))


def joined(parts: list[MemberResult]) -> AttackResult:
    """Join members into one result; the first of them ran on every sample. See `EnsembleResult.result`."""
    first = parts[0].result
    chosen = {field.name: getattr(first, field.name).clone() for field in fields(first) if field.name != "budget"}
    encoded = first.budget.space == "encoded"
    took_gradient = first.backwards > 0
    for part in parts[1:]:
        index, new = part.index, part.result
        stood, louder = ~chosen["success"][index], new.loss > chosen["loss"][index]
        better = stood & (new.success | louder)
        took, blind = new.backwards > 0, new.zero_gradient
        all_blind = torch.where(took_gradient[index], chosen["zero_gradient"][index] & (blind | ~took), blind)
        for name in ("success", "first_successful_step", "loss", "linf", "l2"):
            chosen[name][index] = torch.where(better, getattr(new, name), chosen[name][index])
        points, found = chosen["adversarial"], new.adversarial
        if encoded:
            points[:, index[better]] = found[:, better]
        else:
            points[index[better]] = found[better]
        for name in ("forwards", "backwards"):
            chosen[name][index] += getattr(new, name)
        chosen["zero_gradient"][index] = all_blind
        took_gradient[index] |= took
    return AttackResult(budget=first.budget, **chosen)
