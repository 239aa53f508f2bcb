"""The numbered notebooks as data: title, code and parameters. They run by number, and each makes what it needs."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnlib.errors import InputError

FILE_PATTERN = re.compile(r"(\d\d)_[a-z0-9_]+\.ipynb")


@dataclass(frozen=True)
class Notebook:
    """One notebook of the series, read from its file without running anything."""

    number: str
    path: Path
    title: str
    parameters: dict[str, Any]
    code: str

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def code_hash(self) -> str:
        """SHA-256 of the code cells: blind to prose and to stored outputs."""
        return hashlib.sha256(self.code.encode()).hexdigest()


def load_series(folder: Path) -> dict[str, Notebook]:
    """All notebooks `NN_name.ipynb` of a folder by number.

    Raises InputError on no notebooks, a doubled number, a bad parameters cell.
    """
    found = [path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")) if FILE_PATTERN.fullmatch(path.name)]
    if not found:
        raise InputError(f"no notebooks in {folder}; set SNNLIB_HOME to a checkout, which has a folder `notebooks`")
    series: dict[str, Notebook] = {}
    for path in found:
        notebook = load_notebook(path)
        if notebook.number in series:
            other = series[notebook.number].path.name
            raise InputError(
                f"{other} and {path.name} share the number {notebook.number}; rename one of them"
            )
        series[notebook.number] = notebook
    return series


def load_notebook(path: Path) -> Notebook:
    """Read one notebook. Raises InputError when it is not a notebook or has no usable parameters cell."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        cells = [(cell["cell_type"], cell_text(cell), cell.get("metadata", {})) for cell in document["cells"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a notebook ({type(error).__name__}: {error}); restore the file"
        ) from error
    tagged = [
        text for kind, text, metadata in cells if kind == "code" and "parameters" in metadata.get("tags", [])
    ]
    if len(tagged) != 1:
        raise InputError(f"{path.name} has {len(tagged)} cells tagged 'parameters'; expected exactly one")
    parameters = read_parameters(tagged[0], path.name)
    if next(iter(parameters), None) != "profile":
        raise InputError(
            f"the first parameter of {path.name} is {next(iter(parameters), None)!r}; expected 'profile'"
        )
    headings = [
        line
        for kind, text, _ in cells
        if kind == "markdown"
        for line in text.splitlines()
        if line[:2] == "# "
    ]
    return Notebook(
        number=path.name[:2],
        path=path,
        title=headings[0].removeprefix("# ").strip() if headings else path.stem,
        parameters=parameters,
        code="\n\0\n".join(text for kind, text, _ in cells if kind == "code"),
    )


def read_parameters(source: str, where: str) -> dict[str, Any]:
    """Name -> default value, from a parameters cell. Raises InputError unless each line is `name = value`."""
    parameters = {}
    try:
        for statement in ast.parse(source).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    parameters[name] = ast.literal_eval(statement.value)
                case _:
                    raise ValueError(ast.unparse(statement))
            if type(parameters[name]) not in SETTING_READERS:
                raise ValueError(ast.unparse(statement))
    except (SyntaxError, ValueError) as error:
        raise InputError(
            f"the parameters cell of {where} has more than `name = plain value`: {error}"
        ) from error
    return parameters


def convert_setting(text: str, default: object, name: str) -> Any:
    """The text of `--set name=text` in the type of the default. Raises InputError where it does not fit."""
    try:
        return SETTING_READERS[type(default)](text)
    except (ValueError, SyntaxError):
        expected = type(default).__name__
        raise InputError(f"parameter {name} is {text!r}; expected {expected}, such as {default!r}") from None


def _read_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _read_list(text: str) -> list[Any]:
    value = ast.literal_eval(text)
    if not isinstance(value, list):
        raise ValueError(text)
    return value


def _read_anything(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


SETTING_READERS: dict[type, Callable[[str], Any]] = {
    bool: _read_bool,
    int: int,
    float: float,
    str: str,
    list: _read_list,
    type(None): _read_anything,
}


def cell_text(cell: dict[str, Any]) -> str:
    """Source of a notebook cell, which the format stores as one string or as a list of lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)
