"""The README's Python example and its commands run as they stand."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from snnlib import models, wrap
from snnlib.audit.command_line import main

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    answer = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "report.html").stat().st_size > 1000


@pytest.fixture
def networks_of_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every file that the README's commands name."""
    nir = pytest.importorskip("nir")
    model = models.build_model("vgg11", 10, time_steps=2, width=4)
    models.save(model, tmp_path / "net")
    nir.write(tmp_path / "net.nir", wrap.to_nir(model, torch.rand(1, 3, 32, 32)))
    code = "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))\n"
    (tmp_path / "net.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", re.findall(r"^python -m snnlib\.audit (.*?) *(?:#.*)?$", README, flags=re.M))
def test_a_command_of_the_audit_runs_on_few_images(command: str, networks_of_the_commands: Path) -> None:
    effort = [] if "--quick" in command else ["--profile", "smoke"]
    assert main([*shlex.split(command), "--images", "10", *effort]) == 0
    assert "--out" not in command or (networks_of_the_commands / "report.html").stat().st_size > 1000
