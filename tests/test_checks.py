"""Values from outside: what is taken, what is refused, and that a refusal is one line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snnlib import checks
from snnlib.errors import InputError
from snnlib.models import build_model

TEXTS = st.text("a1\n\u2028é\0", max_size=200)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.lists(st.integers())


def _refused(call, *arguments, **options) -> str:
    with pytest.raises(InputError) as refusal:
        call(*arguments, **options)
    text = str(refusal.value)
    assert "\n" not in text and "expected" in text
    return text


@pytest.mark.parametrize("value", [True, "3", 3.0, None, 0, [3], float("nan"), np.bool_(True), 1j])
def test_a_count_is_a_whole_number(value):
    assert _refused(checks.whole, "width", value).startswith(f"width is {value!r}; expected a whole number")


def test_numpy_numbers_become_pythons():
    assert type(checks.whole("width", np.int64(3))) is int
    assert type(checks.number("leak", np.float32(0.5))) is float
    assert type(checks.number("leak", 1)) is int


@pytest.mark.parametrize("value", [-1, 2**63, pytest.param(10**5000, id="long"), True, 0.5])
def test_a_seed_fits_into_every_generator(value):
    assert len(_refused(checks.seed, "seed", value)) < 200
    assert checks.seed("seed", 2**63 - 1) == 2**63 - 1


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**400, "1", True, None, -0.1])
def test_a_number_is_finite_and_in_range(value):
    _refused(checks.number, "eps", value, at_least=0)
    assert checks.number("eps", 0, at_least=0) == 0
    assert "above 0" in _refused(checks.number, "eps", 0, above=0)


@pytest.mark.parametrize("value", ["false", 0, 1, None, np.bool_(False)])
def test_a_flag_is_true_or_false(value):
    _refused(checks.flag, "spiking", value)


def test_a_choice_is_one_of_the_names():
    assert checks.choice("norm", "l2", ["linf", "l2"]) == "l2"
    assert "expected one of linf, l2" in _refused(checks.choice, "norm", ["l2"], ["linf", "l2"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"spiking": "false"}, "spiking is 'false'; expected true or false"),
        ({"spiking": 0}, "spiking is 0; expected true or false"),
        ({"width": True}, "width is True; expected a whole number or null"),
        ({"width": 4.0}, "width is 4.0"),
        ({"leak": "1"}, "leak is '1'; expected a finite number"),
        ({"leak": 10**400}, "leak is 1000"),
        ({"name": ["vgg11"]}, "name is .'vgg11'.; expected a text"),
        ({"encoder": {"name": "direct"}}, "encoder is "),
        ({"colour": 1}, "unknown arguments .'colour'."),
    ],
)
def test_arguments_are_checked_by_the_annotations(changed, message):
    good = {"name": "vgg11", "num_classes": 10, "time_steps": 2, "leak": 1, "width": None}
    assert checks.arguments_of(build_model, good, "model.json") == good
    with pytest.raises(InputError, match=f"model.json.*{message}"):
        checks.arguments_of(build_model, {**good, **changed}, "model.json")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["name", "num_classes", "time_steps", "spiking", "leak", "x"]), VALUES))
def test_any_arguments_give_a_dict_or_one_line(given_arguments):
    try:
        assert checks.arguments_of(build_model, given_arguments, "here") == given_arguments
    except InputError as refusal:
        assert "\n" not in str(refusal)
