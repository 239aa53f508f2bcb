"""The attacks by name."""

from __future__ import annotations

from collections.abc import Callable

from snnlib.attacks.apgd import apgd, apgd_targeted
from snnlib.attacks.momentum import mi_fgsm
from snnlib.attacks.noise import random_noise
from snnlib.attacks.projected_gradient import pgd
from snnlib.attacks.rays import rays
from snnlib.attacks.result import AttackResult
from snnlib.attacks.sa_pgd import sa_pgd
from snnlib.attacks.single_step import fgsm, r_fgsm
from snnlib.attacks.spsa import spsa
from snnlib.attacks.square import square

ATTACKS: dict[str, Callable[..., AttackResult]] = {
    "fgsm": fgsm,
    "r_fgsm": r_fgsm,
    "pgd": pgd,
    "mi_fgsm": mi_fgsm,
    "apgd": apgd,
    "apgd_targeted": apgd_targeted,
    "sa_pgd": sa_pgd,
    "square": square,
    "spsa": spsa,
    "rays": rays,
    "random_noise": random_noise,
}
"""Those of the plain signature; `transfer` wants a source, `bit_flip` a budget of flips."""
