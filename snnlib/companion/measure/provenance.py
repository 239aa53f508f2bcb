"""What made a result: the code that its maker's module imports, the commit, the device, the versions.

Provenance stands beside a result and never names it. Following imports keeps the code's digest complete without naming
modules by hand, and narrow: an edit of the runner changes nobody's digest.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import snnlib
from snnlib import runtime
from snnlib.companion import paths
from snnlib.errors import InputError
from snnlib.files import write_atomic

DIGEST_LENGTH = 16
MOST_REMEMBERED = 3000
"""Digests of files that are kept from one start to the next: about ten versions of the package."""
_new: list[str] = []
INFRASTRUCTURE = (
    "snnlib",
    "snnlib.companion",
    "snnlib.companion.measure.provenance",
    "snnlib.companion.measure.store",
    "snnlib.companion.paths",
    "snnlib.errors",
    "snnlib.files",
    "snnlib.progress",
    "snnlib.runtime",
)
"""Modules that decide how a result is stored or shown, not what it is."""


def circumstances(module: str) -> dict[str, str | int | None]:
    """What a result that `module` makes in this process is made by: code, commit, device, threads, versions."""
    import torch

    return {
        "module": module,
        "code": code_digest(module),
        "commit": git_commit(),
        "device": runtime.describe_device(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


@functools.cache
def code_digest(module: str) -> str:
    """Digest (16 hex) of a module and all that it imports, blind to docstrings, comments and layout."""
    digest = hashlib.sha256()
    for name in imports_of(module):
        digest.update(f"{name}\0{_normalised(_path(name))}\0".encode())
    _remember()
    return digest.hexdigest()[:DIGEST_LENGTH]


@functools.cache
def package_digest() -> str:
    """Digest of all code of the package and of the data files that come with it."""
    folder = Path(snnlib.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
            content = _normalised(path) if path.suffix == ".py" else hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    _remember()
    return digest.hexdigest()


@functools.cache
def git_commit() -> str | None:
    """The commit of the checkout, "+" behind it where files differ from it; None outside of one."""
    try:
        head, status = (_git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no"))
    except FileNotFoundError:
        return None
    return None if head is None else head + "+" * bool(status)


def _git(*arguments: str) -> str | None:
    answer = subprocess.run(["git", "-C", str(paths.ROOT), *arguments], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def _normalised(path: Path) -> str:
    """A module's syntax tree without docstrings, as a digest."""
    source, known = path.read_bytes(), _known()
    content = hashlib.sha256(source).hexdigest()
    if content not in known:
        tree = ast.parse(source, filename=str(path))
        for node in [tree, *_statements(tree)]:
            kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            if isinstance(node, kinds) and ast.get_docstring(node) is not None:
                del node.body[0]
        known[content] = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
        _new.append(content)
    return known[content]


@functools.cache
def _known() -> dict[str, str]:
    """Digest of a file -> digest of its syntax tree, from the user's cache: taking all anew costs every start a second.

    Python's versions differ in their trees.
    """
    try:
        known = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no cache yet, or a damaged one
        known = None
    return known if isinstance(known, dict) else {}


def _remember() -> None:
    """Write what is new into the user's cache."""
    if _new:
        _new.clear()
        newest = dict(list(_known().items())[-MOST_REMEMBERED:])
        with contextlib.suppress(InputError, OSError):  # nowhere to write: the next start takes its second
            write_atomic(_cache_file(), json.dumps(newest))


def _cache_file() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(folder, "snnlib", f"syntax-trees-{platform.python_version()}.json")


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below, without their expressions, which are many and hold neither imports nor docstrings."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, name, ()):
            yield child
            yield from _statements(child)


def imports_of(*module_names: str) -> tuple[str, ...]:
    """The modules themselves and every snnlib module that they import, directly or not, sorted.

    `from snnlib.package import name` leads to the module from which the package takes `name`, not to the whole
    package, unless the package defines `name` itself (a registry, say): then to all that the package imports.
    Imports inside functions count; names that are looked up while the program runs do not. `INFRASTRUCTURE` is
    neither followed nor named.
    Errors: InputError for a module that does not exist.
    """
    found: set[str] = set()
    waiting = list(module_names)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in INFRASTRUCTURE:
            found.add(name)
            waiting += _direct_imports(name)
    return tuple(sorted(found))


@functools.cache
def _direct_imports(name: str) -> frozenset[str]:
    found = set()
    for node in _statements(_tree(name)):
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
    for node in _statements(_tree(module)):
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
