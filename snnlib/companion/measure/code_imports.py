"""Which snnlib modules a module's results depend on: its imports, theirs, and so on, read from the source.

A result is named by a digest of the code that made it (`code_digest`). Following imports keeps that
digest complete without naming modules by hand, and narrow: a new attack beside the others changes no old result.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import snnlib
from snnlib.errors import InputError

INFRASTRUCTURE = ("snnlib", "snnlib.companion.measure.store", "snnlib.companion.measure.code_imports", "snnlib.errors",
                  "snnlib.files", "snnlib.companion.paths",
                  "snnlib.progress", "snnlib.runtime")  # fmt: skip
"""Modules that decide how a result is stored or shown, not what it is."""


def imports_of(*module_names: str, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The modules themselves and every snnlib module that they import, directly or not, sorted.

    `from snnlib.package import name` leads to the module from which the package takes `name`, not to the whole
    package, unless the package defines `name` itself (a registry, say): then to all that the package imports.
    Imports inside functions count; names that are looked up while the program runs do not. Neither `INFRASTRUCTURE`
    nor the modules `without` are followed or named.
    Errors: InputError for a module that does not exist.
    """
    found: set[str] = set()
    waiting = list(module_names)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in INFRASTRUCTURE and name not in without:
            found.add(name)
            waiting += _direct_imports(name)
    return tuple(sorted(found))


@functools.cache
def _direct_imports(name: str) -> frozenset[str]:
    found = set()
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "snnlib"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "snnlib":
            found |= {_origin(node.module, alias.name) for alias in node.names}
    return frozenset(found)


def _origin(module: str, name: str) -> str:
    """The module that `from module import name` leads to."""
    if _path(f"{module}.{name}") is not None:
        return f"{module}.{name}"
    if _path(module) is None or _path(module).name != "__init__.py":
        return module
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module != module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _origin(node.module, alias.name)
    return module


@functools.cache
def _tree(name: str) -> ast.Module:
    path = _path(name)
    if path is None:
        raise InputError(f"module {name!r} does not exist; expected a module of snnlib, such as 'snnlib.attacks'")
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@functools.cache
def _path(name: str) -> Path | None:
    """The file of a module, found without running it."""
    first, *parts = name.split(".")
    for folder in snnlib.__path__ if first == "snnlib" else ():
        for path in (Path(folder, *parts, "__init__.py"), Path(folder, *parts).with_suffix(".py")):
            if path.is_file():
                return path
    return None
