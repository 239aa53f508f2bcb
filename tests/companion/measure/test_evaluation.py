"""Rows of attacks: measured by hand on a linear model, and true to their schema, batches and model on small ResNets."""

from __future__ import annotations

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from snnlib.companion.measure import evaluation
from snnlib.companion.measure import rows as results
from snnlib.companion.measure.attacked import (
    AUTHORS,
    AUTHORS_DRIFTING,
    ENCODED,
    IMAGE,
    IMAGE_SMOOTH,
    AttackPlan,
    attack_rows,
    predictions,
    run_attack,
)
from snnlib.data import ImageSet
from snnlib.encoding import ENCODERS, build_encoder
from snnlib.errors import InputError
from snnlib.models import Model, build_model
from snnlib.neurons import use_kernel

NAMES = {"run": "a1b2", "model_name": "small", "dataset": "made-up"}
THREATS = (AUTHORS, AUTHORS_DRIFTING, ENCODED, IMAGE, IMAGE_SMOOTH)


@pytest.fixture(autouse=True)
def reference_kernel():
    with use_kernel("reference"):
        yield


class _Brightness(nn.Module):
    """Two classes, dark and bright: logits [−s, s] with s = mean pixel − 0.5, mean over time."""

    def forward(self, encoded: Tensor) -> Tensor:
        score = encoded.mean((0, 2, 3, 4)) - 0.5
        return torch.stack([-score, score], 1)


def _brightness_model(encoder: str = "direct") -> Model:
    return Model(build_encoder(encoder, 1), _Brightness(), {})


def _flat_images(levels: list[int], labels: list[int]) -> ImageSet:
    images = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    return ImageSet(images, torch.tensor(labels))


def _small_set(count: int = 12) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(count) % 3)


def _small_model(**options) -> Model:
    """A network of width 4 whose every stage is active; about a third of its answers on `_small_set` are right."""
    model = build_model("sew_resnet18", 3, **{"time_steps": 4, "width": 4, "seed": 0, **options})
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.bias.data.fill_(0.3)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(_small_set().batch(slice(None)))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def _right_answers(model: Model) -> ImageSet:
    """`_small_set` with the model's own answers as labels, a wrong one for every fourth image."""
    images = _small_set()
    labels = predictions(model, images)
    labels[::4] = (labels[::4] + 1) % 3
    return ImageSet(images.images, labels)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, two[name]) for name, value in one.items())


def test_fgsm_rows_are_those_computed_by_hand_when_the_model_is_linear():
    levels, labels, eps = [0, 102, 128, 153, 200, 153], [0, 0, 1, 1, 1, 0], 30 / 255
    rows = attack_rows(_brightness_model(), _flat_images(levels, labels), IMAGE, AttackPlan("fgsm", eps), **NAMES)
    assert rows.clean_correct.tolist() == [True, True, True, True, True, False], "127.5 is the border"
    assert rows.success.tolist() == [False, True, True, True, False, True], "132, 98, 123 cross it; 30, 170 do not"
    assert rows.first_successful_step.tolist() == [-1, 1, 1, 1, -1, 0]
    reached = np.array([30, 132, 98, 123, 170, 153]) / 255
    margin = np.where(np.array(labels) == 1, 1, -1) * 2 * (reached - 0.5)
    np.testing.assert_allclose(rows.loss, np.log1p(np.exp(-margin)), rtol=1e-5)
    np.testing.assert_allclose(rows.linf, [eps] * 5 + [0], atol=1e-6)
    np.testing.assert_allclose(rows.l2, [2 * eps] * 5 + [0], atol=1e-6)
    assert rows.forwards.tolist() == [2, 2, 2, 2, 2, 1]
    assert rows.backwards.tolist() == [1, 1, 1, 1, 1, 0]


def test_rows_name_what_made_them():
    image_set, plan = _flat_images([0, 200, 100], [0, 1, 1]), AttackPlan("pgd", 0.1, "l2", 3, 0.05, 2)
    rows = attack_rows(_brightness_model(), image_set, IMAGE, plan, **NAMES, seed=5, split="validation")
    assert rows["sample"].tolist() == [0, 1, 2]
    assert rows.label.tolist() == [0, 1, 1]
    constant = {name: value for name, value in rows.iloc[0].items() if rows[name].nunique() == 1}
    assert constant.items() >= {
        "run": "a1b2", "model": "small", "dataset": "made-up", "split": "validation", "seed": 5,
        "threat_model": "image", "attack": "pgd", "space": "image", "batch_norm": "eval", "norm": "l2", "eps": 0.1,
        "steps": 3, "step_size": 0.05, "restarts": 2, "surrogate": "own", "encoder_gradient": "exact",
        "kernel": "reference", "device": "cpu",
    }.items()  # fmt: skip


