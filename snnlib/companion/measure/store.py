"""Content-addressed artifacts: a result's file name is the hash of the configuration that made it.

Put `code_digest(...)` of the modules that compute a result into its configuration: an edit of their code then
makes a new artifact, an edit of their comments and docstrings does not.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from snnlib.companion import paths
from snnlib.companion.measure.rows import read_table, write_table
from snnlib.errors import InputError
from snnlib.files import write_atomic

HASH_LENGTH = 16


def config_hash(config: dict) -> str:
    """First 16 hex digits of the SHA-256 of the configuration as JSON (sorted keys, tuples as lists).

    Raises InputError, naming the key, on anything but str, int, finite float, bool, None, list, tuple, dict.
    """
    return hashlib.sha256(_canonical_json(config).encode()).hexdigest()[:HASH_LENGTH]


def code_digest(*module_names: str) -> str:
    """Digest (16 hex) of the code of snnlib modules or packages, blind to docstrings, comments and layout.

    A package stands for all its modules. Imports are not followed: name the imported modules too.
    Raises InputError for a module that does not exist.
    """
    digest = hashlib.sha256()
    for name in sorted(set(module_names)):
        for relative, path in _sources_of(name):
            digest.update(f"{relative}\0{_file_digest(path, path.stat().st_mtime_ns)}\0".encode())
    return digest.hexdigest()[:HASH_LENGTH]


@dataclass(frozen=True)
class Artifact:
    """What one configuration made: `artifacts/<kind>/<hash><suffix>`, with one suffix or several."""

    kind: str
    config: dict

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", self.kind):
            raise InputError(
                f"artifact kind {self.kind!r}; expected lower-case letters, digits and underscores"
            )
        _canonical_json(self.config)

    @property
    def hash(self) -> str:
        return config_hash(self.config)

    def path(self, suffix: str) -> Path:
        """Path of the artifact; its folder exists and its configuration lies beside it as `<hash>.json`."""
        folder = paths.ARTIFACTS / self.kind
        described = folder / f"{self.hash}.json"
        if not described.is_file():
            write_atomic(
                described,
                json.dumps(json.loads(_canonical_json(self.config)), indent=1, sort_keys=True) + "\n",
            )
        return folder / f"{self.hash}{suffix}"


def load_or_make_rows(kind: str, config: dict, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Return the table stored for `config`; where there is none, `make()` it and store it first.

    The table always comes from disk, so a first and a second run see the same column types.
    """
    path = Artifact(kind, config).path(".parquet")
    if not path.is_file():
        write_table(path, make())
    return read_table(path)


def _canonical_json(config: dict) -> str:
    _check_plain(config, "config")
    return json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _check_plain(value: object, key: str) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise InputError(f"{key} has the key {name!r}; expected only strings as keys")
            _check_plain(inner, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check_plain(inner, f"{key}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{key} is {value}; expected a finite number")
    elif not isinstance(value, str | int | float | bool | None):
        raise InputError(
            f"{key} is a {type(value).__name__}; expected str, int, float, bool, None, list or dict"
        )


def _sources_of(name: str) -> list[tuple[str, Path]]:
    if name.split(".")[0] != "snnlib":
        raise InputError(f"cannot digest {name!r}; expected a module of snnlib, such as 'snnlib.attacks'")
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise InputError(
            f"module {name!r} does not exist; expected a module of snnlib, such as 'snnlib.attacks'"
        )
    origin = Path(spec.origin)
    if spec.submodule_search_locations is None:
        return [(name, origin)]
    return [
        (f"{name}/{path.relative_to(origin.parent).as_posix()}", path)
        for path in sorted(origin.parent.rglob("*.py"))
    ]


@functools.cache
def _file_digest(path: Path, modified_ns: int) -> str:
    """Digest of one source file; `modified_ns` keeps the cached answer true after an edit."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
        ):
            del node.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
