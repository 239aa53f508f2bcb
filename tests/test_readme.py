"""The README says what the committed numbers say, and its Python example runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_numbers_of_the_first_screen_are_those_of_the_ladder() -> None:
    table = pd.read_csv(REPOSITORY / "figures" / "quick" / "12_threat_model_ladder.csv")
    chosen = table[(table.model == "SEW-ResNet-18, max pool") & (table.attack == "pgd")]
    means = 100 * chosen.set_index("threat_model")["mean"]
    claimed = re.search(r"keeps ([\d.]+) % of the images under .* and ([\d.]+) % under PGD on images", README)
    assert means["authors"] == pytest.approx(float(claimed[1]), abs=0.5)
    assert means["image"] == pytest.approx(float(claimed[2]), abs=0.05)


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 20 and [link for link in links if not (REPOSITORY / link).exists()] == []


@pytest.mark.slow
def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    answer = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "report.html").stat().st_size > 1000
