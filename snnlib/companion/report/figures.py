"""Figures and tables as files: picture, the numbers drawn, and a manifest that says what made them.

Everything goes to `paths.figures_dir(profile)`, outside of what is committed: exploring a notebook changes no committed
file, and `run_all.sh --publish` copies to `figures/<profile>/`. The same figure and numbers give the same bytes, on
one machine.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from snnlib.companion import paths
from snnlib.companion.measure import store
from snnlib.companion.measure.provenance import circumstances
from snnlib.errors import InputError
from snnlib.files import file_lock, sha256_of, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE_DPI = 150
TRIAL = "smoke"
"""Its figures show that all runs, and are for nobody to print: they have no PDF."""
NAME_PATTERN = re.compile(r"\d\d_[a-z0-9_]+")
# matplotlib stamps its version and the date into files; both would change the bytes of an unchanged picture.
NO_PNG_STAMP = {"Software": None}
NO_PDF_STAMP = {"Creator": None, "Producer": None, "CreationDate": None, "ModDate": None}


def save(
    figure: Figure,
    name: str,
    *,
    profile: str,
    notebook: str,
    table: pd.DataFrame,
    config: dict[str, Any] | None = None,
) -> Path:
    """Write `<name>.png`, `<name>.pdf` and `<name>.csv` (the numbers drawn) and list them in the manifest.

    `name` starts with the notebook's two digits ("12_accuracy_vs_eps"); `config` is hashed into the manifest.
    Returns the path of the PNG. Raises InputError on a bad name, profile or an empty table.
    """
    contents = {".png": _picture(figure, "png", NO_PNG_STAMP), ".csv": _csv(table, name)}
    if profile != TRIAL:
        contents[".pdf"] = _picture(figure, "pdf", NO_PDF_STAMP)
    return _write(name, contents, profile, notebook, config)[0]


def save_table(
    table: pd.DataFrame,
    name: str,
    *,
    profile: str,
    notebook: str,
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a table without a picture as `<name>.csv` and `<name>.md`; returns the CSV's path."""
    contents = {".csv": _csv(table, name), ".md": table_markdown(table).encode()}
    return _write(name, contents, profile, notebook, config)[0]


def table_markdown(table: pd.DataFrame) -> str:
    """A DataFrame as a Markdown table; floats with 4 significant digits, empty cells stay empty."""
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    header = [_cell(name) for name in table.columns]
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def manifest_path(profile: str) -> Path:
    """`manifest.json` among the profile's figures."""
    return paths.figures_dir(profile) / "manifest.json"


def read_manifest(profile: str) -> dict[str, Any]:
    """The manifest of a profile, empty where none is written yet."""
    return read_manifest_in(paths.figures_dir(profile), profile)


def read_manifest_in(folder: Path, profile: str) -> dict[str, Any]:
    """The manifest of figures in a folder; one that is damaged counts as not there, and its notebooks as not run."""
    content = store.read_json(folder / "manifest.json") or {}
    return {"profile": profile, "notebooks": content.get("notebooks", {}), "files": content.get("files", {})}


def outputs_of(profile: str, number: str) -> dict[str, str]:
    """File name -> SHA-256 of what the notebook with this two-digit number has written, from the manifest."""
    files = read_manifest(profile)["files"]
    return {name: entry["sha256"] for name, entry in sorted(files.items()) if name[:2] == number}


def forget_outputs(profile: str, number: str) -> None:
    """Take a notebook's files out of the manifest, before it runs again; the files themselves stay."""

    def drop(manifest: dict[str, Any]) -> None:
        manifest["files"] = {name: entry for name, entry in manifest["files"].items() if name[:2] != number}

    if outputs_of(profile, number):
        _update_manifest(profile, drop)


def remove_orphans(profile: str, number: str) -> None:
    """Delete this notebook's files that the manifest no longer lists: an earlier version of it made them."""
    listed = outputs_of(profile, number)
    for path in paths.figures_dir(profile).glob(f"{number}_*"):
        if path.name not in listed:
            path.unlink()


def used_path(profile: str, number: str) -> Path:
    """Where a notebook notes which stored results it has used, as "kind/name", and which networks."""
    return paths.runs_dir(profile) / "used" / f"{number}.json"


def note_of_use(profile: str, number: str) -> dict[str, Any]:
    """What a notebook has noted there: results, and networks, key -> epochs of the training; both empty where the note
    is missing or damaged."""
    return {"results": [], "networks": {}} | (store.read_json(used_path(profile, number)) or {})


def used_results(profile: str, number: str) -> list[str]:
    """The stored results that a notebook has used, as "kind/name"."""
    return note_of_use(profile, number)["results"]


def record_seconds(profile: str, number: str, seconds: float, at_once: int = 1) -> None:
    """Note in the manifest how long the notebook with this two-digit number takes where nothing is stored, and beside
    how many others it may run."""

    def note(manifest: dict[str, Any]) -> None:
        beside = {"at_once": at_once} if at_once > 1 else {}
        manifest["notebooks"][number] = {"seconds": round(seconds, 1), **beside}

    _update_manifest(profile, note)


def _picture(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=PICTURE_DPI, metadata=metadata)
    return buffer.getvalue()


def _csv(table: pd.DataFrame, name: str) -> bytes:
    if table.empty:
        raise InputError(f"the table of {name!r} is empty; expected the numbers that the figure shows")
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()


def _cell(value: object) -> str:
    if value is None or value is pd.NA or value != value:  # NaN is the one value unequal to itself
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _write(
    name: str, contents: dict[str, bytes], profile: str, notebook: str, config: dict[str, Any] | None
) -> list[Path]:
    if not NAME_PATTERN.fullmatch(name):
        raise InputError(f"figure name {name!r}; expected a name like '12_accuracy_vs_eps'")
    if not str(notebook).startswith(name[:2]):
        raise InputError(
            f"figure {name!r} is saved by notebook {notebook!r}; expected both to start with the same number"
        )
    about = {"notebook": str(notebook), "made": _provenance()}
    if config is not None:
        about["config"] = store.name_of(config)
    written = [
        write_atomic(paths.figures_dir(profile) / (name + suffix), data) for suffix, data in contents.items()
    ]

    def enter(manifest: dict[str, Any]) -> None:
        for path in written:
            manifest["files"][path.name] = {"sha256": sha256_of(path), **about}

    _update_manifest(profile, enter)
    note = {"results": sorted(store.used), "networks": store.used_networks}
    write_atomic(used_path(profile, name[:2]), json.dumps(note, sort_keys=True) + "\n")
    return written


def _update_manifest(profile: str, change: Callable[[dict[str, Any]], None]) -> None:
    with file_lock(paths.lock_path(f"manifest-{profile}")):
        manifest = read_manifest(profile)
        change(manifest)
        write_atomic(manifest_path(profile), json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def _provenance() -> dict[str, Any]:
    """What makes a figure here, and what made the stored results that this process has used so far."""
    results = store.used.values()
    names = ("commit", "device", "torch")
    return {
        "figure": circumstances(__name__),
        "results": {
            "count": len(results),
            "seconds": round(sum(made["seconds"] for made in results), 1),
            **{name: sorted({str(made[name]) for made in results}) for name in names},
        },
    }
