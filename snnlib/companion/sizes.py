"""Every size of every profile and chapter in one table: `TABLE` has a line per size and a column per profile.

"smoke" shows that everything runs. "quick" keeps method and order of steps and shrinks networks, data and epochs until
the series fits into about an hour on 2 CPU cores. "night" is whole CIFAR-10 at sizes that a large GPU trains in ten
minutes and 2 CPU cores in about a day. "paper" has the numbers of both papers' code: Luu et al. 2025 (Adam 1e-3 with L2
1e-3, no schedule, batch 16, 100 epochs, T = 10), Özdenizci & Legenstein 2024 (SGD, 200 epochs, fine-tuning of 60,
T = 8). The learning rates of the smaller profiles were set once and not searched, but for those of night's SNNs: the
best of three a side by `snnlib.companion.ozdenizci2024.search` (validation images of the training set, see
figures/night).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from snnlib.attacks.ensemble import MEMBERS
from snnlib.audit.run import STRONGEST_MEMBERS
from snnlib.companion.paths import PROFILE_NAMES, check_profile
from snnlib.errors import InputError
from snnlib.runtime import apply_process_settings


@dataclass(frozen=True)
class Profile:
    """Sizes that every chapter shares; the first paper's networks.

    train_per_class, test_per_class: images kept of each class (None: all). attacked_per_class: test images of each
    class that attacks run on; inspected_per_class: that gradients are read on. batch_size trains; attack_batch_size
    attacks and inspects (it matters where BatchNorm looks at the batch). eps_levels: the perturbation sizes of curves,
    in 1/255. steps: iterations of the image-space PGD. bench_repeats, bench_small: of the comparison of speeds;
    bench_rounds, bench_per_class: of that of attacks. timed_batches: of each measurement for an estimate of cost;
    slow_to_time: timing takes more than a minute on a CPU, so a dry run takes rates that were measured before.
    simulations: of each case, for the rules' error rates. published: its figures are committed; in_notebooks: so are
    its outputs. rounded: trained weights are rounded to half precision before anything is measured, so that what is
    released is what was measured.
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
    bench_small: bool
    bench_rounds: int
    bench_per_class: int
    timed_batches: int
    slow_to_time: bool
    simulations: int
    published: bool
    in_notebooks: bool
    rounded: bool = False


@dataclass(frozen=True)
class ConversionSize:
    """Sizes of the conversion chapter.

    profile: the shared profile with this chapter's width, time steps, data and ANN training. inner_steps: PGD steps
    inside AT, TRADES and MART. calibration: options of `snnlib.conversion.calibrate`. finetune, end_to_end: recipe
    options of the SNN's trainings. end_to_end_epochs: for the two comparisons, as many optimiser steps as fine-tuning
    takes, and as much time as ANN training and fine-tuning take together (a fixed number, from measured times).
    eps_levels: in 1/255. ensemble_steps: PGD steps of each member; adaptive_steps: of the
    adaptive ensemble. other_time_steps: where the fine-tuned network is
    also evaluated. check_steps, square_queries: of the checks on the attacks themselves.
    """

    profile: Profile
    network: str
    optimiser: str
    inner_steps: int
    augmentation: str
    finetune: dict
    end_to_end: dict
    end_to_end_epochs: dict[str, int]
    calibration: dict
    eps_levels: tuple[int, ...]
    ensemble_steps: int
    adaptive_steps: int
    other_time_steps: tuple[int, ...]
    check_steps: tuple[int, ...]
    square_queries: int


