"""Attacks on any `images -> logits` module, all of one form.

    attack(model, images, labels, budget, *, gradient=None, generator=None, batch_norm="eval", ...)
        -> AttackResult

`Session` is where a further attack plugs in, `losses.LOSSES` a further loss.
"""

from snnlib.attacks.budget import Budget
from snnlib.attacks.noise import random_noise
from snnlib.attacks.projected_gradient import pgd
from snnlib.attacks.result import AttackResult, concatenate
from snnlib.attacks.single_step import fgsm, r_fgsm

ATTACKS = {"fgsm": fgsm, "r_fgsm": r_fgsm, "pgd": pgd, "random_noise": random_noise}

__all__ = ["ATTACKS", "AttackResult", "Budget", "concatenate", "fgsm", "pgd", "r_fgsm", "random_noise"]
