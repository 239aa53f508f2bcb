"""Small cases with exact numbers: every kind of attack, training, calibration and inspection, in seconds.

Attacks, inspections and trainings run in float64, with spikes by the reference neuron: what is left of the rounding of
another machine is far below the tolerance, a changed step, loss, surrogate width or draw is far above it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace

import chapters
import pandas as pd
import torch

from snnlib.attacks import SCHEDULE, Turn
from snnlib.companion.measure.attacked import AUTHORS, ENCODED, IMAGE, Attack, _measured, _parts, run_attack
from snnlib.conversion import calibrate, copy_weights
from snnlib.data import ImageSet, ImageSplits, load_images
from snnlib.energy import count_spikes, synaptic_operations
from snnlib.models import Model, build_model
from snnlib.neurons import use_kernel
from snnlib.sparsity import gradient_by_operation, input_gradient_measures
from snnlib.training import Recipe, fit
from snnlib.training.inner_attack import inner_attack

EPS = 4 / 255
FEW = {"steps": 3}
MEMBERS = ("piecewise_linear(width=1, height=1)", "exponential(height=1, rate=2)", "straight_through(height=1)")
TURNS = (Turn("apgd", 26, SCHEDULE[0].gradient), *(replace(turn, passes=26) for turn in SCHEDULE[3:5]))


def network(encoder: str = "direct") -> Model:
    """A SEW-ResNet-18 of width 4 in float64 with statistics of some images, active in every layer."""
    model = build_model("sew_resnet18", 10, 4, encoder=encoder, width=4, seed=0).double()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.constant_(module.bias, 0.3)
            module.momentum = 1.0
    with torch.no_grad(), use_kernel("reference"):
        model.train()(pictures(20)[0])
    return model.eval()


def pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first test images, classes in turn, in float64; with labels."""
    chosen = load_images("cifar10").test.first_per_class(2).take(slice(0, count))
    return chosen.batch(slice(None)).double(), chosen.labels


def right_answers(model: Model, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images).argmax(1)


def attacked(attack: Attack, encoder: str = "direct", **options) -> pd.DataFrame:
    """What an attack measures on six images whose labels are the network's own answers."""
    model, (images, _) = network(encoder), pictures(6)
    labels = right_answers(model, images)
    source = network(encoder) if attack.name == "transfer" else None
    if source is not None:
        for weight in source.parameters():
            weight.data.mul_(1.05)
    found = run_attack(model, images, labels, attack, seed=1, source=source, **options)
    parts = [_measured(result, torch.arange(6)[part]).assign(member=name) for name, part, result in _parts(found)]
    return pd.concat(parts, ignore_index=True)


def trained(**recipe) -> pd.DataFrame:
    """One epoch of six steps on a few images with ReLU: the loss, and how far each layer's weights went."""
    images = load_images("cifar10", train_per_class=6, test_per_class=2)
    images = replace(images, train=chapters.exact(images.train), validation=chapters.exact(images.validation))
    model = build_model("vgg11", 10, 1, width=4, spiking=False, seed=0).double()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.ndim > 1}
    with tempfile.TemporaryDirectory() as folder:
        options = {"epochs": 1, "batch_size": 9, "learning_rate": 2e-3, "augmentation": "crop-flip", "seed": 3}
        history = fit(model, images, Recipe(**{**options, **recipe}), directory=folder)
    after = model.state_dict()
    moved = {name: (after[name] - weight).norm().item() for name, weight in before.items()}
    return pd.DataFrame([{"loss": history.epochs[0]["loss"], **moved}])


def robust(objective: str) -> dict:
    """The objective with its inner attack of two steps, or the one that it has."""
    attack = inner_attack(objective, 2 / 255)
    return {"objective": objective, "attack": {**attack, "steps": 2} if attack["name"] == "pgd" else attack}


def calibrated(**options) -> pd.DataFrame:
    """Thresholds of a converted network: the first layers, which rounding cannot reach through spikes."""
    images: ImageSplits = load_images("cifar10", train_per_class=10, test_per_class=2)
    ann = build_model("vgg11", 10, 1, width=4, spiking=False, seed=0)
    snn = copy_weights(ann, time_steps=4)
    chosen = {"time_steps": 6, "batches": 2, "batch_size": 16, "seed": 0, "augmentation": "flip", **options}
    found = calibrate(snn, images.train, **chosen)
    columns = ("layer", "threshold")
    return pd.DataFrame({name: [getattr(entry, name) for entry in found] for name in columns})[:3]


