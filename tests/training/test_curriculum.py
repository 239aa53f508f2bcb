"""Numbers that rise while training: where they stand, what is put back, and what is refused."""

from __future__ import annotations

import pytest
import torch

from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.training import Recipe, fit
from snnlib.training.curriculum import running_for, stage_at
from snnlib.training.deflation import deflate_gradients, deflated
from snnlib.training.inner_attack import build_attack

ATTACK = {"name": "pgd", "eps": 0.1, "steps": 5}


def test_numbers_go_from_their_first_value_to_the_recipes_own():
    curriculum = {"first": {"eps": 0.0, "steps": 1, "time_steps": 2, "weight": 4.0}, "over": 0.5}
    parameters = {"weight": 2.0, "h": 0.01}
    begun, half, done = (stage_at(curriculum, ATTACK, parameters, 8, share) for share in (0.0, 0.25, 0.5))
    assert begun.attack == {"name": "pgd", "eps": 0.0, "steps": 1} and begun.time_steps == 2
    assert half.attack == {"name": "pgd", "eps": 0.05, "steps": 3} and half.time_steps == 5
    assert half.objective_parameters == {"weight": 3.0, "h": 0.01}
    assert done.attack == ATTACK and done.time_steps == 8 and done.objective_parameters == parameters


def test_a_cosine_is_slow_at_both_ends():
    curriculum = {"first": {"weight": 0.0}, "ramp": "cosine"}
    stages = [stage_at(curriculum, None, {"weight": 1.0}, None, share) for share in (0.0, 0.25, 0.5, 1.0)]
    assert [stage.objective_parameters["weight"] for stage in stages] == pytest.approx([0.0, 0.1464466, 0.5, 1.0])


def test_the_model_has_its_own_time_steps_back_also_after_an_error():
    model = build_model("vgg11", 10, 4, width=4, seed=0)
    with pytest.raises(ZeroDivisionError), running_for(model, 2):
        assert model.encoder(torch.rand(1, 3, 32, 32)).shape[0] == 2
        raise ZeroDivisionError
    assert model.encoder.time_steps == 4


def test_training_goes_through_the_stages_and_ends_with_the_recipes_numbers(tiny, tmp_path, monkeypatch):
    seen = []

    def watched(attack, seed):
        seen.append(attack["eps"])
        return build_attack(attack, seed)

    monkeypatch.setattr("snnlib.training.epoch.build_attack", watched)
    recipe = Recipe(
        epochs=2, batch_size=25, objective="adversarial", attack=ATTACK, curriculum={"first": {"eps": 0.01}}
    )
    fit(tiny.make_model(), tiny.make_splits(), recipe, directory=tmp_path)
    assert seen == pytest.approx([0.01, 0.04, 0.07, 0.1])


@pytest.mark.parametrize(
    ("curriculum", "message"),
    [
        ({"begin": {}}, "curriculum has the key 'begin'"),
        ({"first": {"eps": 0.0}, "ramp": "steep"}, "ramp of the curriculum is 'steep'"),
        ({"first": {"eps": 0.0}, "over": 1.5}, "over of the curriculum is 1.5"),
        ({"first": {"eps": -1.0}}, "eps of the curriculum is -1.0"),
        ({"first": {"weight": 0.0}}, "begins 'weight', which has no last value"),
    ],
)
def test_one_line_error_when_a_curriculum_does_not_fit(curriculum, message):
    with pytest.raises(InputError, match=message) as caught:
        Recipe(epochs=1, objective="adversarial", attack=ATTACK, curriculum=curriculum)
    assert "\n" not in str(caught.value)


def test_input_error_when_a_model_without_encoder_is_to_run_for_fewer_steps(tiny, tmp_path):
    recipe = Recipe(epochs=1, batch_size=25, curriculum={"first": {"time_steps": 1}})
    with pytest.raises(InputError, match="no encoder of snnlib"):
        fit(tiny.make_model(), tiny.make_splits(), recipe, directory=tmp_path)


def test_one_surrogate_of_several_is_drawn_by_the_seed(monkeypatch):
    names = ["rectangular(width=1)", "hart", "piecewise_linear(width=2)"]
    drawn = []

    def watched(model, images, labels, budget, *, gradient=None, generator=None):
        drawn.append(gradient.name)
        return type("Found", (), {"adversarial": images})

    monkeypatch.setitem(__import__("snnlib.attacks", fromlist=["ATTACKS"]).ATTACKS, "watched", watched)
    for seed in (*range(40), 7):
        build_attack({"name": "watched", "eps": 0.1, "gradient": names}, seed)(None, torch.zeros(1), None)
    assert len(set(drawn)) == 3 and drawn[-1] == drawn[7]


@pytest.mark.parametrize("gradient", [[], 3, ["hart", 3]])
def test_input_error_when_the_surrogates_are_no_names(gradient):
    with pytest.raises(InputError, match="expected a name such as 'hart', or a list of names"):
        build_attack({"name": "fgsm", "eps": 0.1, "gradient": gradient}, 0)


@pytest.mark.parametrize("shape", [(4, 7), (7, 4)])
def test_deflation_takes_the_first_singular_pair_and_nothing_else(shape):
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(matrix)
    assert torch.allclose(torch.linalg.svdvals(deflated(matrix))[:3], values[1:])
    assert (matrix * deflated(matrix)).sum().item() == pytest.approx((values[1:] ** 2).sum().item())


def test_gradients_of_biases_stay(tiny):
    model = tiny.make_model()
    model(tiny.make_set(4, 0).batch(slice(None))).sum().backward()
    bias, weight = model.conv.bias.grad.clone(), model.conv.weight.grad.clone()
    deflate_gradients(model)
    assert torch.equal(model.conv.bias.grad, bias) and not torch.equal(model.conv.weight.grad, weight)
