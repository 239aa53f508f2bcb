"""The front page and the pages of `figures/` say what the published numbers say, and fit a narrow screen."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from snnlib.companion import paths
from snnlib.companion.report import claims, evidence, front_page, gallery, ladder
from snnlib.companion.verdicts.rules import Judgement
from snnlib.errors import InputError
from snnlib.models import released_names

REPOSITORY = Path(__file__).parents[3]
FIGURES = REPOSITORY / "figures"
AGAIN = "python -m snnlib.companion.report.front_page"


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


PUBLISHED = [folder.name for folder in FIGURES.iterdir() if (folder / "claims.csv").is_file()]


def test_the_committed_pages_follow_from_the_published_numbers() -> None:
    readme = text_of(REPOSITORY / "README.md")
    assert front_page.filled(readme) == readme, AGAIN
    for name, make in front_page.PAGES.items():
        assert make() == text_of(FIGURES / name), AGAIN


def test_the_picture_of_the_front_page_was_drawn_from_the_published_numbers() -> None:
    with Image.open(FIGURES / ladder.FILE) as picture:
        assert picture.info["Description"] == ladder.in_words(ladder.ladder_steps(ladder.ladder_profile())), AGAIN


def test_the_ladder_begins_and_ends_with_the_numbers_of_its_tables() -> None:
    folder = FIGURES / ladder.ladder_profile()
    table = pd.read_csv(folder / "12_threat_model_ladder.csv")
    pgd = table[(table.model == ladder.NETWORK) & (table.attack == "pgd")].set_index("threat_model")["mean"]
    board = pd.read_csv(folder / "leaderboard.csv").set_index(["network", "eps255"])
    best = board.loc[(ladder.NETWORK, ladder.EPS255)]
    steps = ladder.ladder_steps(folder.name).share.tolist()
    assert steps == [best.clean, pgd["authors"], pgd["encoded, BN eval"], pgd["image"], best.robust]


def test_every_thumbnail_shows_its_picture_and_is_small() -> None:
    pictures = {(name, path.stem): path for name in PUBLISHED for path in (FIGURES / name).glob("*.png")}
    small = {(path.parent.name, path.stem): path for path in (FIGURES / gallery.THUMBNAILS).rglob("*.webp")}
    assert pictures.keys() == small.keys(), AGAIN
    for name, path in small.items():
        assert path.stat().st_size < 40_000
        ours = Image.open(io.BytesIO(gallery.thumbnail(pictures[name].read_bytes()))).convert("RGB")
        theirs = Image.open(path).convert("RGB")
        assert ours.size == theirs.size and np.abs(np.asarray(ours, float) - np.asarray(theirs, float)).mean() < 4, name


def test_every_published_picture_is_in_the_gallery_once() -> None:
    shown = re.findall(r"\]\((\w+/\w+)\.png\)", text_of(FIGURES / "README.md"))
    pictures = [path for name in PUBLISHED for path in (FIGURES / name).glob("*.png")]
    assert sorted(shown) == sorted(f"{path.parent.name}/{path.stem}" for path in pictures)


@pytest.mark.parametrize("name", ["README.md", *(f"figures/{page}" for page in front_page.PAGES)])
def test_every_link_of_a_page_leads_somewhere_and_every_picture_has_a_text(name: str) -> None:
    page = REPOSITORY / name
    text = text_of(page)
    targets = re.findall(r"\]\((?!https?:)([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in targets:
        path, _, anchor = target.partition("#")
        assert (page.parent / path).exists(), target
        assert not anchor or f"\n## {anchor.upper()}\n" in text_of(page.parent / path).upper(), target
    pictures = re.findall(r"<img [^>]*>", text)
    assert all(re.search(r'alt="[^"]{5,}"', picture) for picture in pictures)


def test_every_claim_and_every_released_network_has_its_section() -> None:
    headings = re.findall(r"^## (.+)$", text_of(FIGURES / evidence.PAGE), flags=re.M)
    assert headings == list(claims.CLAIMS)
    assert re.findall(r"^## (.+)$", text_of(FIGURES / "networks.md"), flags=re.M) == released_names()


def test_a_verdict_links_to_its_evidence_and_shows_one_number_with_its_interval(home: Path) -> None:
    numbers = {"estimate": 6.23, "low": 4.1, "high": 8.4, "unit": "points", "would_count": "above 0"}
    judgement = Judgement(verdict="reproduced", evidence="6 | of 7", seeds=(0, 1), samples=100, p=0.01, **numbers)
    claims.record("quick", "C1", judgement, notebook="23_conversion")
    numbers |= {name: math.nan for name in ("estimate", "low", "high")}
    blank = Judgement(verdict="not testable", evidence="weak", seeds=(0,), samples=3, p=math.nan, **numbers)
    claims.record("quick", "C2", blank, notebook="23_conversion")
    claims.publish("quick", {"23"})
    table = evidence.verdict_table_markdown().splitlines()
    shown = "up to 2× | [**reproduced**](figures/verdicts.md#c1)<br>6.23 [4.1, 8.4] points<br>`quick` |"
    assert any(line.endswith(shown) for line in table)
    assert "| L8: The effect holds on event data | [**not run yet**](figures/verdicts.md#l8) |" in table
    assert all(line.count("|") == 3 for line in table)
    count = len(claims.CLAIMS)
    counted = f"Of {count} claims: 1 reproduced, 1 not testable, {count - 2} not run yet."
    assert evidence.tally() == f"{counted} Judged: 2 at profile `quick`."
    page = evidence.evidence_markdown()
    assert "\n* evidence: 6 | of 7\n* size: 100 images or gradients, seeds 0, 1\n" in page


def test_only_what_stands_between_the_marks_is_rewritten() -> None:
    marks = "".join(f"before\n<!-- {name}:start -->yesterday<!-- {name}:end -->\n" for name in front_page.BLOCKS)
    text = front_page.filled(marks + "rest\n")
    assert "yesterday" not in text and text.endswith("-->\nrest\n") and text.count("before\n") == len(front_page.BLOCKS)
    assert front_page.filled(text) == text


@pytest.mark.parametrize("text", ["no marks", "<!-- found:end --> <!-- found:start -->", "<!-- found:start -->" * 2])
def test_exit_code_2_and_readme_untouched_when_marks_are_wrong(
    home: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "FIGURES", FIGURES)
    (home / "README.md").write_text(text)
    assert front_page.main(["--readme", str(home / "README.md")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert text_of(home / "README.md") == text


def test_a_missing_readme_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        front_page.write(tmp_path / "README.md")