@dataclass(frozen=True)
class AuditSize:
    """Sizes of notebook 30.

    levels, code_levels: eps in 1/255 of the worst case on images and on the code. alone_level, alone_per_class: of the
    comparison of single attackers and of the audits; images of each class, None for all that are attacked. steps: of
    PGD. apgd_steps, queries (of Square). surrogates: gradients of the ensemble. rules: other backward rules. shares: of
    the pixels whose gradient an attacker sees. effort: of the audits. example_images, example_epochs: training of the
    snnTorch and SpikingJelly examples. planted_kinds: of the planted networks, None for all; planted_random: in how
    many libraries there are random ones; planted_train, planted_test: images of each class; planted_epochs,
    planted_effort: their training and audits.
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
    planted_kinds: tuple[str, ...] | None
    planted_random: int
    planted_train: int
    planted_test: int
    planted_epochs: int
    planted_effort: str


@dataclass(frozen=True)
class BlackBoxSize:
    """Sizes of notebook 31. images_per_class: test images attacked. eps_levels, transfer_eps: in 1/255.

    draws: of noise; queries: of Square; spsa: its steps and directions; decisions: queries of RayS. apgd_steps,
    ensemble_steps: of the white-box side. transfer_steps: of the attack that crafts. flips, flip_rounds: of bit flips.
    """

    images_per_class: int
    eps_levels: tuple[int, ...]
    draws: int
    queries: int
    spsa: tuple[int, int]
    decisions: int
    apgd_steps: int
    ensemble_steps: int
    transfer_steps: int
    transfer_eps: int
    flips: tuple[int, ...]
    flip_rounds: int


@dataclass(frozen=True)
class AdaptiveSize:
    """Sizes of notebook 32. images_per_class: test images attacked; validation_per_class: images that say which turn
    should come first. natural_level, defended_level: eps in 1/255.

    passes: of an image that survives, of every attack, a value for each comparison: 204 are SA-PGD's published 100
    steps, 1,200 the default of the worst case. fixed_steps: of each of the 19 members, or more where the passes allow
    it. per_step_steps: of the attacks on the code.
    """

    images_per_class: int
    validation_per_class: int
    natural_level: int
    defended_level: int
    passes: tuple[int, ...]
    fixed_steps: int
    per_step_steps: int


@dataclass(frozen=True)
class TheorySize:
    """Sizes of notebook 16. eps in 1/255.

    samples: images per network and eps in the vulnerability tables; ranked: images for rank correlations; draws: of
    noise; steps, restarts: of the attack, per attacker and direction; nodes: places along a segment; shares: of the
    coordinates that may move, smallest first; dosed: images for that. inspected: images for weight gradients. certified
    images with `selection` and `certificate_draws` draws each, at every sigma (pixel units), and for Poisson codes.
    """

    samples: int
    ranked: int
    draws: int
    steps: int
    restarts: int
    nodes: int
    relaxed_eps: tuple[float, ...]
    deployed_eps: tuple[float, ...]
    shares: tuple[float, ...]
    dosed: int
    inspected: int
    certified: int
    selection: int
    certificate_draws: int
    sigmas: tuple[float, ...]
    alpha: float = 0.001


@dataclass(frozen=True)
class OwnSize:
    """Sizes of notebook 03. train_per_class, epochs: of its small networks. test_per_class: images scored on.

    attacked_per_class: of those, attacked. steps: of PGD. effort: of the audits. time_steps: of the converted network.
    """

    train_per_class: int | None
    test_per_class: int | None
    attacked_per_class: int
    epochs: int
    steps: int
    effort: str
    time_steps: tuple[int, ...]


@dataclass(frozen=True)
class FurtherSize:
    """Sizes of notebook 33. train_per_class: images of each class that its trainings see; attacked_per_class,
    test_per_class: test images that are attacked, that accuracy is measured on.

    pretraining_epochs: of an ANN with a further objective, from the natural one. epochs, batch_size: of the SNNs'
    trainings.
    objectives: that are transferred (keys of `further.OBJECTIVES`). inner_steps: PGD steps of direct adversarial
    training. passes: of the worst case, per image.
    """

    train_per_class: int | None
    attacked_per_class: int | None
    test_per_class: int | None
    pretraining_epochs: int
    epochs: int
    batch_size: int
    objectives: tuple[str, ...]
    inner_steps: int
    passes: int


@dataclass(frozen=True)
class DefenceSize:
    """Sizes of notebook 34. train_per_class, epochs, batch_size: of every training. attacked_per_class,
    test_per_class: test images that are attacked, that accuracy is measured on.

    seeds. names: the defences trained (keys of `defences.DEFENCES`); audited: those of them that are audited, at
    `effort`. levels, passes (per image), eot (draws, where a network is random): of the worst case; levels in 1/255.
    """

    train_per_class: int | None
    attacked_per_class: int | None
    test_per_class: int | None
    seeds: tuple[int, ...]
    epochs: int
    batch_size: int
    names: tuple[str, ...]
    audited: tuple[str, ...]
    levels: tuple[int, ...]
    passes: int
    eot: int
    effort: str


@dataclass(frozen=True)
class EventSize:
    """Sizes of notebook 17.

    profile: the shared profile with this chapter's data, width and training. flips: cells that an attack may change;
    eps_levels: in 1/255, of the attacks on images and on float frames. jitter: bins an event may be shifted by. rounds:
    of greedy attacks; draws: of the random control; tries: places of a pattern; steps: of PGD. moving_per_class,
    moving_epochs: training images of the second set, which a simulated camera records, and epochs on it.
    """

    profile: Profile
    flips: tuple[int, ...]
    eps_levels: tuple[int, ...]
    jitter: int
    rounds: int
    draws: int
    tries: int
    steps: int
    moving_per_class: int
    moving_epochs: int


_SGD = {"optimiser": "sgd", "schedule": "cosine-per-epoch", "batch_size": 64, "augmentation": "crop-flip"}
_FINE = {"learning_rate": 1e-3, "weight_decay": 1e-3, "schedule": "cosine"}
_SCRATCH = {"learning_rate": 4e-3, "weight_decay": 5e-4, "schedule": "one-cycle"}
_NOT_RANDOM = ("none", "AT", "SR", "MPD-SGR", "TGO", "TG-Reg", "DSD", "FEEL", "SNN-RAT")
_DEFENCES = (*_NOT_RANDOM, "Poisson")  # an audit of it takes twenty minutes of a CPU
_RULES = ("backward_through_rate", "rate_gradient", "hart", "potential_dependent", "adaptive_sharpness")

TABLE: dict[str, tuple] = {
    # size                              smoke          quick              night              paper
    "profile.subset":                  ("embedded",    "embedded",        "whole",           "whole"),
    "profile.train_per_class":         (20,            None,              None,              None),
    "profile.test_per_class":          (10,            None,              None,              None),
    "profile.attacked_per_class":      (2,             10,                50,                None),
    "profile.inspected_per_class":     (2,             10,                20,                48),
    "profile.depths":                  ((18,),         (18,),             (18,),             (18, 34, 50)),
    "profile.width":                   (8,             16,                16,                64),
    "profile.time_steps":              (8,             8,                 10,                10),
    "profile.seeds":                   ((0, 1),        (0,),              (0, 1),            (0, 1, 2)),
    "profile.epochs":                  (2,             6,                 8,                 100),
    "profile.batch_size":              (50,            64,                128,               16),
    "profile.attack_batch_size":       (20,            50,                50,                16),
    "profile.learning_rate":           (4e-3,          4e-3,              1e-3,              1e-3),
    "profile.weight_decay":            (5e-4,          5e-4,              1e-3,              1e-3),
    "profile.schedule":                ("one-cycle",   "one-cycle",       "constant",        "constant"),
    "profile.eps_levels":              ((2, 6),        (2, 6, 16),        (2, 6, 16),        (1, 2, 4, 6, 8, 12, 16)),
    "profile.steps":                   (3,             20,                20,                50),
    "profile.bench_repeats":           (1,             2,                 5,                 20),
    "profile.bench_small":             (True,          False,             False,             False),
    "profile.bench_rounds":            (1,             3,                 3,                 3),
    "profile.bench_per_class":         (2,             10,                20,                20),
    "profile.timed_batches":           (3,             3,                 3,                 1),
    "profile.slow_to_time":            (False,         False,             False,             True),
    "profile.published":               (False,         True,              True,              True),
    "profile.in_notebooks":            (False,         True,              False,             False),
    "profile.simulations":             (2,             60,                200,               500),
    "profile.rounded":                 (False,         False,             True,              True),
    "conversion.profile.train_per_class":    (20,      300,               None,              None),
    "conversion.profile.attacked_per_class": (1,       10,                100,               None),
    "conversion.profile.width":        (4,             8,                 8,                 64),
    "conversion.profile.time_steps":   (2,             4,                 4,                 8),
    "conversion.profile.seeds":        ((0, 1),        (0,),              (0, 1),            (0, 1, 2)),
    "conversion.profile.epochs":       (1,             6,                 12,                200),
    "conversion.profile.batch_size":   (50,            32,                256,               64),
    "conversion.profile.attack_batch_size":  (20,      50,                50,                64),
    "conversion.profile.learning_rate":      (4e-3,    4e-3,              8e-3,              0.1),
    "conversion.profile.weight_decay": (5e-4,          5e-4,              5e-4,              5e-4),
    "conversion.profile.schedule":     ("cosine",      "one-cycle",       "one-cycle",       "cosine-per-epoch"),
    "conversion.network":              ("vgg11",       "vgg11",           "vgg11",           "vgg11"),
    "conversion.optimiser":            ("adam",        "adam",            "adam",            "sgd"),
    "conversion.inner_steps":          (1,             2,                 4,                 10),
    "conversion.augmentation":         ("flip",        "crop-flip",       "crop-flip",       "crop-flip-cutout"),
    "conversion.finetune": (
        {**_FINE, "epochs": 1, "batch_size": 50}, {**_FINE, "epochs": 1},
        {**_FINE, "epochs": 3, "batch_size": 128, "learning_rate": 3e-3, "threshold_learning_rate": 3e-3},
        {**_FINE, **_SGD, "epochs": 60},
    ),
    "conversion.end_to_end": (
        {**_SCRATCH, "batch_size": 50, "schedule": "cosine"}, _SCRATCH,
        {**_SCRATCH, "batch_size": 128, "learning_rate": 1e-3},
        {**_SGD, "learning_rate": 0.1, "weight_decay": 5e-4},
    ),
    "conversion.end_to_end_epochs": tuple(
        {"equal steps": steps, "equal time": time} for steps, time in ((1, 2), (1, 3), (3, 9), (60, 200))
    ),
    "conversion.calibration": (
        {"time_steps": 8, "batches": 2, "batch_size": 16}, {"time_steps": 25, "batches": 4, "batch_size": 64},
        {"time_steps": 25, "batches": 4, "batch_size": 64}, {},  # {}: the defaults of `calibrate` are the paper's
    ),
    "conversion.eps_levels":           ((4,),          (2, 4, 8),         (2, 4, 8),         (2, 4, 8)),
    "conversion.ensemble_steps":       (1,             3,                 10,                10),
    "conversion.adaptive_steps":       (3,             16,                8,                 64),
    "conversion.other_time_steps":     ((1, 2),        (2, 4, 8),         (2, 4, 8),         (2, 4, 8, 16)),
    "conversion.check_steps":          ((1, 2),        (5, 10),           (5, 10),           (10, 20, 40)),
    "conversion.square_queries":       (10,            100,               100,               5000),
    "audit.levels":                    ((2, 6),        (2, 6),            (1, 2, 4, 6, 8),   (1, 2, 4, 6, 8)),
    "audit.code_levels":               ((6,),          (6,),              (6,),              (2, 4, 6, 8)),
    "audit.alone_level":               (2,             2,                 2,                 2),
    "audit.alone_per_class":           (1,             10,                20,                None),
    "audit.steps":                     (2,             10,                10,                50),
    "audit.apgd_steps":                (2,             10,                100,               100),
    "audit.queries":                   (5,             100,               500,               5000),
    "audit.surrogates":                (STRONGEST_MEMBERS[:1], STRONGEST_MEMBERS[:3], tuple(MEMBERS), tuple(MEMBERS)),
    "audit.rules": (_RULES[:1], ("backward_through_rate", "hart", "adaptive_sharpness"), _RULES, _RULES),
    "audit.shares": (
        (1.0, 0.1), (1.0, 0.3, 0.1, 0.03, 0.01), (1.0, 0.3, 0.1, 0.03, 0.01), (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01),
    ),
    "audit.effort":                    ("smoke",       "brief",           "quick",           "paper"),
    "audit.example_images":            (200,           4500,              4500,              4500),
    "audit.example_epochs":            (1,             2,                 10,                10),
    "audit.planted_kinds": (
        ("loss", "undefended"), ("encoder", "loss", "undefended", "converted"), None, None,
    ),
    "audit.planted_random":            (0,             1,                 1,                 3),
    "audit.planted_train":             (15,            200,               200,               200),
    "audit.planted_test":              (2,             10,                10,                10),
    "audit.planted_epochs":            (1,             3,                 3,                 3),
    "audit.planted_effort":            ("smoke",       "brief",           "brief",           "quick"),
    "own.train_per_class":             (50,            250,               500,               None),
    "own.test_per_class":              (10,            50,                100,               None),
    "own.attacked_per_class":          (2,             10,                20,                100),
    "own.epochs":                      (1,             3,                 5,                 10),
    "own.steps":                       (2,             10,                10,                20),
    "own.effort":                      ("smoke",       "brief",           "brief",           "paper"),
    "own.time_steps":                  ((4, 8),        (4, 8, 16),        (4, 8, 16),        (4, 8, 16, 32)),
    "black_box.images_per_class":      (1,             3,                 10,                100),
    "black_box.eps_levels":            ((2, 8),        (2, 8),            (2, 8),            (2, 4, 8)),
    "black_box.draws":                 (2,             10,                20,                100),
    "black_box.queries":               (12,            200,               5000,              5000),
    "black_box.spsa":                  ((2, 4),        (6, 16),           (10, 32),          (50, 64)),
    "black_box.decisions":             (20,            80,                5000,              5000),
    "black_box.apgd_steps":            (2,             20,                100,               100),
    "black_box.ensemble_steps":        (1,             5,                 10,                20),
    "black_box.transfer_steps":        (2,             6,                 10,                20),
    "black_box.transfer_eps":          (8,             8,                 8,                 8),
    "black_box.flips":                 ((8, 32),       (4, 16, 64),       (4, 16, 64),       (4, 16, 64, 256)),
    "black_box.flip_rounds":           (3,             10,                10,                50),
    "further.train_per_class":         (10,            10,                1000,              None),
    "further.attacked_per_class":      (1,             10,                100,               None),
    "further.test_per_class":          (10,            50,                None,              None),
    "further.pretraining_epochs":      (1,             1,                 4,                 60),
    "further.epochs":                  (1,             1,                 2,                 60),
    "further.batch_size":              (10,            10,                128,               128),
    "further.objectives": (
        ("clean + PGD",), ("clean + PGD",), ("clean + PGD", "SCORE", "AWP", "HAT"),
        ("clean + PGD", "SCORE", "AWP", "HAT"),
    ),
    "further.inner_steps":             (2,             2,                 2,                 2),
    "further.passes":                  (24,            122,               1200,              8000),
    "defences.train_per_class":        (10,            10,                1000,              None),
    "defences.attacked_per_class":     (2,             3,                 50,                100),
    "defences.test_per_class":         (10,            50,                None,              None),
    "defences.seeds":                  ((0,),          (0,),              (0, 1),            (0, 1, 2)),
    "defences.epochs":                 (1,             1,                 2,                 60),
    "defences.batch_size":             (10,            10,                128,               128),
    "defences.names":                  (("none", "MPD-SGR", "TGO", "Poisson"), _DEFENCES, _DEFENCES, _DEFENCES),
    "defences.audited":                (("TGO",),      ("none", "MPD-SGR", "TGO"), _NOT_RANDOM,      _DEFENCES),
    "defences.levels":                 ((2,),          (2,),              (2, 8),            (2, 4, 8)),
    "defences.passes":                 (24,            82,                1200,              8000),
    "defences.eot":                    (2,             2,                 8,                 8),
    "defences.effort":                 ("smoke",       "smoke",           "quick",           "paper"),
    "events.profile.train_per_class":       (20,       None,              None,              None),
    "events.profile.attacked_per_class":    (1,        10,                100,               None),
    "events.profile.inspected_per_class":   (1,        5,                 20,                48),
    "events.profile.width":                 (4,        8,                 16,                64),
    "events.profile.time_steps":            (8,        8,                 8,                 8),
    "events.profile.epochs":                (1,        6,                 12,                100),
    "events.flips":                    ((4, 16),       (4, 16, 64),       (4, 16, 64, 256),  (4, 16, 64, 256)),
    "events.eps_levels":               ((2,),          (1, 2, 4),         (1, 2, 4, 8),      (1, 2, 4, 8)),
    "events.jitter":                   (2,             2,                 2,                 2),
    "events.rounds":                   (2,             8,                 20,                50),
    "events.draws":                    (1,             3,                 10,                100),
    "events.tries":                    (2,             2,                 8,                 16),
    "events.steps":                    (2,             10,                20,                50),
    "events.moving_per_class":         (5,             60,                300,               300),
    "events.moving_epochs":            (1,             10,                10,                30),
    "adaptive.images_per_class":       (1,             3,                 20,                100),
    "adaptive.validation_per_class":   (1,             1,                 20,                100),
    "adaptive.natural_level":          (1,             1,                 1,                 1),
    "adaptive.defended_level":         (4,             4,                 4,                 4),
    "adaptive.passes":                 ((24,),         (122,),            (204, 1200),       (204, 1200)),
    "adaptive.fixed_steps":            (1,             10,                10,                10),
    "adaptive.per_step_steps":         (1,             7,                 7,                 7),
    "theory.samples":                  (2,             4,                 10,                100),
    "theory.ranked":                   (4,             30,                100,               1000),
    "theory.draws":                    (8,             24,                32,                256),
    "theory.steps":                    (2,             4,                 10,                40),
    "theory.restarts":                 (1,             2,                 2,                 5),
    "theory.nodes":                    (2,             3,                 4,                 16),
    "theory.relaxed_eps":   ((0.25, 6), (0.25, 1, 3, 8), (0.25, 1, 3, 8), (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 6, 8)),
    "theory.deployed_eps":  ((1e-4, 6), (1e-4, 0.25, 6), (1e-4, 0.25, 6), (1e-4, 0.05, 0.25, 0.5, 1, 2, 4, 6, 8)),
    "theory.shares": (
        (1 / 16, 1.0), (1 / 64, 1 / 16, 1 / 4, 1.0), (1 / 64, 1 / 16, 1 / 4, 1.0),
        (1 / 1024, 1 / 256, 1 / 64, 1 / 16, 1 / 4, 1.0),
    ),
    "theory.dosed":                    (2,             6,                 10,                100),
    "theory.inspected":                (2,             10,                10,                100),
    "theory.certified":                (4,             50,                100,               500),
    "theory.selection":                (8,             20,                20,                100),
    "theory.certificate_draws":        (40,            200,               200,               10_000),
    "theory.sigmas":                   ((0.06,),       (0.06, 0.12),      (0.06, 0.12),      (0.06, 0.12, 0.25)),
}  # fmt: skip


def get_profile(name: str) -> Profile:
    """The sizes that all chapters share; asking for them applies the process settings, which decide numbers as they do.

    Raises InputError for an unknown profile, as all functions here.
    """
    apply_process_settings()
    return _built(Profile, "profile", name, name=name)


def with_images_of(profile: Profile, size: FurtherSize | DefenceSize) -> Profile:
    """`profile` with as many images of each class as a notebook's own size trains on, attacks and tests on."""
    counts = ("train_per_class", "attacked_per_class", "test_per_class")
    return replace(profile, **{name: getattr(size, name) for name in counts})


