"""The site builds without a warning, and every page of it is fit to be read on a phone, by night, and offline."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from snnlib import audit

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
HOW_TO = sorted((DOCS / "how_to").glob("*.md"))
NEEDS = {"nir": "nir", "snntorch": "snntorch", "spikingjelly": "spikingjelly"}


def code_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built pages."""
    missing = [name for name in ("sphinx", "myst_nb", "sphinx_book_theme") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the site needs {', '.join(missing)}: ./run_all.sh docs installs them")
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "SNNLIB_PROGRESS": "off"}
    command = [sys.executable, str(DOCS / "build.py"), str(folder)]
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return folder / "html"


def test_every_check_of_the_audit_is_explained() -> None:
    sections = re.findall(r"^## (\w+)$", (DOCS / "checks.md").read_text(encoding="utf-8"), flags=re.M)
    assert sorted(sections) == sorted(audit.CHECKS)


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_the_code_of_a_how_to_runs_as_it_stands(page: Path, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(page.stem, "torch"))
    code = "\n".join(code_of(page))
    assert code or page.stem == "cluster"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "SNNLIB_PROGRESS": "off"}
    environment["SNNLIB_KERNEL"] = "reference"  # compiling takes longer than all the rest
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr[-2000:]


def test_every_file_that_the_page_where_is_what_names_is_there() -> None:
    words = re.findall(r"`(snnlib/[\w/.]+|figures/[\w/.]+)`", (DOCS / "where.md").read_text(encoding="utf-8"))
    assert len(words) > 8 and [word for word in words if not (REPOSITORY / word).exists()] == []


@pytest.mark.slow
def test_every_notebook_and_every_public_name_has_its_place(site: Path) -> None:
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert {f"notebooks/{path.stem}.html" for path in (REPOSITORY / "notebooks").glob("*.ipynb")} <= pages
    from snnlib import attacks

    text = (site / "api" / "attacks.html").read_text(encoding="utf-8")
    assert [name for name in attacks.__all__ if f'id="snnlib.attacks.{name}"' not in text and name != "gradients"] == []


@pytest.mark.slow
def test_formulas_are_drawn_by_the_browser_itself(site: Path) -> None:
    name = "20_conversion_robust_anns"
    cells = json.loads((REPOSITORY / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    formulas = re.findall(r"\$[^$]+\$", "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown"))
    text = (site / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
    assert len(formulas) > 5 and text.count("<math") >= len(formulas)
    assert not re.search(r"<script[^>]*mathjax", text, flags=re.I)


@pytest.mark.slow
def test_every_page_fits_a_phone_by_day_and_by_night_and_asks_nobody_for_anything(browser, site: Path) -> None:
    pages = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)
    assert len(pages) > 50
    faults = [fault for page in pages for dark in (False, True) for fault in faults_of(browser, site, page, dark)]
    assert faults == []


def faults_of(browser, site: Path, page: Path, dark: bool) -> list[str]:
    seen = browser.visit(page, 360, dark)
    look = seen.look
    night = look["background"] < 0.2 and look["text"] > 0.6
    found = [*seen.errors, *(f"asked for {url}" for url in seen.outside)]
    found += [f"{look['width']} px wide: {look['wide']}"] if look["width"] > 360 else []
    found += [f"no text for {name}" for name in look["without_text"]]
    found += [f"did not load {name}" for name in look["broken"]]
    found += [] if night == dark else [f"{'dark' if dark else 'light'}: {look['background']:.2f}, {look['text']:.2f}"]
    found += [] if "main" in look["landmarks"] and look["language"] == "en" else [f"landmarks {look['landmarks']}"]
    return [f"{page.relative_to(site)}: {fault}" for fault in found]


def test_the_code_of_the_pages_is_python() -> None:
    for page in HOW_TO:
        for code in code_of(page):
            ast.parse(code)
