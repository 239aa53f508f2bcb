"""Speeds are measured once per machine, versions and code, and then read."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion.ours import performance
from snnlib.companion.ours.performance import stored_bench


@pytest.fixture
def measured(home, monkeypatch) -> list[tuple]:
    """The arguments of every benchmark that was run, in its place."""
    calls = []

    def fake(rounds: int, device: str, small: bool) -> pd.DataFrame:
        calls.append((rounds, device, small))
        return pd.DataFrame({"contender": ["snnlib"], "best_ms": [1.5]})

    monkeypatch.setenv("SNNLIB_DEVICE", "cpu")
    monkeypatch.setattr(performance, "bench", fake)
    return calls


def test_bench_is_measured_once_and_then_read(measured):
    first, again = stored_bench(3, small=True), stored_bench(3, small=True)
    assert measured == [(3, "cpu", True)]
    pd.testing.assert_frame_equal(first, again)
    stored_bench(4, small=True), stored_bench(3)
    assert measured[1:] == [(4, "cpu", True), (3, "cpu", False)]


@pytest.mark.parametrize("name", ["version", "code_digest", "describe_device"])
def test_bench_is_measured_again_with_other_versions_code_or_device(measured, monkeypatch, name):
    stored_bench(3)
    monkeypatch.setattr(performance, name, lambda *_: "another")
    stored_bench(3)
    assert len(measured) == 2
