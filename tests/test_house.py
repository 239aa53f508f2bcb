"""The house keeps its order: who may import whom, no circles, and nothing happens to who only imports."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import snnlib

PACKAGE = Path(snnlib.__file__).parent
FLOORS = (
    ("errors",),
    ("checks", "commands", "files", "optional", "progress", "runtime"),
    ("tensor_files",),
    ("neurons",),
    ("encoding",),
    ("models", "data"),
    ("attacks",),
    ("training", "wrap"),
    ("sparsity", "energy", "conversion"),
    ("theory",),
    ("audit",),
    ("bench",),
    ("companion.paths", "companion.published"),
    ("companion.sizes",),
    ("companion.measure",),
    ("companion.luu2025", "companion.ozdenizci2024"),
    ("companion.ours",),
    ("companion.verdicts",),
    ("companion.report",),
    ("companion.runner", "companion.reproduce"),
)
"""Each room imports from the floors below its own, and from itself."""
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def _module_of(path: Path) -> str:
    parts = ("snnlib", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PACKAGES = ("snnlib", "snnlib.companion")
"""They hold rooms and are none."""
CONVENIENCE = {"snnlib.audit.report": {"snnlib.audit.page", "snnlib.audit.pictures", "snnlib.audit.reading"}}
"""A report saves itself as a page, draws and prints itself, all made of reports: imported when called, the only ones of
their kind."""


def _room(module: str) -> str:
    parts = module.split(".")[1:]
    return ".".join(parts[: 2 if parts[0] == "companion" else 1])


@functools.cache
def _imports(module: str) -> dict[str, int]:
    """Every module of the package that a module imports, at its top or in a function, and the line where.

    What only type checkers import does not count.
    """
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in whole]
        else:
            continue
        found |= {name: node.lineno for name in names if name.split(".")[0] == "snnlib"}
    return found


def _violations(allowed) -> list[str]:
    return [
        f"{MODULES[module].relative_to(PACKAGE.parent)}:{line} imports {name}"
        for module in MODULES
        if module not in PACKAGES
        for name, line in _imports(module).items()
        if name != "snnlib" and not allowed(_room(module), _room(name))
    ]


def test_every_module_has_its_floor():
    assert {_room(module) for module in MODULES if module not in PACKAGES} == set(FLOOR)


def test_the_library_imports_neither_the_companion_nor_the_bench():
    def is_library(room: str) -> bool:
        return FLOOR[room] < FLOOR["bench"]

    assert not _violations(lambda room, other: is_library(other) or not is_library(room))


def test_imports_lead_down():
    assert not _violations(lambda room, other: room == other or FLOOR[other] < FLOOR[room])


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: set(_imports(module)) - {module} - CONVENIENCE.get(module, set()) for module in MODULES}
    assert set(TopologicalSorter(graph).static_order()) >= set(MODULES)


def _child(code: str) -> str:
    ours = ("SNNLIB_", "OMP_", "GOMP_", "CUBLAS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def test_the_face_names_the_subpackages_and_loads_none_of_them():
    names = _child("import sys, snnlib; print(*dir(snnlib)); assert not {'torch', 'numpy'} & set(sys.modules)").split()
    rooms = {room for room in FLOOR if (PACKAGE / room / "__init__.py").is_file() and FLOOR[room] < FLOOR["bench"]}
    assert rooms | {"encoding", "energy", "runtime", "__version__"} == set(names)


def test_the_face_gives_what_the_readme_uses():
    code = """
from snnlib import attacks, audit
import snnlib
print(*map(callable, (audit.audit, attacks.ensemble_attack, attacks.adaptive_ensemble)), snnlib.models.__name__)
"""
    assert _child(code) == "True True True snnlib.models"


def test_an_unknown_name_is_said_to_be_unknown():
    with pytest.raises(AttributeError, match="snnlib has no 'atacks'; it has attacks, "):
        _ = snnlib.atacks


STATE = """
import importlib, os, random, signal, sys, warnings
import numpy as np
import torch

torch.set_num_threads(3)

def state():
    return {
        "threads": torch.get_num_threads(),
        "environment": dict(os.environ),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32),
        "dtype": torch.get_default_dtype(),
        "draws": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),
        "place": (os.getcwd(), sorted(os.listdir())),
        "handlers": (signal.getsignal(signal.SIGINT), sys.excepthook),
        "modes": (torch.is_grad_enabled(), np.geterr()),
    }

before = state()
for name in NAMES:
    importlib.import_module(name)
after = state()
print([key for key in before if before[key] != after[key]])
"""


def test_importing_all_of_the_library_changes_nothing_in_the_process():
    names = [
        module
        for module in MODULES
        if module not in PACKAGES and FLOOR[_room(module)] < FLOOR["bench"] and not module.endswith("__main__")
    ]
    assert len(names) > 100
    assert _child(f"NAMES = {names!r}\n{STATE}") == "[]"
