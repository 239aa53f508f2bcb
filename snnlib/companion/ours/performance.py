"""Notebook 40: speed beside peers, measured once per kind of machine and code, then read."""

from __future__ import annotations

from importlib.metadata import version

import pandas as pd

from snnlib.bench.speed import bench
from snnlib.companion.measure.provenance import code_digest
from snnlib.companion.measure.store import stored
from snnlib.runtime import apply_process_settings, default_device, describe_device

PEERS = ("torch", "spikingjelly", "snntorch", "norse")


def stored_bench(rounds: int, small: bool = False) -> pd.DataFrame:
    """`snnlib.bench.speed.bench` on the default device."""
    settings = {"device": describe_device(), "allocator": apply_process_settings().allocator}
    versions = {name: version(name) for name in PEERS}
    return _bench(rounds, small, settings, versions, code_digest("snnlib.bench.speed"))


@stored("bench")
def _bench(rounds: int, small: bool, settings: dict, versions: dict, code: str) -> pd.DataFrame:
    """settings, versions, code: what is measured, as part of the result's name."""
    return bench(rounds, default_device(), small)
