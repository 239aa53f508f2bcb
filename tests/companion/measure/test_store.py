from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from snnlib.companion import paths
from snnlib.companion.measure import store as cache
from snnlib.companion.measure.store import Artifact, code_digest, config_hash, load_or_make_rows
from snnlib.errors import InputError


def test_hash_is_sha256_of_canonical_json() -> None:
    expected = hashlib.sha256(b'{"a":[1,2.5],"b":{"c":null}}').hexdigest()[:16]
    assert config_hash({"b": {"c": None}, "a": (1, 2.5)}) == expected


def test_hash_differs_when_a_value_or_its_type_differs() -> None:
    configs = [{"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": None}, {"a": [1]}, {"b": 1}]
    assert len({config_hash(config) for config in configs}) == len(configs)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model": {"width": np.int64(3)}}, r"config\.model\.width is a int64"),
        ({"eps": [0.1, float("nan")]}, r"config\.eps\[1\] is nan"),
        ({"path": Path("x")}, r"config\.path is a PosixPath"),
        ({3: 1}, r"config has the key 3"),
    ],
)
def test_one_line_error_names_the_key_when_value_is_not_plain(config: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        config_hash(config)


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that (re)writes the source of a made-up package `snnlib.made_up` and returns its digest."""
    package = tmp_path / "made_up"
    package.mkdir()
    (package / "__init__.py").write_text("")
    import snnlib

    monkeypatch.setattr(snnlib, "__path__", [*snnlib.__path__, str(tmp_path)])

    def write(source: str) -> str:
        (package / "part.py").write_text(source)
        cache._file_digest.cache_clear()
        return code_digest("snnlib.made_up")

    yield write
    for name in [name for name in sys.modules if name.startswith("snnlib.made_up")]:
        del sys.modules[name]


def test_digest_stays_when_only_prose_changes(write_module) -> None:
    plain = write_module("def f(x):\n    return x + 1\n")
    prose = '"""Module."""\n\n# remark\ndef f(x):\n    """Doc."""\n    return (x +\n        1)  # why\n'
    assert write_module(prose) == plain


def test_digest_changes_when_code_changes(write_module) -> None:
    plain = write_module("def f(x):\n    return x + 1\n")
    assert write_module("def f(x):\n    return x + 2\n") != plain
    assert write_module('def f(x):\n    return x + 1\ntext = "a string that is no docstring"\n') != plain


def test_digest_covers_all_modules_when_name_is_a_package(write_module) -> None:
    write_module("a = 1\n")
    assert code_digest("snnlib.made_up") != code_digest("snnlib.made_up.part")


def test_digest_does_not_depend_on_order_of_names() -> None:
    names = ("snnlib.files", "snnlib.companion.measure.store")
    assert code_digest(*names) == code_digest(*reversed(names))


@pytest.mark.parametrize("name", ["snnlib.no_such_module", "snnlib.files.deeper", "numpy"])
def test_one_line_error_when_module_to_digest_is_unknown(name: str) -> None:
    with pytest.raises(InputError, match=f"{name!r}.*such as 'snnlib.attacks'"):
        code_digest(name)


def test_configuration_lies_beside_the_artifact(home: Path) -> None:
    config = {"width": 8, "eps": [0.0, 0.1]}
    path = Artifact("models", config).path(".safetensors")
    assert path == home / "artifacts" / "models" / f"{config_hash(config)}.safetensors"
    assert json.loads(path.with_suffix(".json").read_text()) == config


def test_one_line_error_when_artifact_kind_is_a_path(home: Path) -> None:
    with pytest.raises(InputError, match="artifact kind '../x'"):
        Artifact("../x", {})


def test_rows_are_made_once_and_equal_when_read_again(home: Path) -> None:
    made = []

    def make() -> pd.DataFrame:
        made.append(1)
        return pd.DataFrame({"layer": ["a", "b"], "zeros": [1, 2], "share": [0.1, np.nan]})

    first = load_or_make_rows("sparsity", {"seed": 1}, make)
    second = load_or_make_rows("sparsity", {"seed": 1}, make)
    load_or_make_rows("sparsity", {"seed": 2}, make)
    assert len(made) == 2
    pd.testing.assert_frame_equal(first, second)


def test_nothing_is_stored_when_making_fails(home: Path) -> None:
    def fail() -> pd.DataFrame:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        load_or_make_rows("sparsity", {"seed": 1}, fail)
    assert not list(paths.ARTIFACTS.rglob("*.parquet"))


def test_one_line_error_when_stored_rows_are_damaged(home: Path) -> None:
    config = {"seed": 1}
    Artifact("sparsity", config).path(".parquet").write_bytes(b"half a file")
    with pytest.raises(InputError, match="is damaged .*delete it and run again"):
        load_or_make_rows("sparsity", config, pd.DataFrame)
