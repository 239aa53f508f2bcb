"""Attacks on any `images -> logits` module, all of one form.

    attack(model, images, labels, budget, *, gradient=None, generator=None, batch_norm="eval", ...)
        -> AttackResult

`worst_case` is one call for most of them. `Session` is where a further attack plugs in, `losses.LOSSES` a further
loss, `gradients` another way to differentiate a spike.

**What an attack costs.** Per sample, in passes through the network; a backward costs about two forwards. The most is
paid by a sample that is never fooled; the others leave the batch at the step that fools them.

| attack | forwards | backwards | default |
|---|---|---|---|
| `random_noise` | 1 + draws | 0 | 1 draw |
| `fgsm` | 2 | 1 | |
| `r_fgsm` | 3 | 1 | |
| `pgd` | 1 + restarts · (steps + 1) | restarts · steps | 10 steps |
| `mi_fgsm` | steps + 1 | steps | 10 steps |
| `apgd`, `sa_pgd` | 1 + restarts · (steps + 1) | restarts · steps | 100 steps |
| `apgd_targeted` | 1 + targets · (steps + 1) | targets · steps | 100 steps, up to 9 targets |
| `square` | queries + 2 | 0 | 5000 queries |
| `spsa` | 1 + steps · (2 · directions + 1) | 0 | 100 steps, 64 directions |
| `rays` | at most queries + 2 | 0 | 2000 queries |
| `transfer` | 1 + points | 0 | 1 point; the source's cost is not counted |
| `bit_flip` | 1 + rounds | 1 + rounds | 50 rounds |
| `ensemble_attack` | members · the attack's | members · the attack's | 19 members |
| `adaptive_ensemble` | steps + turns + 1 | steps | 64 steps |
| `mixed_surrogates` | 1 + steps · (members + 1) | steps · members | 40 steps, 3 members |
| `tg_pgd` | 1 + steps · (T + 1) | steps · T | 7 steps |
| `worst_case` | both together: at most `passes` | | 1200 passes |

`eot` multiplies all of it. A stand-in gradient (`same_forward` False) adds a forward for every backward. The losses
"kl" and the targeted ones ask for the clean logits: a forward more, unless the attack scores the clean sample anyway.
No weight gradients are computed, a static input runs through the first layer once instead of T times, and a batch that
shrinks does not compile the neuron kernels again.

A model that is not from here passes a few images twice more, uncounted, before an attack: see `entrance`; three times
more again where a surrogate of another framework is exchanged: see `check_exchange` in `prepared`. One attack
runs at a time in a process: threads wait for each other, because an attack changes how its model is differentiated.
"""

from snnlib.attacks import gradients
from snnlib.attacks.adaptive import AdaptiveResult, adaptive_ensemble
from snnlib.attacks.apgd import apgd, apgd_targeted
from snnlib.attacks.bit_flip import bit_flip
from snnlib.attacks.budget import Budget
from snnlib.attacks.ensemble import MEMBERS, EnsembleResult, MemberResult, ensemble_attack
from snnlib.attacks.gradients import parse_gradient
from snnlib.attacks.losses import LOSSES
from snnlib.attacks.mixed_surrogates import mixed_surrogates
from snnlib.attacks.momentum import mi_fgsm
from snnlib.attacks.noise import random_noise
from snnlib.attacks.per_step import tg_pgd
from snnlib.attacks.projected_gradient import pgd
from snnlib.attacks.rays import rays
from snnlib.attacks.registry import ATTACKS
from snnlib.attacks.result import AttackResult, concatenate
from snnlib.attacks.sa_pgd import sa_pgd
from snnlib.attacks.single_step import fgsm, r_fgsm
from snnlib.attacks.spsa import spsa
from snnlib.attacks.square import square
from snnlib.attacks.transfer import transfer
from snnlib.attacks.worst_case import SCHEDULE, Turn, worst_case

__all__ = [
    "ATTACKS",
    "LOSSES",
    "MEMBERS",
    "AdaptiveResult",
    "AttackResult",
    "Budget",
    "EnsembleResult",
    "MemberResult",
    "SCHEDULE",
    "Turn",
    "adaptive_ensemble",
    "apgd",
    "apgd_targeted",
    "bit_flip",
    "concatenate",
    "ensemble_attack",
    "fgsm",
    "gradients",
    "mi_fgsm",
    "mixed_surrogates",
    "parse_gradient",
    "pgd",
    "r_fgsm",
    "random_noise",
    "rays",
    "sa_pgd",
    "spsa",
    "square",
    "tg_pgd",
    "transfer",
    "worst_case",
]
