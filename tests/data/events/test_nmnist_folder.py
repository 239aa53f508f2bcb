"""The script that unpacks an archive of recordings into N-MNIST's layout."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

from snnlib.data.events import nmnist

SCRIPT = Path(__file__).with_name("nmnist_folder.py")


def test_an_archive_becomes_a_folder(tmp_path):
    columns = {"x": [1, 2, 3], "y": [4, 5, 6], "p": [1, 0, 1], "dt": [10, 20, 30]}
    numbers = {"offset": [0, 2, 3], "label": [7, 0], "split": [0, 1]}
    np.savez(tmp_path / "a.npz", **{name: np.array(values) for name, values in (columns | numbers).items()})
    runpy.run_path(str(SCRIPT))["convert"](tmp_path / "a.npz", tmp_path / "data")
    train = nmnist.read_recording(tmp_path / "data" / "Train" / "7" / "00001.bin")
    test = nmnist.read_recording(tmp_path / "data" / "Test" / "0" / "00001.bin")
    assert [tuple(event) for event in train.tolist()] == [(1, 4, 10, 1), (2, 5, 30, 0)]
    assert [tuple(event) for event in test.tolist()] == [(3, 6, 30, 1)]