def conversion_size(name: str) -> ConversionSize:
    """Sizes of the conversion chapter."""
    own = _column("conversion.profile", name)
    return _built(ConversionSize, "conversion", name, profile=replace(get_profile(name), **own))


def audit_size(name: str) -> AuditSize:
    """Sizes of notebook 30."""
    return _built(AuditSize, "audit", name)


def own_size(name: str) -> OwnSize:
    """Sizes of notebook 03."""
    return _built(OwnSize, "own", name)


def further_size(name: str) -> FurtherSize:
    """Sizes of notebook 33."""
    return _built(FurtherSize, "further", name)


def defence_size(name: str) -> DefenceSize:
    """Sizes of notebook 34."""
    return _built(DefenceSize, "defences", name)


def event_size(name: str) -> EventSize:
    """Sizes of notebook 17."""
    own = _column("events.profile", name)
    return _built(EventSize, "events", name, profile=replace(get_profile(name), **own))


def black_box_size(name: str) -> BlackBoxSize:
    """Sizes of notebook 31."""
    return _built(BlackBoxSize, "black_box", name)


def adaptive_size(name: str) -> AdaptiveSize:
    """Sizes of notebook 32."""
    return _built(AdaptiveSize, "adaptive", name)


def theory_size(name: str) -> TheorySize:
    """Sizes of notebook 16."""
    return _built(TheorySize, "theory", name)


