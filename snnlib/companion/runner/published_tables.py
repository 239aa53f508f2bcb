"""The stored tables behind published figures, beside the rows: with both, a figure is drawn and nothing is measured.

`figures/<profile>/tables.tar.xz` holds them as `artifacts` does, each with the record that says what made it; the notes
of what each notebook used lie beside it. Only profiles whose networks are released have them.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection
from pathlib import Path

from snnlib.companion import paths
from snnlib.companion.measure.unreleased import NOTES, read_notes
from snnlib.companion.report import figures
from snnlib.companion.runner.pack import extract, files_of, unpack
from snnlib.errors import InputError
from snnlib.files import replacing, temporary_folder, write_atomic

ARCHIVE = "tables.tar.xz"
ELSEWHERE = {"rows", "networks"}
"""Kinds of results that are published in files of their own."""


def publish_tables(profile: str, numbers: Collection[str]) -> None:
    """Put the tables that these notebooks used into `figures/<profile>`; those of other notebooks stay.

    Errors: InputError where a table that a notebook used is gone.
    """
    folder = paths.published_dir(profile)
    notes = read_notes(profile) | {number: figures.note_of_use(profile, number) for number in numbers}
    wanted = {name for note in notes.values() for name in note["results"] if name.split("/")[0] not in ELSEWHERE}
    with temporary_folder(paths.ARTIFACTS / "unpacked") as published:
        if (folder / ARCHIVE).is_file():
            extract(folder / ARCHIVE, published)
        with replacing(folder / ARCHIVE) as temporary, tarfile.open(temporary, "w:xz") as archive:
            for name in sorted(wanted):
                root, files = _found(name, (paths.ARTIFACTS, published))
                for path in files:
                    archive.add(path, path.relative_to(root).as_posix(), filter=_same_bytes)
    write_atomic(folder / NOTES, json.dumps(notes, sort_keys=True) + "\n")


def take_tables(profile: str) -> tuple[int, int]:
    """Put the published tables where notebooks look for them; how many came, and how many were here or are damaged."""
    archive = paths.published_dir(profile) / ARCHIVE
    return unpack(archive) if archive.is_file() else (0, 0)


def _found(name: str, roots: tuple[Path, ...]) -> tuple[Path, list[Path]]:
    """The first root that has the table whole, and its files there, the record last."""
    for root in roots:
        record = root / f"{name}.json"
        if files := files_of(record):
            return root, [*files, record]
    raise InputError(f"the table {name} of a notebook is gone; run the notebook again, then publish")


def _same_bytes(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Who packs, and when, is not in the archive: equal tables give equal bytes."""
    member.mtime, member.mode, member.uid, member.gid, member.uname, member.gname = 0, 0o644, 0, 0, "", ""
    return member
