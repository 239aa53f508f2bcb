"""Training, attacks, rows and calibration on a GPU against the same on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch

from snnlib.attacks import Budget, ensemble_attack, pgd
from snnlib.companion.measure.attacked import IMAGE, Attack, attack_rows
from snnlib.companion.measure.networks import Network, TrainedNetwork
from snnlib.conversion import calibrate
from snnlib.data import ImageSplits
from snnlib.models import build_model
from snnlib.runtime import make_deterministic
from snnlib.tensor_files import state_digest
from snnlib.training import Recipe, fit, inner_attack
from snnlib.training.accuracy import predictions
from snnlib.training.checkpoint import read_checkpoint
from snnlib.training.epoch import build_optimiser, train_step

pytestmark = pytest.mark.gpu
BUDGET = Budget(2 / 255)
FLIPPED = 0.08
"""Share of answers that another order of summation may change: it moves membranes across their thresholds."""


def test_arithmetic_is_float32_and_not_tensorfloat(cuda):
    a, b = (torch.randn(512, 512, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    exact = a.double() @ b.double()
    assert ((a.to(cuda) @ b.to(cuda)).cpu() - exact).norm() / exact.norm() < 2e-6
    images, kernels = a.view(4, 64, 32, 32), b.view(64, 64, 64)[:, :, :9].reshape(64, 64, 3, 3)
    exact = torch.conv2d(images.double(), kernels.double(), padding=1)
    ours = torch.conv2d(images.to(cuda), kernels.to(cuda), padding=1).cpu()
    assert (ours - exact).norm() / exact.norm() < 2e-6


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-6), (torch.float32, 0.1)], ids=str)
def test_training_step_is_the_one_on_the_cpu(cuda, dtype, tolerance):
    """In float64 no membrane is so near its threshold that rounding decides: loss and new weights are the same."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 32, 32, generator=generator, dtype=dtype)
    labels = torch.arange(8)
    recipe = Recipe(epochs=1, batch_size=8, optimiser="sgd", learning_rate=0.01)
    found = {}
    for device in ("cpu", cuda):
        model = build_model("sew_resnet18", 10, time_steps=4, width=8, seed=0).to(device, dtype).train()
        optimiser = build_optimiser(model, recipe)
        loss, _ = train_step(model, optimiser, images.to(device), labels.to(device), recipe, 1, 1)
        found[device] = loss.item(), torch.cat([weight.detach().cpu().flatten() for weight in model.parameters()])
    assert found[cuda][0] == pytest.approx(found["cpu"][0], rel=tolerance)
    change = (found[cuda][1] - found["cpu"][1]).norm() / found["cpu"][1].norm()
    assert change < tolerance


