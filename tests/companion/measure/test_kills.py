"""A kill at any moment loses nothing that was finished: checked in a process of its own, by its files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed.py")


@pytest.mark.slow
def test_twenty_kills_at_random_moments_leave_the_files_of_an_uninterrupted_run(home):
    environment = {**os.environ, "SNNLIB_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run([sys.executable, str(SCRIPT), "20"], env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
