from __future__ import annotations

import pytest

from snnlib.companion import paths
from snnlib.companion.runner.series import convert_setting, load_notebook, load_series, read_parameters
from snnlib.errors import InputError


def test_notebooks_come_by_number_and_other_files_are_none(add_notebook) -> None:
    for name in ("12_c", "10_a", "99_all", "11_b"):
        add_notebook(name)
    (paths.NOTEBOOKS / "13_Draft.ipynb").write_text("{}")
    assert list(load_series(paths.NOTEBOOKS)) == ["10", "11", "12", "99"]


def test_title_and_typed_parameters_are_read_without_running(add_notebook) -> None:
    path = add_notebook(
        "10_a", "1 / 0", parameters='eps: float = 0.1  # pixel units\nnames = ["a"]\ndata_dir = None'
    )
    notebook = load_notebook(path)
    assert notebook.title == "Title of 10_a"
    assert notebook.parameters == {"profile": "quick", "eps": 0.1, "names": ["a"], "data_dir": None}


def test_code_hash_changes_with_code_and_not_with_prose(add_notebook) -> None:
    plain = load_notebook(add_notebook("10_a", "x = 1")).code_hash
    assert load_notebook(add_notebook("10_a", "x = 1", prose="more")).code_hash == plain
    assert load_notebook(add_notebook("10_a", "x = 2")).code_hash != plain
    assert load_notebook(add_notebook("10_a", "x =", "1")).code_hash != plain


def test_one_line_error_when_there_is_no_notebook_or_two_share_a_number(add_notebook) -> None:
    with pytest.raises(InputError, match="no notebooks in .*; set SNNLIB_HOME to a checkout"):
        load_series(paths.NOTEBOOKS)
    add_notebook("10_a")
    add_notebook("10_b")
    with pytest.raises(InputError, match="10_a.ipynb and 10_b.ipynb share the number 10") as caught:
        load_series(paths.NOTEBOOKS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["eps = 8 / 255", "import os", "a = b = 1", "x = (1, 2)", "eps: float", "eps ="]
)
def test_one_line_error_when_parameter_is_not_plain(line: str) -> None:
    with pytest.raises(InputError, match="the parameters cell of here has more than") as caught:
        read_parameters(f'profile = "quick"\n{line}', "here")
    assert "\n" not in str(caught.value)


def test_one_line_error_when_profile_is_not_the_first_parameter(add_notebook) -> None:
    path = add_notebook("10_a")
    path.write_text(path.read_text().replace("profile = ", "size = "))
    with pytest.raises(InputError, match="the first parameter of 10_a.ipynb is 'size'"):
        load_notebook(path)


def test_one_line_error_when_file_is_not_a_notebook(home) -> None:
    (home / "notebooks").mkdir()
    for text in ("{half", "[]", '{"cells": [{}]}'):
        (home / "notebooks" / "10_a.ipynb").write_text(text)
        with pytest.raises(InputError, match="10_a.ipynb is not a notebook"):
            load_series(home / "notebooks")


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("3", 1, 3), ("0.5", 1.0, 0.5), ("3", 1.0, 3.0), ("a=b", "x", "a=b"), ("True", False, True),
        ("[1, 2]", [], [1, 2]), ("3", None, 3), ("some/folder", None, "some/folder"),
    ],
)  # fmt: skip
def test_setting_takes_the_type_of_the_default(text: str, default: object, value: object) -> None:
    converted = convert_setting(text, default, "x")
    assert converted == value and type(converted) is type(value)


@pytest.mark.parametrize(
    ("text", "default"), [("x", 1), ("1.5", 1), ("x", 1.0), ("1", True), ("3", [1]), ("[1", [1])]
)
def test_one_line_error_when_setting_has_another_type(text: str, default: object) -> None:
    with pytest.raises(InputError, match=f"parameter size is .*expected {type(default).__name__}"):
        convert_setting(text, default, "size")