@pytest.mark.parametrize(
    "plan, steps, restarts",
    [
        (AttackPlan("pgd", 0.1), 10, 1),
        (AttackPlan("pgd", 0.1, steps=2, restarts=3), 2, 3),
        (AttackPlan("fgsm", 0.1), 1, 1),
        (AttackPlan("random_noise", 0.1), 1, 1),
    ],
)
def test_rows_count_the_steps_that_the_attack_takes(plan, steps, restarts):
    rows = attack_rows(_brightness_model(), _flat_images([0], [0]), IMAGE, plan, **NAMES)
    assert (rows.steps.item(), rows.restarts.item()) == (steps, restarts)
    assert rows.backwards.item() <= steps * restarts
    assert math.isnan(rows.step_size.item()), "left to the attack"


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
@pytest.mark.parametrize("attack", ["fgsm", "pgd", "random_noise"])
def test_rows_fit_the_schema_and_themselves(tmp_path, threat, attack):
    model = _small_model()
    image_set = _right_answers(model)
    plan = AttackPlan(attack, 16 / 255, steps=2 if attack == "pgd" else None)
    rows = attack_rows(model, image_set, threat, plan, **NAMES, batch_size=5)
    assert list(results.check_rows(rows).columns) == list(results.ROW_COLUMNS)
    stored = results.read_rows(results.write_rows(tmp_path / "rows.parquet", rows))
    pd.testing.assert_frame_equal(stored, rows, check_dtype=False)
    assert rows.clean_correct.tolist() == [False, True, True, True] * 3
    assert (rows.linf <= 16 / 255 + 1e-6).all() and (rows.l2 >= rows.linf).all()
    assert (rows.success == (rows.first_successful_step >= 0)).all()
    assert (rows.loss[rows.success] >= math.log(2) - 1e-6).all(), "the label has at most half of the probability"
    assert (rows.loss[~rows.success] <= math.log(3) + 1e-6).all(), "the label has at least a third of it"
    if threat.batch_norm == "eval":
        wrong = rows[~rows.clean_correct]
        assert wrong.success.all() and (wrong.first_successful_step == 0).all() and (wrong.linf == 0).all()
    if attack != "random_noise":
        assert rows.backwards.max() > 0
    assert model.encoder.gradient == "straight_through"


def test_clean_answers_do_not_depend_on_the_mode_of_the_model():
    model = _small_model()
    image_set = _right_answers(model)
    model.train()
    rows = attack_rows(model, image_set, AUTHORS, AttackPlan("random_noise", 0.0), **NAMES)
    assert rows.clean_correct.tolist() == [False, True, True, True] * 3
    assert rows.success.tolist() == (~rows.clean_correct).tolist(), "scored in eval mode, at eps 0"
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("plan", [AttackPlan("random_noise", 0.2), AttackPlan("pgd", 0.05, steps=2, step_size=0.01)])
def test_rows_do_not_depend_on_the_batches_when_images_are_attacked(plan):
    model = _small_model(spiking=False)
    image_set = _right_answers(model)
    whole, parts = (attack_rows(model, image_set, IMAGE, plan, **NAMES, batch_size=size) for size in (12, 5))
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-4)
    other = attack_rows(model, image_set, IMAGE, plan, **NAMES, seed=1)
    assert (other.loss != whole.loss).any(), "the seed draws the noise"


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
def test_the_callers_model_stays_as_it_was(threat):
    model = _small_model()
    before = _state(model)
    attack_rows(model, _right_answers(model), threat, AttackPlan("fgsm", 0.1), **NAMES, batch_size=4)
    assert _same(_state(model), before)
    assert not model.training and all(weight.requires_grad for weight in model.parameters())


