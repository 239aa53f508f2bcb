"""The one dial of size: what "smoke", "quick" and "paper" mean, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from snnlib.errors import InputError


@dataclass(frozen=True)
class Profile:
    """Sizes that every experiment of a profile shares.

    train_per_class, test_per_class: images kept of each class (None: all). attacked_per_class: test images of each
    class that attacks run on; inspected_per_class: that gradients are read on. batch_size trains; attack_batch_size
    attacks and inspects (it matters where BatchNorm looks at the batch). eps_levels: the perturbation sizes of curves,
    in 1/255. steps: iterations of the image-space PGD.
    """

    name: str
    subset: str
    train_per_class: int | None
    test_per_class: int | None
    attacked_per_class: int | None
    inspected_per_class: int
    depths: tuple[int, ...]
    width: int
    time_steps: int
    seeds: tuple[int, ...]
    epochs: int
    batch_size: int
    attack_batch_size: int
    learning_rate: float
    weight_decay: float
    schedule: str
    eps_levels: tuple[int, ...]
    steps: int
    bench_repeats: int


PROFILES = {
    "smoke": Profile(
        name="smoke",
        subset="embedded",
        train_per_class=20,
        test_per_class=10,
        attacked_per_class=2,
        inspected_per_class=2,
        depths=(18,),
        width=8,
        time_steps=8,
        seeds=(0, 1),
        epochs=2,
        batch_size=20,
        attack_batch_size=20,
        learning_rate=4e-3,
        weight_decay=5e-4,
        schedule="one-cycle",
        eps_levels=(2, 6),
        steps=3,
        bench_repeats=1,
    ),
    "quick": Profile(
        name="quick",
        subset="embedded",
        train_per_class=None,
        test_per_class=None,
        attacked_per_class=20,
        inspected_per_class=10,
        depths=(18,),
        width=16,
        time_steps=8,
        seeds=(0, 1),
        epochs=6,
        batch_size=64,
        attack_batch_size=50,
        learning_rate=4e-3,
        weight_decay=5e-4,
        schedule="one-cycle",
        eps_levels=(2, 6, 16),
        steps=20,
        bench_repeats=5,
    ),
    # Luu et al. 2025 as their code has it: Adam 1e-3 with L2 1e-3, no schedule, batch 16, 100 epochs, T = 10.
    "paper": Profile(
        name="paper",
        subset="whole",
        train_per_class=None,
        test_per_class=None,
        attacked_per_class=None,
        inspected_per_class=48,
        depths=(18, 34, 50),
        width=64,
        time_steps=10,
        seeds=(0, 1, 2),
        epochs=100,
        batch_size=16,
        attack_batch_size=16,
        learning_rate=1e-3,
        weight_decay=1e-3,
        schedule="constant",
        eps_levels=(1, 2, 4, 6, 8, 12, 16),
        steps=50,
        bench_repeats=20,
    ),
}


def get_profile(name: str) -> Profile:
    """The profile of that name. Raises InputError for another one."""
    if name not in PROFILES:
        raise InputError(f"profile is {name!r}; expected one of {', '.join(PROFILES)}; choose one of these")
    return PROFILES[name]
