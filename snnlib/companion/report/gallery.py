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


def thumbnail_path(name: str) -> Path:
    """`figures/thumbnails/<name>.webp`."""
    return paths.FIGURES / THUMBNAILS / f"{name}.webp"


def write_thumbnails(profile: str) -> None:
    """A small version of every published picture of the profile, and none of a picture that is gone."""
    pictures = {path.stem: path for path in paths.published_dir(profile).glob("[0-9][0-9]_*.png")}
    for name, path in pictures.items():
        write_atomic(thumbnail_path(name), thumbnail(path.read_bytes()))
    for path in thumbnail_path("").parent.glob("*.webp"):
        if path.stem not in pictures:
            path.unlink()


def gallery_markdown(profile: str) -> str:
    """The page: a heading per notebook that has published pictures, each picture with its caption, PDF and numbers."""
    lines = [
        "# The figures",
        "",
        f"All of profile `{profile}`: small networks on a part of CIFAR-10 ([front page](../README.md)).",
        "A picture opens at full size; its numbers are in the CSV beside it, and what made each file is in the",
        f"[manifest]({profile}/manifest.json). See also the [verdicts with their evidence](verdicts.md) and the",
        "[cards of the released networks](networks.md).",
    ]
    for chapter in chapters():
        shots = [shot for shot in chapter.shots if (paths.published_dir(profile) / f"{shot.name}.png").is_file()]
        if shots:
            lines += ["", f"## {chapter.number} · [{chapter.title}](../notebooks/{chapter.file})"]
        for shot in shots:
            here = f"{profile}/{shot.name}"
            picture = f'<img src="{THUMBNAILS}/{shot.name}.webp" width="{THUMBNAIL_WIDTH}" alt="{shot.text}">'
            about = f"**{shot.title}.** {shot.caption} [PDF]({here}.pdf) · [numbers]({here}.csv)"
            lines += ["", f"[{picture}]({here}.png)", "", about]
    return "\n".join(lines) + "\n"


def _chapter(path: Path) -> Chapter:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = [("".join(cell["source"]), cell["cell_type"]) for cell in cells]
    heading = next((text.splitlines()[0] for text, kind in texts if kind == "markdown" and text.startswith("# ")), "")
    title = heading.removeprefix("# ").partition(" · ")[2] or path.stem[3:].replace("_", " ")
    return Chapter(path.name, title, tuple(_shots([text for text, kind in texts if kind == "code"])))


def _shots(code: list[str]) -> list[Shot]:
    found, drawn = [], {}
    for statement in (each for text in code for each in _parsed(text)):
        match statement:
            case ast.Assign(targets=[ast.Name(id=variable)], value=ast.Call(func=function)):
                drawn[variable] = ast.unparse(function)
            case ast.Expr(value=ast.Call(func=function, args=[figure, ast.Constant(value=str(name)), *_])):
                if ast.unparse(function) == "figures.save":
                    found.append(Shot(name, _caption(drawn.get(ast.unparse(figure), ""))))
    return found


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
    first = re.sub(r"[;:] (\w+: |columns ).*$", "", re.sub(r"[,;]? (of|in) `[^`]+`", "", first))
    return first.replace("`", "") + "."