def test_statistics_drift_from_batch_to_batch_when_the_threat_model_keeps_them():
    model, plan = _small_model(), AttackPlan("fgsm", 0.1)
    image_set = _right_answers(model)
    rows = attack_rows(model, image_set, AUTHORS_DRIFTING, plan, **NAMES, batch_size=4)
    drifting, wanted = copy.deepcopy(model), []
    for start in (0, 4, 8):
        images, labels = image_set.batch(slice(start, start + 4)), image_set.labels[start : start + 4]
        wanted.append(run_attack(drifting, images, labels, AUTHORS_DRIFTING, plan).loss)
    np.testing.assert_allclose(rows.loss, torch.cat(wanted), rtol=1e-5)
    assert not _same(_state(drifting), _state(model)), "run_attack leaves the drift in the model that it is given"
    alone = run_attack(copy.deepcopy(model), images, labels, AUTHORS_DRIFTING, plan).loss
    assert not torch.allclose(alone, wanted[-1], rtol=1e-3), "the last batch feels the ones before it"


def test_encoder_gradient_is_the_threat_models_inside_and_comes_back(monkeypatch):
    model, seen, images = _small_model(), [], torch.rand(1, 3, 16, 16)

    def spy(model, *_, **__):
        seen.append(model.encoder.gradient)
        raise ArithmeticError("inside")

    monkeypatch.setitem(evaluation.ATTACKS, "spy", spy)
    for threat in (IMAGE, IMAGE_SMOOTH, ENCODED):
        model.encoder.gradient = "none"
        with pytest.raises(ArithmeticError):
            run_attack(model, images, torch.tensor([0]), threat, AttackPlan("spy", 0.1))
        assert model.encoder.gradient == "none"
    assert seen == ["straight_through", "smooth", "none"]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("threat", [IMAGE, IMAGE_SMOOTH, ENCODED], ids=lambda threat: threat.name)
def test_rows_name_the_gradient_that_crossed_the_encoder(encoder, threat):
    model = _brightness_model(encoder)
    wanted = "exact" if encoder == "direct" else "smooth" if threat is IMAGE_SMOOTH else "straight_through"
    if threat is IMAGE_SMOOTH and encoder in ("direct", "poisson"):
        with pytest.raises(InputError, match="crosses the encoder by 'smooth'"):
            attack_rows(model, _flat_images([0, 255], [0, 1]), threat, AttackPlan("fgsm", 0.1), **NAMES)
        return
    rows = attack_rows(model, _flat_images([0, 255], [0, 1]), threat, AttackPlan("fgsm", 0.1), **NAMES)
    assert set(rows.encoder_gradient) == {"" if threat is ENCODED else wanted}


def test_rows_name_the_surrogate_that_the_attacker_used():
    model = _small_model(surrogate="sigmoid(slope=4)")
    image_set = _right_answers(model)
    own = attack_rows(model, image_set, ENCODED, AttackPlan("fgsm", 0.1), **NAMES)
    other = attack_rows(model, image_set, ENCODED, AttackPlan("fgsm", 0.1, surrogate="rectangular(width=1)"), **NAMES)
    assert set(own.surrogate) == {"sigmoid(slope=4)"}
    assert set(other.surrogate) == {"rectangular(width=1)"}
    assert (own.loss != other.loss).any()


def test_predictions_are_those_of_eval_mode_when_the_model_trains():
    model = _small_model()
    expected = model(_small_set().batch(slice(None))).argmax(1)
    before = _state(model)
    model.train()
    assert torch.equal(predictions(model, _small_set(), batch_size=5), expected)
    assert model.training and _same(_state(model), before)


@pytest.mark.parametrize(
    "plan, message",
    [
        (AttackPlan("deepfool", 0.1), "attack is 'deepfool'; expected one of fgsm"),
        (AttackPlan("fgsm", -0.1), "eps is -0.1"),
        (AttackPlan("fgsm", 8), "eps is 8"),
        (AttackPlan("fgsm", 0.1, norm="l1"), "norm is 'l1'"),
        (AttackPlan("pgd", 0.1, steps=0), "steps is 0"),
        (AttackPlan("fgsm", 0.1, surrogate="tan"), "gradient is 'tan'"),
        (AttackPlan("fgsm", 0.1, steps=3), "attack .fgsm. takes no steps"),
    ],
)
def test_one_line_error_when_the_plan_is_wrong(plan, message):
    model = _small_model()
    before = _state(model)
    with pytest.raises(InputError, match=message) as error:
        attack_rows(model, _right_answers(model), IMAGE, plan, **NAMES)
    assert "\n" not in str(error.value)
    assert _same(_state(model), before) and model.encoder.gradient == "straight_through"
