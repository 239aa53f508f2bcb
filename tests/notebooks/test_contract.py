"""What every committed notebook keeps to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from snnlib.companion.runner.series import cell_text, load_notebook, load_series

NOTEBOOKS = Path(__file__).resolve().parent.parent.parent / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
MAXIMUM_CELLS = 25
MACHINE_PATH = re.compile(
    r"(?<![\w.])(/home/|/Users/|/root/|/tmp/|/mnt/|/opt/|/usr/|[A-Z]:\\\\)|site-packages|PosixPath"
)
RECORDS = re.compile(r"\b(claims\.record|figures\.save|figures\.save_table|save_table|record)\(")

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def cells_of(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code_cells_of(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in cells_of(path) if cell["cell_type"] == "code"]


def outputs_of(path: Path) -> list[dict[str, Any]]:
    return [output for cell in code_cells_of(path) for output in cell["outputs"]]


def texts_of(path: Path) -> list[str]:
    """Every text in a notebook that a person can read: sources, streams and the text forms of results."""
    texts = [cell_text(cell) for cell in cells_of(path)]
    for output in outputs_of(path):
        shown = {kind: data for kind, data in output.get("data", {}).items() if not kind.startswith("image/")}
        texts.append(json.dumps([output.get("text"), shown]))
    return texts


def test_series_loads_with_unique_numbers_and_known_needs() -> None:
    series = load_series(NOTEBOOKS)
    assert {notebook.path for notebook in series.values()} == set(PATHS), "a file name is not NN_words.ipynb"


@each_notebook
def test_parameters_are_plain_and_profile_is_quick(path: Path) -> None:
    assert load_notebook(path).parameters["profile"] == "quick"


@each_notebook
def test_it_opens_with_a_title(path: Path) -> None:
    first = cells_of(path)[0]
    assert first["cell_type"] == "markdown" and cell_text(first).startswith("# ")


@each_notebook
def test_it_is_short(path: Path) -> None:
    assert len(cells_of(path)) <= MAXIMUM_CELLS


@each_notebook
def test_cell_ids_are_unique(path: Path) -> None:
    ids = [cell["id"] for cell in cells_of(path)]
    assert len(ids) == len(set(ids))


@each_notebook
def test_no_path_of_a_machine_is_in_it(path: Path) -> None:
    here = str(NOTEBOOKS.parent)
    assert [text[:200] for text in texts_of(path) if MACHINE_PATH.search(text) or here in text] == []


@each_notebook
def test_last_code_cell_records_numbers(path: Path) -> None:
    assert RECORDS.search(cell_text(code_cells_of(path)[-1]))


@each_notebook
def test_outputs_are_all_stored_and_clean_or_none_is(path: Path) -> None:
    """A notebook that has not run since its code changed shows nothing rather than what other code made."""
    ran = [bool(cell["execution_count"]) for cell in code_cells_of(path)]
    assert all(ran) or (not any(ran) and outputs_of(path) == []), "run ./run_all.sh --publish"
    assert [output for output in outputs_of(path) if output["output_type"] == "error"] == []
    assert [output["text"] for output in outputs_of(path) if output.get("name") == "stderr"] == []


@each_notebook
def test_nothing_of_the_runner_is_in_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "injected-parameters" not in text and '"papermill"' not in text