def size_table() -> pd.DataFrame:
    """`TABLE` as a DataFrame: a row per size, a column per profile."""
    return pd.DataFrame.from_dict(TABLE, orient="index", columns=list(PROFILE_NAMES))


@contextmanager
def changed(sizes: Mapping[str, Any]) -> Iterator[None]:
    """Other values for rows of `TABLE`, in every profile, while the block lasts: a sweep over sizes.

    Errors: InputError for a row that `TABLE` does not have.
    """
    if unknown := [key for key in sizes if key not in TABLE]:
        raise InputError(f"size {unknown[0]!r} does not exist; expected a row of sizes.TABLE, such as profile.epochs")
    before = {key: TABLE[key] for key in sizes}
    TABLE.update({key: (value,) * len(PROFILE_NAMES) for key, value in sizes.items()})
    try:
        yield
    finally:
        TABLE.update(before)


def _column(group: str, name: str) -> dict[str, Any]:
    """The sizes of one group in one profile: those with a single word after `group`."""
    place = PROFILE_NAMES.index(check_profile(name))
    rows = ((*key.rpartition("."), values[place]) for key, values in TABLE.items())
    return {size: value for prefix, _, size, value in rows if prefix == group}


def _built(kind: type, group: str, profile_name: str, **given: Any) -> Any:
    return kind(**given, **_column(group, profile_name))


PROFILES = {name: get_profile(name) for name in PROFILE_NAMES}
