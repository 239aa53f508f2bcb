"""The published pictures on one page, `figures/README.md`, with small versions that load fast."""

from __future__ import annotations

import ast
import importlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from snnlib.companion import paths
from snnlib.errors import InputError
from snnlib.files import write_atomic

THUMBNAIL_WIDTH = 320
THUMBNAILS = "thumbnails"


@dataclass(frozen=True)
class Shot:
    """A picture that a notebook saves. caption: what the function that draws it says of itself; "" where there is none.
    """

    name: str
    caption: str = ""

    @property
    def title(self) -> str:
        """The name in words."""
        words = self.name[3:].replace("_", " ")
        return words[0].upper() + words[1:]

    @property
    def text(self) -> str:
        """Title and caption in one line, without marks of Markdown or HTML: a text in place of the picture."""
        return f"{self.title}. {self.caption}".strip().replace('"', "'")


@dataclass(frozen=True)
class Chapter:
    """A notebook as the front page shows it: file name, title without its number, the pictures in their order."""

    file: str
    title: str
    shots: tuple[Shot, ...]

    @property
    def number(self) -> str:
        return self.file[:2]


def chapters() -> list[Chapter]:
    """Every notebook of the series, read without running it."""
    return [_chapter(path) for path in sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))]


def thumbnail(picture: bytes) -> bytes:
    """A WebP of `THUMBNAIL_WIDTH` pixels."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.thumbnail((THUMBNAIL_WIDTH, 2 * THUMBNAIL_WIDTH), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=70, method=6)
    return buffer.getvalue()


def thumbnail_path(name: str, profile: str) -> Path:
    """`figures/thumbnails/<profile>/<name>.webp`."""
    return paths.FIGURES / THUMBNAILS / profile / f"{name}.webp"


def profiles_with(name: str) -> list[str]:
    """Profiles, largest first, that this picture is published of."""
    return paths.published_with(f"{name}.png")


def write_thumbnails() -> None:
    """A small version of every published picture, and none of a picture that is gone."""
    wanted = set()
    for profile in paths.PROFILE_NAMES:
        for picture in paths.published_dir(profile).glob("[0-9][0-9]_*.png"):
            wanted.add(write_atomic(thumbnail_path(picture.stem, profile), thumbnail(picture.read_bytes())))
    for path in (paths.FIGURES / THUMBNAILS).rglob("*.webp"):
        if path not in wanted:
            path.unlink()


def gallery_markdown() -> str:
    """The page: a heading per notebook that has published pictures, each picture with its caption, and for every
    profile, the largest first, a small version, PDF and numbers.
    """
    lines = [
        "# The figures",
        "",
        "Under each picture stands the profile that it is of; the largest comes first. At what size each profile is:",
        "[front page](../README.md). A picture opens at full size; its numbers are in the CSV beside it, and what made",
        "each file is in `manifest.json`. See also the [verdicts with their evidence](verdicts.md) and the",
        "[cards of the released networks](networks.md).",
    ]
    for chapter in chapters():
        shots = [shot for shot in chapter.shots if profiles_with(shot.name)]
        if shots:
            lines += ["", f"## {chapter.number} · [{chapter.title}](../notebooks/{chapter.file})"]
        for shot in shots:
            lines += ["", f"**{shot.title}.** {shot.caption}".rstrip()]
            for profile in profiles_with(shot.name):
                small = f"{THUMBNAILS}/{profile}/{shot.name}.webp"
                text = f"{shot.text} Profile {profile}."
                here = f"{profile}/{shot.name}"
                lines += ["", f'[<img src="{small}" width="{THUMBNAIL_WIDTH}" alt="{text}">]({here}.png)<br>']
                lines += [f"`{profile}` · [PDF]({here}.pdf) · [numbers]({here}.csv)"]
    return "\n".join(lines) + "\n"


def _chapter(path: Path) -> Chapter:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = [("".join(cell["source"]), cell["cell_type"]) for cell in cells]
    heading = next((text.splitlines()[0] for text, kind in texts if kind == "markdown" and text.startswith("# ")), "")
    title = heading.removeprefix("# ").partition(" · ")[2] or path.stem[3:].replace("_", " ")
    return Chapter(path.name, title, tuple(_shots([text for text, kind in texts if kind == "code"])))


def _shots(code: list[str]) -> list[Shot]:
    found, drawn = [], {}
    for statement in (each for text in code for part in _parsed(text) for each in ast.walk(part)):
        match statement:
            case ast.Assign(targets=[ast.Name(id=variable)], value=ast.Call(func=function)):
                drawn[variable] = ast.unparse(function)
            case ast.Expr(value=ast.Call(func=function, args=[figure, name, *_])):
                if ast.unparse(function) == "figures.save":
                    caption = _caption(drawn.get(ast.unparse(figure), ""))
                    found += [Shot(each, caption) for each in _names(name)]
    return found


def _names(name: ast.expr) -> list[str]:
    """What a picture is called; where a loop makes the name, the published names that fit."""
    parts = name.values if isinstance(name, ast.JoinedStr) else [name]
    pattern = "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts)
    return sorted({path.stem for path in paths.FIGURES.glob(f"*/{pattern}.png")}) if "*" in pattern else [pattern]


def _parsed(text: str) -> list[ast.stmt]:
    try:
        return ast.parse(text).body
    except SyntaxError as error:
        raise InputError(f"a code cell is no plain Python ({error}); expected no magics; write it without") from None


def _caption(function: str) -> str:
    """What a drawing function of this package says of its picture, without what it says of its arguments."""
    module, _, attribute = function.rpartition(".")
    if not module.startswith("figures_"):
        return ""
    drawer = getattr(importlib.import_module(f"snnlib.companion.report.{module}"), attribute)
    first = " ".join((drawer.__doc__ or "").partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")
    first = re.sub(r" \[[^\]]*\]", "", first)  # a shape, which Markdown would take for a link
    first = re.sub(r"[;:] (\w+: |columns ).*$", "", re.sub(r"[,;]? (of|in) `[^`]+`", "", first))
    return first.replace("`", "") + "."
