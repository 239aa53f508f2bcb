"""Rows of attacks: measured by hand on a linear model, and true to their schema, batches and model on small ResNets."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from snnlib.companion.measure import attacked
from snnlib.companion.measure import rows as results
from snnlib.companion.measure.attacked import (
    AUTHORS,
    AUTHORS_DRIFTING,
    ENCODED,
    IMAGE,
    IMAGE_SMOOTH,
    Attack,
    attack_rows,
    run_attack,
)
from snnlib.data import ImageSet
from snnlib.encoding import ENCODERS, build_encoder
from snnlib.errors import InputError
from snnlib.models import Model, build_model
from snnlib.neurons import use_kernel
from snnlib.training.accuracy import predictions

THREATS = (AUTHORS, AUTHORS_DRIFTING, ENCODED, IMAGE, IMAGE_SMOOTH)


@pytest.fixture(autouse=True)
def reference_kernel(home):
    with use_kernel("reference"):
        yield


@pytest.fixture
def measure(wrap):
    """A function from a model, images and an attack to its rows."""

    def measured(model: Model, images: ImageSet, attack: Attack, seed: int = 0, **options) -> pd.DataFrame:
        return attack_rows(wrap(model, images, seed=seed), attack, images, **{"batch_size": 100, **options})

    return measured


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


def test_fgsm_rows_are_those_computed_by_hand_when_the_model_is_linear(measure):
    levels, labels, eps = [0, 102, 128, 153, 200, 153], [0, 0, 1, 1, 1, 0], 30 / 255
    rows = measure(_brightness_model(), _flat_images(levels, labels), Attack("fgsm", eps))
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


def test_rows_name_what_made_them(wrap):
    images = _flat_images([0, 200, 100], [0, 1, 1])
    network = wrap(_brightness_model(), images, label="small", seed=5, key="a1b2")
    attack = Attack("pgd", 0.1, norm="l2", options={"steps": 3, "step_size": 0.05, "restarts": 2})
    rows = attack_rows(network, attack, images, batch_size=2)
    assert rows["sample"].tolist() == [0, 1, 2]
    assert rows.label.tolist() == [0, 1, 1]
    constant = {name: value for name, value in rows.iloc[0].items() if rows[name].nunique() == 1}
    assert constant.items() >= {
        "run": "a1b2", "model": "small", "dataset": "made-up", "split": "test", "seed": 5,
        "threat_model": "image", "attack": "pgd", "space": "image", "batch_norm": "eval", "norm": "l2", "eps": 0.1,
        "steps": 3, "step_size": 0.05, "restarts": 2, "surrogate": "own", "encoder_gradient": "exact",
        "kernel": "reference", "device": "cpu",
    }.items()  # fmt: skip


@pytest.mark.parametrize(
    "attack, steps, restarts",
    [
        (Attack("pgd", 0.1), 10, 1),
        (Attack("pgd", 0.1, options={"steps": 2, "restarts": 3}), 2, 3),
        (Attack("fgsm", 0.1), 1, 1),
        (Attack("random_noise", 0.1), 1, 1),
    ],
)
def test_rows_count_the_steps_that_the_attack_takes(measure, attack, steps, restarts):
    rows = measure(_brightness_model(), _flat_images([0], [0]), attack)
    assert (rows.steps.item(), rows.restarts.item()) == (steps, restarts)
    assert rows.backwards.item() <= steps * restarts
    assert math.isnan(rows.step_size.item()), "left to the attack"


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
@pytest.mark.parametrize("name", ["fgsm", "pgd", "random_noise"])
def test_rows_fit_the_schema_and_themselves(measure, threat, name):
    model = _small_model()
    attack = Attack(name, 16 / 255, threat, options={"steps": 2} if name == "pgd" else {})
    rows = measure(model, _right_answers(model), attack, batch_size=5)
    assert list(results.check_rows(rows).columns) == list(results.ROW_COLUMNS)
    assert rows.clean_correct.tolist() == [False, True, True, True] * 3
    assert (rows.linf <= 16 / 255 + 1e-6).all() and (rows.l2 >= rows.linf).all()
    assert (rows.success == (rows.first_successful_step >= 0)).all()
    assert (rows.loss[rows.success] >= math.log(2) - 1e-6).all(), "the label has at most half of the probability"
    assert (rows.loss[~rows.success] <= math.log(3) + 1e-6).all(), "the label has at least a third of it"
    if threat.batch_norm == "eval":
        wrong = rows[~rows.clean_correct]
        assert wrong.success.all() and (wrong.first_successful_step == 0).all() and (wrong.linf == 0).all()
    if name != "random_noise":
        assert rows.backwards.max() > 0
    assert model.encoder.gradient == "straight_through"


def test_rows_that_do_not_fit_the_schema_are_not_stored(measure, monkeypatch, home):
    conditions = attacked._conditions
    monkeypatch.setattr(attacked, "_conditions", lambda *given: {**conditions(*given), "eps": "large"})
    with pytest.raises(InputError, match="does not fit its columns"):
        measure(_brightness_model(), _flat_images([0], [0]), Attack("fgsm", 0.1))
    assert not list(home.rglob("*.parquet"))


def test_clean_answers_do_not_depend_on_the_mode_of_the_model(measure):
    model = _small_model()
    image_set = _right_answers(model)
    model.train()
    rows = measure(model, image_set, Attack("random_noise", 0.0, AUTHORS))
    assert rows.clean_correct.tolist() == [False, True, True, True] * 3
    assert rows.success.tolist() == (~rows.clean_correct).tolist(), "scored in eval mode, at eps 0"
    assert all(module.training for module in model.modules())


BRIEF_PGD = Attack("pgd", 0.05, options={"steps": 2, "step_size": 0.01})


@pytest.mark.parametrize("attack", [Attack("random_noise", 0.2), BRIEF_PGD], ids=lambda attack: attack.name)
def test_batches_change_no_row_on_images_and_do_not_name_the_result(wrap, calls, attack):
    model = _small_model(spiking=False)
    images = _right_answers(model)
    whole = attack_rows(wrap(model, images, key="one"), attack, images, batch_size=12)
    parts = attack_rows(wrap(model, images, key="two"), attack, images, batch_size=5)
    pd.testing.assert_frame_equal(whole.assign(run=""), parts.assign(run=""), rtol=1e-4)
    assert calls["rows"] == 2
    attack_rows(wrap(model, images, key="one"), attack, images, batch_size=7)
    assert calls["rows"] == 2
    other = attack_rows(wrap(model, images, seed=1, key="three"), attack, images, batch_size=12)
    assert (other.loss != whole.loss).any(), "the seed draws the noise"


def test_batches_name_the_result_where_batch_norm_looks_at_them(wrap, calls):
    model = _small_model()
    images = _right_answers(model)
    for size in (12, 5, 12):
        attack_rows(wrap(model, images), Attack("fgsm", 0.1, AUTHORS), images, batch_size=size)
    assert calls["rows"] == 2


def test_rows_of_chosen_samples_are_their_rows_among_all(measure):
    model = _small_model()
    images = _right_answers(model)
    attack = replace(BRIEF_PGD, threat=ENCODED)
    whole, some = measure(model, images, attack), measure(model, images, attack, samples=[1, 7, 10], batch_size=2)
    assert some["sample"].tolist() == [1, 7, 10] and some.label.tolist() == images.labels[[1, 7, 10]].tolist()
    wanted = whole[whole["sample"].isin([1, 7, 10])].reset_index(drop=True)
    exact = ["clean_correct", "success", "first_successful_step", "forwards", "backwards"]
    pd.testing.assert_frame_equal(some[exact], wanted[exact])


def test_a_random_network_gives_the_rows_of_every_attack_the_same_clean_answers(measure):
    images = _flat_images([128] * 40, [1] * 40)
    some = list(range(3, 40, 5))
    answers = [
        measure(_brightness_model("poisson"), images, Attack("random_noise", eps), **more)[["sample", "clean_correct"]]
        for eps, more in ((0.1, {}), (0.2, {}), (0.2, {"samples": some}))
    ]
    assert 5 < answers[0].clean_correct.sum() < 35
    pd.testing.assert_frame_equal(answers[0], answers[1])
    assert answers[2].clean_correct.tolist() == answers[0].clean_correct[some].tolist()


def test_the_label_of_a_network_is_shown_and_names_nothing(wrap, calls):
    images = _flat_images([0, 200], [0, 1])
    first, second = (
        attack_rows(wrap(_brightness_model(), images, label=label), Attack("fgsm", 0.1), images, batch_size=2)
        for label in ("old words", "new words")
    )
    assert calls["rows"] == 1 and set(first.model) == {"old words"} and set(second.model) == {"new words"}


def test_rows_say_of_which_split_they_are_and_are_named_by_it(wrap, calls):
    images = _flat_images([0, 200], [0, 1])
    network = wrap(_brightness_model(), images)
    test, validation = (
        attack_rows(network, Attack("fgsm", 0.1), images, batch_size=2, **options)
        for options in ({}, {"split": "validation"})
    )
    assert calls["rows"] == 2 and set(test.split) == {"test"} and set(validation.split) == {"validation"}
    pd.testing.assert_frame_equal(test.drop(columns="split"), validation.drop(columns="split"))


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
def test_the_callers_model_stays_as_it_was(measure, threat):
    model = _small_model()
    before = _state(model)
    measure(model, _right_answers(model), Attack("fgsm", 0.1, threat), batch_size=4)
    assert _same(_state(model), before)
    assert not model.training and all(weight.requires_grad for weight in model.parameters())


def test_statistics_drift_from_batch_to_batch_when_the_threat_model_keeps_them(measure):
    model, attack = _small_model(), Attack("fgsm", 0.1, AUTHORS_DRIFTING)
    image_set = _right_answers(model)
    rows = measure(model, image_set, attack, batch_size=4)
    drifting, wanted = copy.deepcopy(model), []
    for start in (0, 4, 8):
        images, labels = image_set.batch(slice(start, start + 4)), image_set.labels[start : start + 4]
        wanted.append(run_attack(drifting, images, labels, attack).loss)
    np.testing.assert_allclose(rows.loss, torch.cat(wanted), rtol=1e-5)
    assert not _same(_state(drifting), _state(model)), "run_attack leaves the drift in the model that it is given"
    alone = run_attack(copy.deepcopy(model), images, labels, attack).loss
    assert not torch.allclose(alone, wanted[-1], rtol=1e-3), "the last batch feels the ones before it"


def test_encoder_gradient_is_the_threat_models_inside_and_comes_back(monkeypatch):
    model, seen, images = _small_model(), [], torch.rand(1, 3, 16, 16)

    def spy(model, *_, **__):
        seen.append(model.encoder.gradient)
        raise ArithmeticError("inside")

    monkeypatch.setitem(attacked.RUNNERS, "spy", spy)
    for threat in (IMAGE, IMAGE_SMOOTH, ENCODED):
        model.encoder.gradient = "none"
        with pytest.raises(ArithmeticError):
            run_attack(model, images, torch.tensor([0]), Attack("spy", 0.1, threat))
        assert model.encoder.gradient == "none"
    assert seen == ["straight_through", "smooth", "none"]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("threat", [IMAGE, IMAGE_SMOOTH, ENCODED], ids=lambda threat: threat.name)
def test_rows_name_the_gradient_that_crossed_the_encoder(measure, encoder, threat):
    model = _brightness_model(encoder)
    wanted = "exact" if encoder == "direct" else "smooth" if threat is IMAGE_SMOOTH else "straight_through"
    if threat is IMAGE_SMOOTH and encoder in ("direct", "poisson"):
        with pytest.raises(InputError, match="crosses the encoder by 'smooth'"):
            measure(model, _flat_images([0, 255], [0, 1]), Attack("fgsm", 0.1, threat))
        return
    rows = measure(model, _flat_images([0, 255], [0, 1]), Attack("fgsm", 0.1, threat))
    assert set(rows.encoder_gradient) == {"" if threat is ENCODED else wanted}


def test_rows_name_the_surrogate_that_the_attacker_used(measure):
    model = _small_model(surrogate="sigmoid(slope=4)")
    image_set, attack = _right_answers(model), Attack("fgsm", 0.1, ENCODED)
    own = measure(model, image_set, attack)
    other = measure(model, image_set, replace(attack, gradient="rectangular(width=1)"))
    assert set(own.surrogate) == {"sigmoid(slope=4)"}
    assert set(other.surrogate) == {"rectangular(width=1)"}
    assert (own.loss != other.loss).any()


@pytest.mark.parametrize(
    "change", [{"pool": "average"}, {"keep": 0.3}, {"gradient": "backward_through_rate"}, {"options": {"steps": 2}}]
)
def test_every_field_of_an_attack_reaches_it(measure, change):
    model = _small_model()
    images, attack = _right_answers(model), Attack("pgd", 0.05, options={"steps": 3, "start": "none"})
    assert (measure(model, images, attack).loss != measure(model, images, replace(attack, **change)).loss).any()


def test_an_attack_crafted_elsewhere_says_where_by_its_result_alone(wrap):
    model, source = _small_model(), _small_model(seed=1)
    images = _right_answers(model)
    attack = Attack("transfer", 0.1, options={"steps": 2})
    crafted = [
        attack_rows(wrap(model, images), attack, images, batch_size=12, source=wrap(each, images))
        for each in (source, _small_model(seed=2))
    ]
    assert (crafted[0].loss != crafted[1].loss).any()


def test_predictions_are_those_of_eval_mode_when_the_model_trains():
    model = _small_model()
    expected = model(_small_set().batch(slice(None))).argmax(1)
    before = _state(model)
    model.train()
    assert torch.equal(predictions(model, _small_set(), batch_size=5), expected)
    assert model.training and _same(_state(model), before)


@pytest.mark.parametrize(
    "attack, message",
    [
        (Attack("deepfool", 0.1), "attack is 'deepfool'; expected one of fgsm"),
        (Attack("fgsm", -0.1), "eps is -0.1"),
        (Attack("fgsm", 8), "eps is 8"),
        (Attack("fgsm", 0.1, norm="l1"), "norm is 'l1'"),
        (Attack("pgd", 0.1, options={"steps": 0}), "steps is 0"),
        (Attack("fgsm", 0.1, gradient="tan"), "gradient is 'tan'"),
        (Attack("fgsm", 0.1, options={"steps": 3}), "attack 'fgsm' takes no steps"),
        (Attack("pgd", 0.1, members=("atan",)), "member is 'atan'; expected one of the ensemble's"),
        (Attack("pgd", 0.1, gradient="atan", members=("relu_proxy",)), "attack or members bring theirs"),
    ],
)
def test_one_line_error_when_the_attack_is_wrong(measure, home, attack, message):
    model = _small_model()
    before = _state(model)
    with pytest.raises(InputError, match=message) as error:
        measure(model, _right_answers(model), attack)
    assert "\n" not in str(error.value)
    assert _same(_state(model), before) and model.encoder.gradient == "straight_through"
    assert not list(home.rglob("*.parquet"))
