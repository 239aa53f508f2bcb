"""Results are named by what they are, made once, and never read when they are not what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from snnlib.companion.measure import provenance, store
from snnlib.companion.measure.provenance import code_digest
from snnlib.companion.measure.store import ROWS, Artifact, described, name_of, stored
from snnlib.errors import InputError

NETWORK = SimpleNamespace(key="abc123", label="some words")
FLIPS = 40
MODULE = "snnlib.companion.measure.rows"


@dataclass(frozen=True)
class Size:
    steps: int
    share: float = 0.5
    options: dict = field(default_factory=dict)


def of_the_package(make: Callable) -> Callable:
    """Results are made by modules of the package, whose code stands in their records."""
    make.__module__ = MODULE
    return make


@pytest.fixture
def made(home) -> list[dict]:
    """Arguments of every call that computed something."""
    return []


@pytest.fixture
def measure(made) -> Callable[..., pd.DataFrame]:
    @stored("numbers", unnamed=("batch_size",))
    @of_the_package
    def measured(network, size: Size, batch_size: int = 7, seed: int = 0) -> pd.DataFrame:
        made.append({"size": size, "batch_size": batch_size, "seed": seed})
        return pd.DataFrame({"layer": ["a", "b"], "zeros": [1, seed], "share": [0.1, np.nan]})

    return measured


def versioned(version: int, made: list) -> Callable[[int], pd.DataFrame]:
    @stored("numbers", version=version)
    @of_the_package
    def measured(seed: int) -> pd.DataFrame:
        made.append(version)
        return pd.DataFrame({"version": [version]})

    return measured


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_name_is_sha256_of_canonical_json() -> None:
    expected = hashlib.sha256(b'{"a":[1,2.5],"b":{"c":null}}').hexdigest()[:16]
    assert name_of({"b": {"c": None}, "a": (1, 2.5)}) == expected


def test_name_of_an_artifact_is_that_of_its_version_and_arguments() -> None:
    expected = hashlib.sha256(b'{"arguments":{"network":"abc123","seed":3},"version":2}').hexdigest()[:16]
    assert Artifact("numbers", {"seed": 3, "network": NETWORK}, 2).name == expected


def test_name_differs_when_a_value_or_its_type_differs() -> None:
    configs = [{"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": None}, {"a": [1]}, {"a": Size(1)}, {"b": 1}]
    configs += [{"a": Size(2)}, {"a": Size(1, share=0.25)}, {"a": Size(1, options={"x": 0})}, {"a": {}}]
    assert len({name_of(config) for config in configs}) == len(configs)


def test_name_stays_when_an_option_with_a_default_is_added() -> None:
    longer = make_dataclass("Size", [("steps", int), ("share", float, 0.5), ("new", str, ""), ("more", tuple, ())])
    assert described(longer(3)) == described(Size(3)) == {"steps": 3}
    assert described(longer(3, new="x")) == {"steps": 3, "new": "x"}

    @stored("numbers")
    def before(network, steps): ...

    @stored("numbers")
    def after(network, steps, restarts=1, loss="ce"): ...

    name = before.artifact(NETWORK, 5).name
    assert after.artifact(NETWORK, 5).name == after.artifact(NETWORK, steps=5, restarts=1, loss="ce").name == name
    assert len({name, after.artifact(NETWORK, 5, 2).name, after.artifact(NETWORK, 5, loss="margin").name}) == 3
    assert after.artifact(NETWORK, 5, restarts=True).name != name, "of another type than its default"


def test_name_is_that_of_the_key_and_not_of_the_label(measure) -> None:
    renamed, other = SimpleNamespace(key="abc123", label="other words"), SimpleNamespace(key="abc124", label="")
    names = [measure.artifact(network, Size(1)).name for network in (NETWORK, renamed, other)]
    assert names[0] == names[1] != names[2]


def test_arguments_that_are_unnamed_do_not_name(measure, made) -> None:
    measure(NETWORK, Size(1), batch_size=3)
    measure(NETWORK, Size(1), batch_size=5)
    assert [call["batch_size"] for call in made] == [3]
    record = measure.artifact(NETWORK, Size(1), batch_size=5).record()
    assert record["arguments"] == {"network": "abc123", "size": {"steps": 1}}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model": {"width": np.int64(3)}}, r"config\.model\.width is a int64"),
        ({"eps": [0.1, float("nan")]}, r"config\.eps\[1\] is nan"),
        ({"path": Path("x")}, r"config\.path is a PosixPath"),
        ({3: 1}, r"config has the key 3"),
        ({"size": Size({1})}, r"config\.size\.steps is a set"),
        ({"kind": Size}, r"config\.kind is a type"),
    ],
)
def test_one_line_error_names_the_key_when_value_is_not_plain(config: dict, named: str) -> None:
    with pytest.raises(InputError, match=named) as error:
        name_of(config)
    assert "\n" not in str(error.value)


def test_one_line_error_when_artifact_kind_is_a_path(home: Path) -> None:
    with pytest.raises(InputError, match="artifact kind '../x'"):
        Artifact("../x", {})


def test_asking_where_a_result_lies_writes_nothing(home: Path) -> None:
    artifact = Artifact("models", {"width": 8})
    assert artifact.path(".bin") == home / "artifacts" / "models" / f"{artifact.name}.bin"
    assert not artifact.is_whole() and artifact.record() is None and not list(home.iterdir())


def test_result_is_made_once_and_the_first_answer_is_the_second(measure, made) -> None:
    first, second = measure(NETWORK, Size(1)), measure(NETWORK, size=Size(1), seed=0)
    measure(NETWORK, Size(1), seed=2)
    assert [call["seed"] for call in made] == [0, 2]
    pd.testing.assert_frame_equal(first, second)


def test_higher_version_makes_anew_and_lower_one_finds_its_own(made) -> None:
    assert [versioned(version, made)(0).version.item() for version in (1, 2, 1)] == [1, 2, 1]
    assert made == [1, 2]


def test_record_says_what_it_is_and_what_made_it(measure) -> None:
    measure(NETWORK, Size(3, options={"x": 0}), seed=4)
    artifact = measure.artifact(NETWORK, Size(3, options={"x": 0}), seed=4)
    record = json.loads(artifact.path(".json").read_text())
    assert (record["kind"], record["version"]) == ("numbers", 1)
    assert record["arguments"] == {"network": "abc123", "size": {"steps": 3, "options": {"x": 0}}, "seed": 4}
    assert record["sha256"] == {".parquet": hashlib.sha256(artifact.path(".parquet").read_bytes()).hexdigest()}
    made = record["made"]
    assert set(made) == {"module", "code", "commit", "device", "threads", "python", "torch", "seconds"}
    assert made["module"] == MODULE and made["code"] == code_digest(MODULE) and made["seconds"] >= 0


def test_used_results_are_noted_whether_made_or_read(measure, monkeypatch) -> None:
    for _ in range(2):
        monkeypatch.setattr(store, "used", {})
        measure(NETWORK, Size(1))
        artifact = measure.artifact(NETWORK, Size(1))
        assert store.used == {f"numbers/{artifact.name}": artifact.record()["made"]}


def test_what_it_draws_is_said_by_its_name_whatever_ran_before(home: Path) -> None:
    def drawn(seed: int) -> pd.DataFrame:
        return pd.DataFrame({"drawn": torch.rand(3).tolist()})

    drawn.__module__ = MODULE
    drawn = stored("numbers")(drawn)
    torch.manual_seed(0)
    first, after = drawn(1), torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after), "who asks for a result goes on as if it had been here"
    drawn.artifact(1).path(".json").unlink()
    pd.testing.assert_frame_equal(drawn(1), first)
    assert not drawn(2).equals(first)


def test_nothing_is_stored_when_making_fails(home: Path) -> None:
    @stored("numbers")
    def fail() -> pd.DataFrame:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(home.rglob("*.*"))


def test_rows_that_do_not_fit_their_schema_are_not_stored(home: Path) -> None:
    @stored("rows", form=ROWS)
    def rows() -> pd.DataFrame:
        return pd.DataFrame({"sample": [0], "success": [True]})

    with pytest.raises(InputError, match="missing columns"):
        rows()
    assert not list(home.rglob("*.*"))


@pytest.mark.parametrize("suffix", [".parquet", ".json"])
def test_flipped_bit_is_found_and_the_result_made_anew(measure, made, capsys, suffix: str) -> None:
    wanted = measure(NETWORK, Size(1), seed=3)
    path = measure.artifact(NETWORK, Size(1), seed=3).path(suffix)
    bits = np.random.default_rng(0).choice(8 * path.stat().st_size, FLIPS, replace=False)
    for count, bit in enumerate(bits.tolist(), start=2):
        flip(path, bit)
        pd.testing.assert_frame_equal(measure(NETWORK, Size(1), seed=3), wanted)
        assert len(made) == count, f"bit {bit} went unnoticed"
    assert capsys.readouterr().err.count("made anew") == (FLIPS if suffix == ".parquet" else 0)
    measure(NETWORK, Size(1), seed=3)
    assert len(made) == FLIPS + 1, "whole again"


@pytest.mark.parametrize("content", [b"", b"half", b"[]", b"null", b"{}", b'{"made": {}, "sha256": {}}', b"\xff\xfe"])
def test_record_without_its_content_counts_as_not_there(measure, made, content: bytes) -> None:
    measure(NETWORK, Size(1))
    measure.artifact(NETWORK, Size(1)).path(".json").write_bytes(content)
    measure(NETWORK, Size(1))
    assert len(made) == 2


@pytest.mark.parametrize("suffix", [".parquet", ".json"])
def test_lost_file_is_made_anew(measure, made, suffix: str) -> None:
    measure(NETWORK, Size(1))
    measure.artifact(NETWORK, Size(1)).path(suffix).unlink()
    measure(NETWORK, Size(1))
    assert len(made) == 2 and measure.artifact(NETWORK, Size(1)).is_whole()


def test_result_of_another_name_in_its_place_is_not_read(measure, made) -> None:
    measure(NETWORK, Size(1), seed=1), measure(NETWORK, Size(1), seed=2)
    one, two = (measure.artifact(NETWORK, Size(1), seed=seed) for seed in (1, 2))
    two.path(".parquet").replace(one.path(".parquet"))
    assert measure(NETWORK, Size(1), seed=1).zeros.tolist() == [1, 1] and len(made) == 3


def test_result_is_made_anew_when_the_last_run_was_killed_before_its_record(measure, made, monkeypatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Artifact, "complete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        measure(NETWORK, Size(1))
    artifact = measure.artifact(NETWORK, Size(1))
    assert artifact.path(".parquet").is_file() and not artifact.is_whole()
    measure(NETWORK, Size(1))
    measure(NETWORK, Size(1))
    assert len(made) == 2


def test_earlier_record_does_not_vouch_for_data_written_before_a_kill(measure, made, monkeypatch) -> None:
    measure(NETWORK, Size(1))
    artifact = measure.artifact(NETWORK, Size(1))
    artifact.path(".parquet").write_bytes(b"of another try")
    measure(NETWORK, Size(1))
    assert len(made) == 2


def test_code_that_made_a_result_does_not_name_it(measure, made, monkeypatch) -> None:
    measure(NETWORK, Size(1))
    record = measure.artifact(NETWORK, Size(1)).record()
    monkeypatch.setattr(provenance, "code_digest", lambda module: "of other code")
    measure(NETWORK, Size(1))
    assert len(made) == 1 and measure.artifact(NETWORK, Size(1)).record() == record
    measure(NETWORK, Size(2))
    assert measure.artifact(NETWORK, Size(2)).record()["made"]["code"] == "of other code"
