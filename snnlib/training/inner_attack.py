"""The attack inside a robust objective, from the plain values of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from snnlib.attacks import ATTACKS, Budget
from snnlib.attacks.gradients import SpikeGradient, parse_gradient
from snnlib.errors import InputError
from snnlib.training.objectives.registry import check_names, keyword_only
from snnlib.training.objectives.terms import InnerAttack

EXAMPLE = "{'name': 'pgd', 'eps': 8 / 255, 'steps': 10}"
INNER_ATTACKS: dict[str, dict] = {
    "adversarial": {"name": "pgd", "steps": 10, "loss": "ce", "start": "uniform"},
    "trades": {"name": "pgd", "steps": 10, "loss": "kl", "start": "gaussian"},
    "mart": {"name": "pgd", "steps": 10, "loss": "ce", "start": "gaussian"},
    "consistency": {"name": "r_fgsm", "loss": "kl"},
}
"""Inner maximisation of each objective in Özdenizci & Legenstein's code: PGD steps are 2.5 · eps / 10 long, the random
step of R-FGSM eps / 2, both the attacks' own defaults."""


def inner_attack(objective: str, eps: float) -> dict:
    """A recipe's `attack` for a robust objective, as in Özdenizci & Legenstein's code (there eps = 2/255).

    Errors: InputError for an objective that has none of its own.
    """
    if objective not in INNER_ATTACKS:
        known = ", ".join(INNER_ATTACKS)
        raise InputError(f"objective is {objective!r}; expected one of {known}; write its attack out")
    return {**INNER_ATTACKS[objective], "eps": eps}


def build_attack(parameters: Mapping, seed: int) -> InnerAttack:
    """An inner attack on images from plain values: `{"name": "pgd", "eps": 8 / 255, "steps": 10}`.

    name: a key of `snnlib.attacks.ATTACKS`. eps, norm: as in `Budget`. gradient: how it differentiates a spike, as
    `parse_gradient` reads it, or a list of such names, of which `seed` draws one: training against an ensemble at the
    price of one member. Everything else goes to the attack, which draws its noise by `seed`. Where the attack takes
    `early_stop` and the parameters do not set it, it is False: training wants every sample moved by every step,
    evaluation the first point that fools. Errors: InputError for a missing or unknown key, an unknown name, or a budget
    that does not fit.
    """
    missing = [key for key in ("name", "eps") if key not in parameters]
    if missing:
        raise InputError(f"attack has no {missing[0]!r}; expected e.g. {EXAMPLE}")
    if parameters["name"] not in ATTACKS:
        raise InputError(
            f"attack is {parameters['name']!r}; expected one of {', '.join(ATTACKS)}; choose one of these"
        )
    function = ATTACKS[parameters["name"]]
    budget = Budget(parameters["eps"], norm=parameters.get("norm", "linf"))
    options = {key: value for key, value in parameters.items() if key not in ("name", "eps", "norm")}
    allowed = keyword_only(function).keys() - {"generator"}
    check_names(f"attack {parameters['name']!r}", options, allowed)
    if "gradient" in options:
        options["gradient"] = _drawn(options["gradient"], seed)
    if "early_stop" in allowed:
        options.setdefault("early_stop", False)

    def attack(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return function(model, images, labels, budget, generator=generator, **options).adversarial

    return attack


def _drawn(names: str | Sequence[str], seed: int) -> SpikeGradient | None:
    """The gradient of that name, or one of several. Errors: InputError for none, and for what is no name."""
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"gradient is {names!r}; expected a name such as 'hart', or a list of names")
    gradients = [parse_gradient(name) for name in names]
    return gradients[int(torch.randint(len(gradients), (1,), generator=torch.Generator().manual_seed(seed)))]
