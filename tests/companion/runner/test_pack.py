"""Results travel whole or not at all."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion import paths
from snnlib.companion.measure.store import stored
from snnlib.companion.runner.pack import main, pack, unpack
from snnlib.errors import InputError


def numbers(start: int) -> pd.DataFrame:
    return pd.DataFrame({"number": range(start, start + 500)})


numbers.__module__ = "snnlib.files"  # a module whose digest can be taken
numbers = stored("numbers")(numbers)


@pytest.fixture
def elsewhere(home, monkeypatch):
    """Three results are made, then the artifacts are another, empty folder, as on another machine."""
    for start in range(3):
        numbers(start)

    def move():
        monkeypatch.setattr(paths, "ARTIFACTS", home / "elsewhere")

    return move


def test_results_come_over_in_parts_and_are_not_made_again(home, elsewhere):
    parts = pack(home / "out", max_mb=0.02)
    assert len(parts) > 1 and all(part.stat().st_size <= 20_000 for part in parts)
    elsewhere()
    assert sum(unpack(part)[0] for part in parts) == 3
    assert [unpack(part)[0] for part in parts] == [0] * len(parts)
    whole = [numbers.artifact(start).is_whole() for start in range(3)]
    assert whole == [True] * 3 and numbers(2).number.iloc[0] == 2


def test_a_damaged_result_stays_behind(home, elsewhere):
    damaged = numbers.artifact(1).path(".parquet")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    (part,) = pack(home / "out", max_mb=1)
    elsewhere()
    assert unpack(part) == (2, 0)
    assert not numbers.artifact(1).is_whole()


def test_kinds_and_time_choose(home, elsewhere, capsys):
    assert pack(home / "out", 1, kinds=["networks"]) == []
    (home / "now").touch()
    assert main([str(home / "out"), "--newer-than", str(home / "now")]) == 0
    assert capsys.readouterr().out == ""


def test_one_line_for_what_cannot_be_done(home, elsewhere, capsys):
    with pytest.raises(InputError, match="allow more"):
        pack(home / "out", max_mb=0.011)
    (home / "part-1.tar").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(home / "part-1.tar")
    assert main([str(home / "nothing"), "--unpack"]) == 2
    assert "holds no part-*.tar" in capsys.readouterr().err
