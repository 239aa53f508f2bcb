"""Build the site from the repository: `./run_all.sh docs`, or `python docs/build.py [FOLDER]`.

The pages are gathered in FOLDER/source with the places that they have in the repository, so that their links hold, and
built into FOLDER/html with warnings as errors.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import api
import pandas as pd

from snnlib import attacks, audit, data, models
from snnlib.companion import paths
from snnlib.companion.report import front_page, gallery
from snnlib.companion.report.figures import table_markdown
from snnlib.companion.report.ladder import percent

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
HOW_TO = ("snntorch", "spikingjelly", "nir", "attack", "objective", "cluster")
LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?!\w+:)(?P<target>[^)#\s]+)[^)]*\)")
PICTURE = re.compile(r"src=\"(?!\w+:)(?P<target>[^\"]+)\"")
ORPHAN = b"---\norphan: true\n---\n"  # a page that only links lead to
EXAMPLE = "ann-trades-night-0"


def gather(source: Path) -> None:
    """Write every page of the site into an empty folder."""
    shutil.rmtree(source, ignore_errors=True)
    front = re.sub(r"^<!-- .* -->$", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M)
    write(source / "index.md", front + tree())
    for page in ("CONTRIBUTING.md", "CHANGELOG.md", *(f"figures/{name}" for name in front_page.PAGES)):
        text = (ROOT / page).read_text(encoding="utf-8").replace("../README.md", "../index.md")
        write(source / page, text)
    for name in ("docs/where.md", *(f"docs/how_to/{each}.md" for each in HOW_TO)):
        write(source / name, (ROOT / name).read_text(encoding="utf-8"))
    for chapter in gallery.chapters():
        write(source / "notebooks" / chapter.file, notebook_text(chapter))
    for name, text in api.pages().items():
        write(source / "api" / f"{name}.md", text)
    write(source / "leaderboard.md", leaderboard_text())
    write(source / "docs" / "checks.md", with_questions((DOCS / "checks.md").read_text(encoding="utf-8")))
    example_report().save(source / "docs" / "example_report.html")
    for page in [*source.rglob("*.md"), *source.rglob("*.ipynb")]:
        settle_links(page, source)


def tree() -> str:
    """The site's table of contents, to stand under the front page."""
    chapters = [f"notebooks/{chapter.file}" for chapter in gallery.chapters()]
    parts = {
        "Results": [*(f"figures/{name}" for name in front_page.PAGES), "leaderboard.md"],
        "How to": [f"docs/how_to/{name}.md" for name in HOW_TO],
        "The audit": ["docs/checks.md"],
        "Notebooks": chapters,
        "API": [f"api/{name}.md" for name in api.snnlib.__all__],
        "The project": ["docs/where.md", "CONTRIBUTING.md", "CHANGELOG.md"],
    }
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"
        for caption, pages in parts.items()
    )


def notebook_text(chapter: gallery.Chapter) -> str:
    """A published notebook whose pictures have a text: that of the gallery, in the same order."""
    notebook = json.loads((ROOT / "notebooks" / chapter.file).read_text(encoding="utf-8"))
    texts = [shot.text for shot in chapter.shots]
    for cell in notebook["cells"]:
        pictures = sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
        if pictures:
            told = " ".join(texts[:pictures]) or f"A picture of notebook {chapter.number}, {chapter.title}"
            cell["metadata"]["mystnb"] = {"image": {"alt": told}}
            texts = texts[pictures:]
    return json.dumps(notebook)


def leaderboard_text() -> str:
    """All leaderboards, the largest profile's first, also the networks without a rank."""
    boards = {name: ROOT / "figures" / name / front_page.BOARD for name in paths.published_with(front_page.BOARD)}
    read = [pd.read_csv(path, dtype=str, keep_default_na=False).assign(profile=name) for name, path in boards.items()]
    table = pd.concat(read, ignore_index=True)
    for name in ("clean", "robust", "low", "high"):
        table[name] = table[name].map(lambda share: percent(float(share)))
    return (
        "# Leaderboard\n\nWhat every stored attack on images leaves, in percent of the images, with its 95 % interval. "
        "A network has a rank where it was attacked enough; what the others lack stands in the last column. "
        "eps255: radius in 1/255. passes: forward and backward passes per image.\n\n" + table_markdown(table)
    )


def with_questions(text: str) -> str:
    """The page of the checks, each heading followed by the question that the check asks, from its docstring.

    Errors: ValueError where a check has no section, or a section no check.
    """
    sections = re.findall(r"^## (\w+)$", text, flags=re.M)
    if sorted(sections) != sorted(audit.CHECKS):
        raise ValueError(f"docs/checks.md and the audit's checks differ in {set(sections) ^ set(audit.CHECKS)}")

    def asked(match: re.Match) -> str:
        return f"{match[0]}\n\n*{(audit.CHECKS[match[1]].__doc__ or '').splitlines()[0]}*"

    example = "\n\nWhat comes out is a page like [this one](example_report.html), of an audit at its smallest."
    return re.sub(r"^## (\w+)$", asked, text, flags=re.M) + example


def example_report() -> audit.AuditReport:
    """An audit at its smallest, to show what the page of one looks like."""
    test = data.load_images("cifar10").test.first_per_class(6)
    model = models.released(EXAMPLE)
    return audit.audit(model, test.batch(slice(None)), test.labels, attacks.Budget(2 / 255), effort="smoke")


def settle_links(page: Path, source: Path) -> None:
    """Copy the files of the repository that a page links to, to the same places below `source`.

    A link to a folder, which is no page, becomes its text.
    """

    def settled(match: re.Match) -> str:
        target = page.parent / match["target"]
        original = ROOT / target.resolve().relative_to(source.resolve())
        if original.is_dir():
            return match["text"]
        if not target.exists() and original.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(ORPHAN * (target.suffix == ".md") + original.read_bytes())
        return match[0]

    write(page, LINK.sub(settled, page.read_text(encoding="utf-8")))
    for match in PICTURE.finditer(page.read_text(encoding="utf-8")):
        settled(match)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main(folder: Path) -> int:
    source, html = folder / "source", folder / "html"
    gather(source)
    shutil.rmtree(html, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-c", str(DOCS), "-W", "--keep-going", "-q", "-j", "auto"]
    code = subprocess.run([*command, str(source), str(html)], check=False).returncode
    if code == 0:
        print(f"the site: {html / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "artifacts" / "site"))
