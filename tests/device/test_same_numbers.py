"""Everything runs on a device that is not the CPU, and gives the numbers of the CPU."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from snnlib import conversion, sparsity, theory
from snnlib.attacks import MEMBERS, Budget
from snnlib.attacks.gradients import adaptive_sharpness, potential_dependent
from snnlib.attacks.same_function import POOL_GRADIENTS
from snnlib.audit import Effort, audit
from snnlib.bench.contenders import LIF_CONTENDERS
from snnlib.companion.measure import networks
from snnlib.companion.measure.attacked import (
    AUTHORS,
    AUTHORS_DRIFTING,
    ENCODED,
    IMAGE,
    IMAGE_SMOOTH,
    Attack,
    _measured,
    _parts,
    attack_rows,
    run_attack,
)
from snnlib.companion.measure.networks import Network, TrainedNetwork
from snnlib.data import ImageSet, ImageSplits
from snnlib.encoding import ENCODERS
from snnlib.energy import count_spikes, dense_macs, synaptic_operations
from snnlib.models import Model, build_model
from snnlib.models.build import NETWORKS
from snnlib.theory import TrueClassProbability, lemmas
from snnlib.training import Recipe, fit, inner_attack
from snnlib.training.augmentation import event_affine

EPS = 8 / 255
OTHER_DEPTHS = ("sew_resnet34", "spiking_resnet34", "spiking_resnet50", "wrn28_4", "resnet32")


def pictures(count: int = 4, size: int = 8) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 3)


def network(encoder: str = "direct", name: str = "vgg11", time_steps: int = 2, **options) -> Model:
    """A small network that is active in every layer."""
    options = {"width": 2, "seed": 0, **({"image_size": 8} if name == "vgg11" else {}), **options}
    model = build_model(name, 3, time_steps, encoder, **options)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.constant_(norm.bias, 0.5)
    return model.eval()


def on(device: str, model: Model | None = None, count: int = 4) -> tuple[Model, Tensor, Tensor]:
    images = pictures(count)
    model = network() if model is None else model
    return model.to(device), images.batch(slice(None), device), images.labels.to(device)


def attacked(device: str, attack: Attack, encoder: str = "direct", **options) -> pd.DataFrame:
    model, images, labels = on(device, network(encoder, **options))
    source = network(encoder, seed=1).to(device) if attack.name == "transfer" else None
    found = run_attack(model, images, labels, attack, seed=1, source=source)
    assert repr(found)
    parts = [_measured(result, torch.arange(4)[part]).assign(member=name) for name, part, result in _parts(found)]
    return pd.concat(parts, ignore_index=True)


FEW = {"steps": 2}
ATTACKS = {
    **{name: Attack(name, EPS) for name in ("fgsm", "r_fgsm", "random_noise")},
    **{name: Attack(name, EPS, options=FEW) for name in ("pgd", "mi_fgsm", "apgd", "sa_pgd", "transfer")},
    "pgd l2 margin": Attack("pgd", 0.5, norm="l2", options={**FEW, "loss": "margin", "restarts": 2}),
    "pgd kl": Attack("pgd", EPS, options={**FEW, "loss": "kl", "start": "gaussian", "early_stop": False}),
    "apgd_targeted": Attack("apgd_targeted", EPS, options={**FEW, "targets": 1, "loss": "targeted_margin"}),
    "square": Attack("square", EPS, options={"queries": 6}),
    "square l2": Attack("square", 0.5, norm="l2", options={"queries": 6}),
    "spsa": Attack("spsa", EPS, options={**FEW, "directions": 2}),
    "rays": Attack("rays", EPS, options={"queries": 8}),
    "adaptive_ensemble": Attack("adaptive_ensemble", EPS, options={"steps": 4}),
    "half the pixels": Attack("pgd", EPS, keep=0.5, options=FEW),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_attacks(same_on_both, other_device, attack):
    same_on_both(lambda device: attacked(device, attack))
    assert not other_device.draws, "drawn from the device's own generator"


@pytest.mark.parametrize("threat", [AUTHORS, AUTHORS_DRIFTING, ENCODED, IMAGE, IMAGE_SMOOTH], ids=lambda t: t.name)
def test_threat_models(same_on_both, threat):
    same_on_both(lambda device: attacked(device, Attack("pgd", EPS, threat, options=FEW), "phase"))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_encoders(same_on_both, encoder):
    attack = Attack("pgd", EPS, replace(IMAGE, encoder_gradient=""), options=FEW)
    same_on_both(lambda device: attacked(device, attack, encoder))


@pytest.mark.parametrize("pool", POOL_GRADIENTS)
def test_dense_gradients_of_max_pools(same_on_both, pool):
    same_on_both(lambda device: attacked(device, Attack("fgsm", EPS, pool=pool), name="sew_resnet18", pool="max"))


def test_flips_of_spikes(same_on_both):
    flips = Attack("bit_flip", 8, ENCODED, norm="l0", options={"rounds": 3})
    same_on_both(lambda device: attacked(device, flips, "phase"))


def test_every_member_of_the_ensemble(same_on_both):
    everyone = Attack("fgsm", EPS, members=tuple(MEMBERS), alone=True)
    same_on_both(lambda device: attacked(device, everyone))


@pytest.mark.parametrize("gradient", [potential_dependent(), potential_dependent("batch"), adaptive_sharpness()])
def test_gradients_that_look_at_the_membrane(same_on_both, gradient):
    def found(device: str) -> Tensor:
        from snnlib.attacks import pgd

        return pgd(*on(device), Budget(EPS), gradient=gradient, steps=2).adversarial

    same_on_both(found)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in OTHER_DEPTHS])
def test_models(same_on_both, name):
    def gradient(device: str) -> Tensor:
        size = {"image_size": 32} if name == "vgg16" else {}
        model = network(name=name, **size)
        images = pictures(2, 32 if name == "vgg16" else 64 if name == "vgg11_tinyimagenet" else 8)
        x = images.batch(slice(None), device).requires_grad_()
        model.to(device)(x).square().sum().backward()
        return x.grad

    same_on_both(gradient)


def splits() -> ImageSplits:
    return ImageSplits("made-up", pictures(12), pictures(6), pictures(6), 3, ("a", "b", "c"))


RECIPE = Recipe(epochs=1, batch_size=6, learning_rate=0.01, augmentation="flip", seed=7)
ROBUST = replace(
    RECIPE, optimiser="sgd", weight_decay=1e-3, objective="consistency", attack=inner_attack("consistency", eps=0.05),
    weight_retraction=1e-3, augmentation="crop-flip-cutout",
)  # fmt: skip
TRADES = {"name": "pgd", "eps": EPS, "steps": 2, "loss": "kl", "start": "gaussian"}
RECIPES = {
    "natural": RECIPE,
    "resized crops": replace(RECIPE, augmentation="resized-crop-flip"),
    "SNN-RAT": ROBUST,
    "trades": replace(RECIPE, objective="trades", attack=TRADES),
    "mart": replace(RECIPE, objective="mart", attack={**TRADES, "loss": "ce"}),
    "sparse gradient": replace(RECIPE, objective="sparse_gradient", objective_parameters={"weight": 0.1}),
}


def test_moved_recordings(same_on_both):
    recordings = torch.arange(3 * 2 * 2 * 81.0).view(3, 2, 2, 9, 9)
    same_on_both(lambda device: event_affine(recordings.to(device), torch.Generator().manual_seed(0)))


def weights_after(device: str, folder: Path, *limits: float | None, recipe: Recipe = RECIPE) -> bytes:
    for limit in limits or (None,):
        model = network(time_steps=2, trainable_threshold=True, threshold_floor=0.03)
        for dropout in (module for module in model.modules() if isinstance(module, nn.Dropout)):
            dropout.p = 0.0  # draws from the device's own generator
        history = fit(model, splits(), recipe, directory=folder, device=device, time_limit=limit)
    assert history.finished
    return history.last.read_bytes()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_trainings(same_on_both, tmp_path, recipe):
    same_on_both(lambda device: weights_after(device, tmp_path / device, recipe=recipe))


def test_a_training_goes_on_where_it_stood(other_device, tmp_path):
    recipe = replace(RECIPE, epochs=2)
    with other_device:
        whole = weights_after(other_device.name, tmp_path / "whole", recipe=recipe)
        assert weights_after(other_device.name, tmp_path / "parts", 0, None, recipe=recipe) == whole


@pytest.mark.parametrize("statistics", ["reset", "reestimate"])
def test_conversion(same_on_both, statistics):
    def report(device: str) -> pd.DataFrame:
        ann = network(time_steps=1, spiking=False).to(device)
        options = {"time_steps": 2, "batch_size": 6, "statistics": statistics}
        return conversion.convert(ann, pictures(12), calibration={"batches": 2, "time_steps": 3}, **options)[1].table()

    same_on_both(report)


def test_conversion_of_a_plain_network_with_a_max_pool(same_on_both):
    def logits(device: str) -> Tensor:
        torch.manual_seed(0)
        pooled = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten()]
        ann = nn.Sequential(*pooled, nn.LazyLinear(10))
        images = pictures(12).batch(slice(None))
        ann(images)
        snn, _ = conversion.convert(ann.to(device), images, time_steps=3, batch_size=6, calibration={"batches": 2})
        return snn(images.to(device)).detach()

    same_on_both(logits)


def test_conversion_by_steps_of_the_activation(same_on_both):
    def logits(device: str) -> Tensor:
        ann = conversion.with_qcfs(network(time_steps=1, spiking=False), 4).to(device)
        images = pictures().batch(slice(None), device)
        return torch.stack([ann.eval()(images), conversion.qcfs_to_if(ann, 4).eval()(images)]).detach()

    same_on_both(logits)


@pytest.mark.parametrize("space", ["image", "encoded"])
def test_sparsity_of_gradients(same_on_both, space):
    def table(device: str) -> pd.DataFrame:
        given = on(device, network("phase"))
        by_operation = sparsity.gradient_by_operation(*given, space=space, batch_norm="train")
        return pd.concat([by_operation, sparsity.input_gradient_measures(*given, space=space)])

    same_on_both(table)


@pytest.mark.parametrize("count", [count_spikes, synaptic_operations])
def test_spikes_and_operations(same_on_both, count):
    same_on_both(lambda device: count(network().to(device), pictures()))


def test_dense_operations(same_on_both):
    same_on_both(lambda device: dense_macs(network().to(device), (3, 8, 8)))


@pytest.mark.parametrize("relax, space", [(True, "image"), (False, "encoded")])
def test_vulnerabilities(same_on_both, relax, space):
    def table(device: str) -> pd.DataFrame:
        function = TrueClassProbability(*on(device), relax=relax, space=space)
        return theory.vulnerability_table(function, [EPS], draws=8, steps=2, nodes=2)

    same_on_both(table)


CHECKS = {
    "definitions": lambda device: theory.check_definitions(TrueClassProbability(*on(device)), EPS, draws=8, steps=2),
    "circulation": lambda device: theory.check_circulation(TrueClassProbability(*on(device)), EPS, nodes=4),
    "density": lambda device: theory.check_density(*on(device)),
    "constancy": lambda device: theory.check_constancy(*on(device, count=1), draws=4),
    "l2": lambda device: lemmas.check_l2_ratio(torch.arange(1.0, 5).to(device)),
    "gaussian": lambda device: lemmas.check_gaussian(torch.ones(4).to(device), torch.full((4,), 0.05).to(device), 0.3),
    "pool pair": lambda device: lemmas.check_pool_pair(torch.arange(4.0).view(2, 2).to(device), 2),
    "thinning": lambda device: lemmas.check_thinning(*(torch.arange(200).to(device) % n == 0 for n in (3, 2))),
    "progress": lambda device: lemmas.check_progress(
        torch.eye(2).to(device), torch.ones(2).to(device), torch.eye(2).to(device), 0.5,
        input_gradient=torch.arange(1.0, 99).to(device),
    ),
    "poisson": lambda device: lemmas.check_poisson(
        lambda spikes: spikes.sum((1, 2)).long() % 2, torch.full((2,), 0.5).to(device),
        torch.full((1, 2), 0.4).to(device), 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_checks_of_theorems(same_on_both, check):
    same_on_both(lambda device: str(check(device)))


def test_a_residual_block_is_checked_where_it_is(same_on_both):
    def verdict(device: str) -> str:
        model = network(name="sew_resnet18")
        block = next(module for module in model.modules() if getattr(module, "is_residual_block", False))
        channels = next(weight for weight in block.parameters() if weight.dim() == 4).shape[1]
        x = torch.rand(2, 2, channels, 4, 4, generator=torch.Generator().manual_seed(0))
        return str(lemmas.check_residual(copy.deepcopy(block).to(device), x.to(device)))

    same_on_both(verdict)


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_density_of_weight_gradients(same_on_both, per):
    same_on_both(lambda device: theory.weight_gradient_density(*on(device), per=per))


def test_certificates(same_on_both):
    def tables(device: str) -> pd.DataFrame:
        model, images, _ = on(device)
        numbers = {"selection": 2, "draws": 8}
        gaussian = theory.gaussian_certificate(model, images, sigma=0.1, **numbers)
        return pd.concat([gaussian, theory.poisson_certificate(model, images, time_steps=2, **numbers)])

    same_on_both(tables)


def test_the_audit(same_on_both):
    effort = Effort(
        steps=2, queries=6, members=("straight_through",), restarts=2, draws=2, eot=2, grid=3, pictured=2,
        eps_factors=(1.0, 2.0),
    )  # fmt: skip
    same_on_both(lambda device: str(audit(*on(device, network("phase")), Budget(EPS), effort=effort).findings))


@pytest.mark.parametrize(
    "attack",
    [Attack("pgd", EPS, AUTHORS, options=FEW), Attack("pgd", EPS, members=tuple(MEMBERS)[:2], options=FEW)],
    ids=["authors", "ensemble"],
)
def test_rows(same_on_both, home, attack):
    def rows(device: str) -> pd.DataFrame:
        made = ImageSplits("made-up", pictures(), pictures(), pictures(), 3, ("a", "b", "c"))
        model, key = network("phase").to(device), f"key-{device}"
        item = TrainedNetwork(Network("toy", "toy"), 0, model, None, key, made, device)
        assert len(networks.accuracy(item, pictures())) == 1
        return attack_rows(item, attack, pictures(), batch_size=3).drop(columns=["device", "run"])

    same_on_both(rows)


@pytest.mark.parametrize("name", [name for name in LIF_CONTENDERS if name != "Norse"])
def test_layers_of_the_bench_run_where_their_currents_are(same_on_both, name):
    if name in ("SpikingJelly", "snnTorch"):
        pytest.importorskip(name.lower())
    currents = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    same_on_both(lambda device: LIF_CONTENDERS[name]()(currents.to(device)))
