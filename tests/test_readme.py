"""The README's Python example and its audits run as they stand (other commands: `test_readme_commands.py`)."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from snnlib import attacks, audit, models, wrap
from snnlib.audit.command_line import main
from snnlib.encoding import build_encoder
from snnlib.neurons import LIF, surrogates, use_kernel

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    environment = {**os.environ, "SNNLIB_KERNEL": "reference"}  # compiling takes longer than all the rest
    answer = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "first.html").stat().st_size > 1000


QUESTIONS = README.partition("## What a reviewer asks")[2].partition("\n## ")[0]
CALLS = re.findall(r"`((?:attacks|audit|\[attacks)\..*?)`(?=[, |]|$)|`(\[.*?\])`", QUESTIONS, flags=re.M)


class MeanOverTime(nn.Module):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, encoded: torch.Tensor) -> torch.Tensor:
        return self.layers(encoded).mean(0)


def test_a_reviewer_asks_ten_questions_and_each_has_a_call() -> None:
    rows = [line for line in QUESTIONS.splitlines() if line.startswith("| ") and "?" in line]
    assert len(rows) == 10 and all("`" in row for row in rows) and len(CALLS) == 12 + 1


@pytest.mark.parametrize("call", ["".join(pair) for pair in CALLS])
def test_the_answer_to_a_reviewer_is_a_call_that_runs(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(audit.EFFORTS, "quick", audit.EFFORTS["smoke"])
    with torch.random.fork_rng():
        torch.manual_seed(4)
        layers = nn.Sequential(nn.Flatten(2), nn.Linear(192, 32), LIF(threshold=0.3), nn.Linear(32, 10))
    model = models.Model(build_encoder("phase", 8), MeanOverTime(layers), {}).eval()
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with use_kernel("reference"), torch.no_grad():
        labels = model(images).argmax(1)
        asked = (model, images, labels, attacks.Budget(0.5))  # large enough that nobody stands for long
        names = {"model": model, "images": images, "labels": labels, "asked": asked, "other": model}
        answer = eval(call, {"attacks": attacks, "audit": audit, "surrogates": surrogates, **names})
    results = answer if isinstance(answer, list) else [answer]
    assert all(len(result) == 4 for result in results if isinstance(result, attacks.AttackResult))


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
    with use_kernel("reference"):
        assert main([*shlex.split(command), "--images", "10", *effort]) == 0
    assert "--out" not in command or (networks_of_the_commands / "report.html").stat().st_size > 1000