@pytest.mark.parametrize(
    "name, objective, change",
    [
        ("sew_resnet18", "natural", {}),
        ("vgg11", "natural", {}),
        ("sew_resnet18", "trades", {}),
        ("vgg11", "trades", {}),
        ("sew_resnet18", "adversarial", {"batch_norm": "train"}),
        ("vgg11", "adversarial", {"early_stop": True}),
        ("resnet20", "adversarial", {"gradient": ["straight_through(height=1)", "rectangular(width=1)"]}),
    ],
)
def test_replayed_training_gives_the_bytes_of_plain_training(
    cuda, test_images, tmp_path, monkeypatch, name, objective, change
):
    """Two batch sizes, dropout, trainable thresholds, passes that wait for each other, and attacks of many kinds."""
    splits = ImageSplits("made-up", test_images, test_images, test_images, 10, tuple("abcdefghij"))
    attack = None if objective == "natural" else {**inner_attack(objective, 2 / 255), "steps": 3, **change}
    recipe = Recipe(epochs=2, batch_size=len(test_images) // 3, objective=objective, attack=attack)
    digests = {}
    for graphs in ("0", "1", "1"):
        monkeypatch.setenv("SNNLIB_CUDA_GRAPHS", graphs)
        make_deterministic(0)
        model = build_model(name, 10, time_steps=4, width=8, seed=0, trainable_threshold=name == "vgg11")
        fit(model, splits, recipe, directory=tmp_path / str(len(digests)), device=cuda, resume=False)
        digests.setdefault(graphs, set()).add(state_digest(model.state_dict()))
    assert digests["0"] == digests["1"]


def test_trained_network_answers_as_on_the_cpu(cuda, trained, test_images):
    ours, wanted = (predictions(copy.deepcopy(trained).to(d), test_images, 50, d).cpu() for d in (cuda, "cpu"))
    assert (ours != wanted).float().mean() <= FLIPPED


@pytest.mark.parametrize("attack", ["pgd", "ensemble"])
def test_attack_breaks_about_what_it_breaks_on_the_cpu(cuda, trained, test_images, attack):
    images, labels = test_images.batch(slice(None)), test_images.labels
    broken = {}
    for device in ("cpu", cuda):
        model, pixels, classes = copy.deepcopy(trained).to(device), images.to(device), labels.to(device)
        if attack == "pgd":
            result = pgd(model, pixels, classes, BUDGET, steps=4)
        else:
            result = ensemble_attack(model, pixels[:10], classes[:10], BUDGET, steps=2).result
        assert result.adversarial.device.type == device
        assert (result.adversarial - pixels[: len(result.success)]).abs().max() <= BUDGET.eps + 1e-6
        broken[device] = result.success.cpu()
    assert broken["cpu"].any()
    assert (broken[cuda] != broken["cpu"]).sum() <= 0.15 * len(broken[cuda]) + 1


def test_rows_are_measured_on_the_device_and_read_again(cuda, trained, test_images, home):
    splits = ImageSplits("made-up", test_images, test_images, test_images, 10, tuple("abcdefghij"))
    attack = Attack("pgd", 2 / 255, IMAGE, options={"steps": 2})
    tables = {}
    for device in ("cpu", cuda):
        model = copy.deepcopy(trained).to(device)
        key = f"{state_digest(model.state_dict())}-{device}"
        network = TrainedNetwork(Network("toy", "toy"), 0, model, None, key, splits, device)
        tables[device] = attack_rows(network, attack, test_images, batch_size=20)
        again = attack_rows(network, attack, test_images, batch_size=20)
        assert again.equals(tables[device])
    ours, wanted = tables[cuda], tables["cpu"]
    assert ours.columns.equals(wanted.columns) and ours["sample"].equals(wanted["sample"])
    assert (ours.success != wanted.success).mean() <= 0.15


def test_calibration_finds_the_thresholds_of_the_cpu(cuda, test_images):
    options = {"time_steps": 4, "batches": 1, "batch_size": 16}
    found = {}
    for device in ("cpu", cuda):
        snn = build_model("vgg11", 10, time_steps=4, width=4, seed=0).to(device, torch.float64)
        found[device] = calibrate(snn, test_images, **options)
    assert [layer.layer for layer in found[cuda]] == [layer.layer for layer in found["cpu"]]
    ours, wanted = ([layer.threshold for layer in found[device]] for device in (cuda, "cpu"))
    assert ours == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("recipe", ["RECIPE", "ROBUST"])
def test_resumed_training_ends_with_the_same_bytes_when_deterministic(cuda, tiny, tmp_path, deterministic, recipe):
    recipe = getattr(tiny, recipe)
    options = {"noise": True, "spiking": True, "wide": True}
    fit(tiny.make_model(**options), tiny.make_splits(), recipe, directory=tmp_path / "whole", device=cuda)
    for _ in range(recipe.epochs):
        model = tiny.make_model(**options)
        fit(model, tiny.make_splits(), recipe, directory=tmp_path / "pieces", device=cuda, time_limit=0)
    whole, pieces = (read_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "pieces"))
    assert whole.model_state.keys() == pieces.model_state.keys()
    assert all(torch.equal(value, pieces.model_state[name]) for name, value in whole.model_state.items())


def test_deterministic_training_of_a_spiking_network_repeats_itself(cuda, test_images, tmp_path, deterministic):
    """Twice the same bytes: SEW-ResNet-18 of width 8 at T = 4, trained against PGD on augmented images."""
    splits = ImageSplits("made-up", test_images, test_images, test_images, 10, tuple("abcdefghij"))
    attack = {"name": "pgd", "eps": 2 / 255, "steps": 2}
    recipe = Recipe(epochs=1, batch_size=25, objective="adversarial", attack=attack, augmentation="crop-flip")
    digests = []
    for name in ("first", "second"):
        model = build_model("sew_resnet18", 10, time_steps=4, width=8, seed=0)
        fit(model, splits, recipe, directory=tmp_path / name, device=cuda)
        digests.append(state_digest(model.state_dict()))
    assert digests[0] == digests[1]
