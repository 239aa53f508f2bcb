"""Sizes of the conversion chapter per profile: what the three profiles mean where the shared ones do not say it.

"paper" holds the hyper-parameters of the authors' code. "quick" keeps method and order of steps and shrinks network,
data and epochs until the series fits into half an hour; its learning rates were set once and not searched.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from snnlib.companion.profiles import Profile, get_profile


@dataclass(frozen=True)
class ConversionSize:
    """Sizes of one profile.

    profile: the shared profile with this chapter's network width, time steps, data and ANN training.
    inner_steps: PGD steps inside AT, TRADES and MART. calibration: options of `snnlib.conversion.calibrate`.
    finetune, end_to_end: recipe options of the SNN's trainings. end_to_end_epochs: for the two comparisons, as many
    optimiser steps as fine-tuning takes, and as much wall-clock time as ANN training and fine-tuning take together
    (a fixed number, from measured times, so that results do not depend on the clock).
    eps_levels: perturbation sizes under attack, in 1/255. ensemble_steps: PGD steps of each ensemble member.
    other_time_steps: where the fine-tuned network is also evaluated. check_steps, square_queries: of the checks on the
    attacks themselves (`ozdenizci2024_checks`).
    """

    profile: Profile
    network: str
    inner_steps: int
    augmentation: str
    finetune: dict
    end_to_end: dict
    end_to_end_epochs: dict[str, int]
    calibration: dict = field(default_factory=dict)
    eps_levels: tuple[int, ...] = (2, 4, 8)
    ensemble_steps: int = 10
    other_time_steps: tuple[int, ...] = (2, 4, 8, 16)
    check_steps: tuple[int, ...] = (10, 20, 40)
    square_queries: int = 5000


PAPER_SGD = {"optimiser": "sgd", "schedule": "cosine-per-epoch", "batch_size": 64}

SIZES = {
    "smoke": ConversionSize(
        profile=replace(get_profile("smoke"), width=4, time_steps=2, epochs=1, attacked_per_class=1, schedule="cosine"),
        network="vgg11",
        inner_steps=1,
        augmentation="flip",
        finetune={"epochs": 1, "batch_size": 10, "learning_rate": 1e-3, "weight_decay": 1e-3, "schedule": "cosine"},
        end_to_end={"batch_size": 10, "learning_rate": 4e-3, "weight_decay": 5e-4, "schedule": "cosine"},
        end_to_end_epochs={"equal steps": 1, "equal time": 2},
        calibration={"time_steps": 8, "batches": 2, "batch_size": 16},
        eps_levels=(4,),
        ensemble_steps=1,
        other_time_steps=(1, 2),
        check_steps=(1, 2),
        square_queries=10,
    ),
    "quick": ConversionSize(
        profile=replace(
            get_profile("quick"),
            width=8,
            time_steps=4,
            train_per_class=300,
            epochs=6,
            batch_size=32,
            learning_rate=4e-3,
            weight_decay=5e-4,
            attacked_per_class=10,
            attack_batch_size=50,
        ),
        network="vgg11",
        inner_steps=2,
        augmentation="crop-flip",
        finetune={"epochs": 1, "learning_rate": 1e-3, "weight_decay": 1e-3, "schedule": "cosine"},
        end_to_end={"learning_rate": 4e-3, "weight_decay": 5e-4, "schedule": "one-cycle"},
        end_to_end_epochs={"equal steps": 1, "equal time": 3},
        calibration={"time_steps": 25, "batches": 4, "batch_size": 64},
        ensemble_steps=5,
        check_steps=(5, 10, 20),
        square_queries=500,
    ),
    "paper": ConversionSize(
        profile=replace(
            get_profile("paper"),
            width=64,
            time_steps=8,
            epochs=200,
            batch_size=64,
            attack_batch_size=64,
            learning_rate=0.1,
            weight_decay=5e-4,
            schedule="cosine-per-epoch",
        ),
        network="vgg11",
        inner_steps=10,
        augmentation="crop-flip-cutout",
        finetune={**PAPER_SGD, "epochs": 60, "learning_rate": 1e-3, "weight_decay": 1e-3, "augmentation": "crop-flip"},
        end_to_end={**PAPER_SGD, "learning_rate": 0.1, "weight_decay": 5e-4, "augmentation": "crop-flip"},
        end_to_end_epochs={"equal steps": 60, "equal time": 200},
    ),
}


def conversion_size(name: str) -> ConversionSize:
    """The chapter's size at the profile of that name. Errors: InputError for another one."""
    return SIZES[get_profile(name).name]
