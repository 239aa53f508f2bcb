"""Transfer: craft on one network, judge on another."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.registry import ATTACKS
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import Session, open_session
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate

POINTS = ("last", "best")


def transfer(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    source: nn.Module,
    attack: str = "pgd",
    gradient: Surrogate | SpikeGradient | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    points: tuple[str, ...] = ("last",),
    **options,
) -> AttackResult:
    """Craft on `source` by one of `ATTACKS`, judge on `model`, of which nothing is asked but these verdicts.

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. gradient: how spikes of the *source* are differentiated.
    batch_norm: of the source's attack; `model` is the deployed network. generator: the seed. options: the attack's.
    points: tried in this order on whoever still stands. "last" = the attack's last point, all steps made
    (`early_stop=False`, where it has that): past the source's boundary, so better at crossing that of another network;
    "best" = the point that the attack itself returns, which may stop short just behind the source's boundary.
    `first_successful_step`: number of the point. forwards: passes through `model`, the clean one included; backwards:
    0, since no gradient of `model` is taken, whatever the source's cost. A randomised model judges each point by one
    fresh draw. In encoded space both networks must encode alike.
    **Source:** Papernot et al. 2017; Liu et al. 2017 for crafting past the source's boundary.
    Errors: InputError for inputs or parameters that do not fit.
    """
    craft = _find_attack(attack, options)
    if not points or any(point not in POINTS for point in points):
        raise InputError(f"points is {points!r}; expected some of {', '.join(POINTS)}")
    if not isinstance(source, nn.Module):
        raise InputError(f"source is a {type(source).__name__}; expected a torch.nn.Module from images to logits")
    shared = {"gradient": gradient, "generator": generator, "batch_norm": batch_norm, **options}
    with open_session(model, images, labels, budget, None, generator, "eval", "margin") as session:
        session.record_clean()
        for number, point in enumerate(points):
            if len(session.active) == 0:
                break
            standing = images[session.active], labels[session.active]
            crafted = craft(source, *standing, budget, **shared, **_ending(craft, point))
            session.record(_as_points(session, crafted), step=number + 1)
        return session.result()


def _find_attack(name: str, options: dict) -> Callable[..., AttackResult]:
    if name not in ATTACKS:
        raise InputError(f"attack is {name!r}; expected one of {', '.join(ATTACKS)}")
    craft = ATTACKS[name]
    unknown = [option for option in options if option not in inspect.signature(craft).parameters]
    if unknown:
        raise InputError(f"attack {name!r} takes no {', '.join(unknown)}; leave it out")
    return craft


def _ending(craft: Callable[..., AttackResult], point: str) -> dict[str, bool]:
    """The option by which an attack goes on to its last step, where it has it."""
    return {"early_stop": point == "best"} if "early_stop" in inspect.signature(craft).parameters else {}


def _as_points(session: Session, crafted: AttackResult) -> Tensor:
    """The crafted points, sample-first. Errors: InputError where they lie around another encoding than the model's."""
    origin = session.active_origin
    x = crafted.adversarial.transpose(0, 1) if session.budget.space == "encoded" else crafted.adversarial
    if x.shape != origin.shape or not session.budget.inside(x, origin).all():
        raise InputError("source encodes these images differently from model; craft in image space, or on one encoder")
    return x
