"""Fixtures that several test files share."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from snnlib.companion import paths
from snnlib.companion.measure import store
from snnlib.runtime import apply_process_settings

REPOSITORY = Path(__file__).resolve().parent.parent
apply_process_settings()


def _module(path: Path) -> ModuleType:
    name = f"snnlib_tests_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """`training/tiny.py`: the tiny run, as a module."""
    return _module(REPOSITORY / "tests" / "training" / "tiny.py")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A `Browser` of `browser.py`; skips where no Chromium is installed."""
    module = _module(REPOSITORY / "tests" / "browser.py")
    if not any(map(shutil.which, module.PROGRAMS)):
        pytest.skip(f"no browser: none of {', '.join(module.PROGRAMS)} is on the PATH")
    pytest.importorskip("websocket")
    started = module.Browser(tmp_path_factory.mktemp("browser"))
    yield started
    started.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder in place of the repository, for this process and the kernels it starts."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("ROOT", "NOTEBOOKS", "FIGURES", "ARTIFACTS"):
        getattr(paths, name)  # decided at first use: else the folder below would be what is put back
    monkeypatch.setattr(paths, "ROOT", folder)
    for name in ("NOTEBOOKS", "FIGURES", "ARTIFACTS"):
        monkeypatch.setattr(paths, name, folder / name.lower())
    monkeypatch.setattr(store, "used", {})  # what tests before used lies in their folders
    monkeypatch.setenv("SNNLIB_HOME", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("JUPYTER_PATH", "")
    monkeypatch.setenv("SNNLIB_PROGRESS", "off")
    return folder


@pytest.fixture
def add_notebook(home: Path) -> Callable[..., Path]:
    """A function that writes `notebooks/<name>.ipynb`: a title, a parameters cell, the given code cells."""
    import nbformat  # not at the top: the tests for a GPU run where no notebook does
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    def add(name: str, *code: str, parameters: str = "", prose: str = "") -> Path:
        tagged = new_code_cell(f'profile = "quick"\n{parameters}', metadata={"tags": ["parameters"]})
        notebook = new_notebook()
        notebook.cells = [new_markdown_cell(f"# Title of {name}\n{prose}"), tagged, *map(new_code_cell, code)]
        path = home / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, path)
        return path

    return add
