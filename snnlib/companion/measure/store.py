"""Results that are made once: `@stored` names a table by the arguments of the function that makes it.

The name is a hash of the arguments and of an integer `version`, raised by hand when the function would give other
numbers for the same arguments; the golden rows of `tests/golden` fail when it was forgotten. Source code plays no part
in the name: an expensive result survives the correction of a comment. What made a result is written down beside it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import math
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnlib.companion import paths
from snnlib.companion.measure.provenance import circumstances
from snnlib.companion.measure.rows import read_table, write_rows, write_table
from snnlib.errors import InputError
from snnlib.files import file_lock, sha256_of, write_atomic

NAME_LENGTH = 16


def described(value: object, where: str = "argument") -> Any:
    """`value` in JSON's types, by what it is.

    Plain values are themselves, tuples lists; something with a `key` (a network, an image set) is its key; a dataclass
    is its fields, but for those that have their default: a new option with a default renames nothing.
    Errors: InputError for anything else, and for numbers that are not finite.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} is {value}; expected a finite number")
    if isinstance(value, str | int | float | bool | None):
        return value
    if hasattr(value, "key"):
        return value.key
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = ((field.name, getattr(value, field.name), _default_of(field)) for field in dataclasses.fields(value))
        return {name: described(entry, f"{where}.{name}") for name, entry, default in named if entry != default}
    if isinstance(value, Mapping):
        if wrong := [name for name in value if not isinstance(name, str)]:
            raise InputError(f"{where} has the key {wrong[0]!r}; expected only strings as keys")
        return {name: described(entry, f"{where}.{name}") for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [described(entry, f"{where}[{place}]") for place, entry in enumerate(value)]
    raise InputError(
        f"{where} is a {type(value).__name__}; expected plain values, dataclasses of them, or something with a key"
    )


def name_of(config: Mapping) -> str:
    """First 16 hex digits of the SHA-256 of `described(config)` as JSON with sorted keys."""
    text = json.dumps(described(config, "config"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:NAME_LENGTH]


@dataclass(frozen=True)
class Artifact:
    """One result: `artifacts/<kind>/<name><suffix>`, and `<name>.json` that says what it is, when it is complete."""

    kind: str
    arguments: dict
    version: int = 1

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", self.kind):
            raise InputError(f"artifact kind {self.kind!r}; expected lower-case letters, digits and underscores")

    @functools.cached_property
    def name(self) -> str:
        return name_of({"version": self.version, "arguments": self.arguments})

    def path(self, suffix: str) -> Path:
        """Where the result lies; asking writes nothing."""
        return paths.ARTIFACTS / self.kind / f"{self.name}{suffix}"

    def lock(self) -> AbstractContextManager[None]:
        """Held while the result is made, by one process; the others wait, however long that takes."""
        return file_lock(paths.ARTIFACTS / "locks" / f"{self.kind}-{self.name}", wait_seconds=math.inf)

    def complete(self, module: str, seconds: float, *suffixes: str) -> None:
        """Write what the result is, what made it (`circumstances` of `module`) and the digests of its files."""
        self.sign({**circumstances(module), "seconds": round(seconds, 2)}, *suffixes)

    def sign(self, made: dict, *suffixes: str) -> None:
        """`complete`, by what made it: here, or where its files come from."""
        record = {
            "kind": self.kind,
            "version": self.version,
            "arguments": described(self.arguments),
            "made": made,
            "sha256": {suffix: sha256_of(self.path(suffix)) for suffix in suffixes},
        }
        signed = {**record, "digest": name_of(record)}
        write_atomic(self.path(".json"), json.dumps(signed, indent=1, sort_keys=True) + "\n")

    def record(self) -> dict | None:
        """What `complete` wrote; None where it is missing or damaged: then the result counts as not there."""
        return read_record(self.path(".json"))

    def is_whole(self) -> bool:
        """Whether every file of the result is there with the bytes that were written."""
        record = self.record()
        if record is None:
            return False
        digests = record["sha256"].items()
        return all(self.path(end).is_file() and sha256_of(self.path(end)) == digest for end, digest in digests)


@dataclass(frozen=True)
class Format:
    """How a result is kept: suffix, and functions `write(path, value)` and `read(path) -> value`."""

    suffix: str
    write: Callable[[Path, Any], object]
    read: Callable[[Path], Any]


TABLE = Format(".parquet", write_table, read_table)
ROWS = Format(".parquet", write_rows, read_table)
"""Tables of `snnlib.companion.measure.rows.ROW_SCHEMA`, which is checked when they are stored."""
used: dict[str, dict] = {}
"""What this process has read or made: "kind/name" -> what made it, for the provenance of figures and `--list`."""
used_networks: dict[str, list[dict]] = {}
"""The trained networks that this process has taken or made: key -> what each epoch of its training gave."""


def stored(
    kind: str, *, version: int = 1, form: Format = TABLE, unnamed: tuple[str, ...] = ()
) -> Callable[[Callable], Callable]:
    """Decorate a function that makes a result: the first call makes and stores it, later ones read it.

    Arguments as `described` takes them name the result, but for those that have their default and those `unnamed`
    (which change how it is made, not what it is). What draws from PyTorch's global generators, such as a Poisson
    encoder, draws what the name says, whatever ran before. The answer always comes from disk, so that a first and a
    second call see the same types. A result that is damaged, or was cut short by a kill, is made anew.
    """

    def decorate(make: Callable) -> Callable:
        signature = inspect.signature(make)

        def artifact(*positional, **named) -> Artifact:
            given = signature.bind(*positional, **named).arguments
            kept = {
                name: value
                for name, value in given.items()
                if name not in unnamed and not _same(value, signature.parameters[name].default)
            }
            return Artifact(kind, kept, version)

        def make_it(result: Artifact, *positional, **named) -> None:
            import torch  # which a list of results does not need

            from snnlib.runtime import default_device
            from snnlib.training.randomness import global_randomness_at

            if result.record() is not None:
                print(f"{result.path(form.suffix)} is damaged or missing; it is made anew", file=sys.stderr)
            started = time.monotonic()
            with global_randomness_at(torch.device(default_device()), "stored", int(result.name, 16)):
                form.write(result.path(form.suffix), make(*positional, **named))
            result.complete(make.__module__, time.monotonic() - started, form.suffix)

        @functools.wraps(make)
        def load_or_make(*positional, **named) -> Any:
            result = artifact(*positional, **named)
            if not result.is_whole():
                with result.lock():
                    if not result.is_whole():  # another process may have made it meanwhile
                        make_it(result, *positional, **named)
            note_use(result)
            return form.read(result.path(form.suffix))

        load_or_make.artifact, load_or_make.version = artifact, version
        return load_or_make

    return decorate


def read_json(path: Path) -> dict | None:
    """The object in a JSON file; None where the file is missing or damaged, which count alike: as not there."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_record(path: Path) -> dict | None:
    """What `Artifact.complete` wrote; None where it is missing or one bit of it has changed."""
    record = read_json(path) or {}
    digest = record.pop("digest", None)
    try:
        return record if digest == name_of(record) else None
    except InputError:  # damaged into a number that is not finite
        return None


def note_use(artifact: Artifact) -> None:
    """Remember that this process used a result."""
    used[f"{artifact.kind}/{artifact.name}"] = artifact.record()["made"]


def _same(value: object, default: object) -> bool:
    return default is not inspect.Parameter.empty and type(value) is type(default) and value == default


def _default_of(field: dataclasses.Field) -> object:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