def by_operation() -> pd.DataFrame:
    images, labels = pictures(6)
    table = gradient_by_operation(network("phase"), images, labels, space="encoded")
    return table


def at_input() -> pd.DataFrame:
    images, labels = pictures(6)
    return input_gradient_measures(network("phase"), images, labels, space="image")


def counted() -> pd.DataFrame:
    chosen: ImageSet = load_images("cifar10").test.first_per_class(1)
    model = build_model("vgg11", 10, 8, width=4, seed=0)
    return count_spikes(model, chosen)[["spikes", "neurons"]].join(synaptic_operations(model, chosen)[["operations"]])


def _cases() -> dict[str, Callable[[], pd.DataFrame]]:
    plain = {name: Attack(name, EPS) for name in ("fgsm", "r_fgsm")}
    stepped = {name: Attack(name, EPS, options=FEW) for name in ("pgd", "mi_fgsm", "apgd", "sa_pgd", "transfer")}
    others = {
        "apgd_targeted": Attack("apgd_targeted", EPS, options={"steps": 3, "targets": 2}),
        "square": Attack("square", EPS, options={"queries": 20}),
        "spsa": Attack("spsa", EPS, options={"steps": 2, "directions": 4}),
        "rays": Attack("rays", EPS, options={"queries": 20}),
        "random_noise": Attack("random_noise", EPS, options={"draws": 3}),
        "ensemble": Attack("pgd", EPS, members=MEMBERS, options=FEW),
        "adaptive_ensemble": Attack("adaptive_ensemble", EPS, options={"steps": 10}),
        "mixed_surrogates": Attack("mixed_surrogates", EPS, options=FEW),
        "worst_case": Attack("worst_case", EPS / 400, options={"passes": 80, "schedule": TURNS}),
        "tg_pgd": Attack("tg_pgd", EPS, ENCODED, options={"steps": 2}),
        "pgd_other_surrogate": Attack("pgd", EPS, gradient="atan(alpha=2)", options=FEW),
        "pgd_half_the_pixels": Attack("pgd", EPS, keep=0.5, options=FEW),
        "pgd_l2_margin": Attack("pgd", 0.2, norm="l2", options={**FEW, "loss": "margin", "restarts": 2}),
    }
    attacks = plain | stepped | others
    cases = {f"attack_{name}": lambda attack=attack: attacked(attack) for name, attack in attacks.items()}
    for name, threat in (("authors", AUTHORS), ("encoded", ENCODED), ("image", IMAGE)):
        attack = Attack("pgd", EPS, threat, options={"steps": 2, "step_size": 0.01})
        cases[f"threat_{name}"] = lambda attack=attack: attacked(attack, "phase")
    flips = Attack("bit_flip", 8, ENCODED, norm="l0", options={"rounds": 3})
    cases["attack_bit_flip"] = lambda: attacked(flips, "phase")
    cases["training_natural"] = trained
    sgd = {"optimiser": "sgd", "learning_rate": 0.02, "weight_decay": 5e-4, "schedule": "cosine"}
    cases["training_trades"] = lambda: trained(**robust("trades"), **sgd, augmentation="crop-flip-cutout")
    cases["training_mart"] = lambda: trained(**robust("mart"), schedule="constant")
    cases["training_adversarial"] = lambda: trained(**robust("adversarial"), augmentation="flip")
    cases["training_consistency"] = lambda: trained(**robust("consistency"), objective_parameters={"beta": 2.0})
    pgd = {"name": "pgd", "eps": 2 / 255, "steps": 2}
    perturbed = {"inner": {"objective": "trades"}, "gamma": 0.01}
    ramp = {"first": {"eps": 0.0, "steps": 1}, "over": 0.5}
    further = {
        "clean_and_adversarial": {"attack": pgd, "curriculum": ramp},
        "score": {"attack": pgd, "deflate_gradients": True},
        "weight_perturbed": {"attack": pgd, "objective_parameters": perturbed},
    }
    for name, recipe in further.items():
        cases[f"training_{name}"] = lambda name=name, recipe=recipe: trained(objective=name, **recipe)
    cases |= {"calibration": calibrated, "by_operation": by_operation, "at_input": at_input, "spikes": counted}
    return cases | chapters.cases(network, right_answers)


CASES = _cases()


def rows_of(name: str) -> pd.DataFrame:
    """The case's numbers, made now."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with use_kernel("reference"):
            return CASES[name]().reset_index(drop=True)
    finally:
        torch.set_num_threads(threads)
