"""Carry finished results to another machine: `pack` writes them into archives of a size, `unpack` takes them over.

`python -m snnlib.companion.runner.pack OUT --max-mb 60` and `python -m snnlib.companion.runner.pack --unpack OUT`.
A result travels with the record that says what it is; one whose bytes are not those of its record is left behind.
"""

from __future__ import annotations

import lzma
import shutil
import sys
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path

from snnlib.commands import OneLineParser, exit_code
from snnlib.companion import paths
from snnlib.companion.measure.store import NAME_LENGTH, read_record
from snnlib.errors import InputError
from snnlib.files import replacing, sha256_of, temporary_folder

MEGABYTE = 10**6
RECORDS = f"*/{'[0-9a-f]' * NAME_LENGTH}.json"
"""Where records lie; other JSON files are results that are kept as such."""


def results(root: Path, kinds: Collection[str] = (), newer_than: float = 0.0) -> Iterator[list[Path]]:
    """The files of every whole result under `root`, its record last; the oldest first.

    kinds: names of folders, none for all. newer_than: seconds since the epoch.
    """
    records = sorted(root.glob(RECORDS), key=lambda path: (path.stat().st_mtime, path.name))
    for record in records:
        if (kinds and record.parent.name not in kinds) or record.stat().st_mtime < newer_than:
            continue
        if files := files_of(record):
            yield [*files, record]


def files_of(record: Path) -> list[Path]:
    """The files beside a record, a network's checkpoints too; none where one is missing or damaged."""
    digests = (read_record(record) or {"sha256": {}})["sha256"]
    files = {record.with_name(f"{record.stem}{suffix}"): digest for suffix, digest in digests.items()}
    if not all(path.is_file() and sha256_of(path) == digest for path, digest in files.items()):
        return []
    more = sorted(record.with_suffix("").glob("*.safetensors")) + sorted(record.with_suffix("").glob("*.jsonl"))
    return list(dict.fromkeys([*files, *more]))


def pack(out: Path, max_mb: float, kinds: Collection[str] = (), newer_than: float = 0.0) -> list[Path]:
    """Write `out`/part-1.tar and so on, each below `max_mb` MB. Errors: InputError for a result larger than that."""
    parts: list[list[Path]] = [[]]
    most = room = max_mb * MEGABYTE - tarfile.RECORDSIZE  # what an archive is padded to
    for files in results(paths.ARTIFACTS, kinds, newer_than):
        size = sum(_archived(path) for path in files)
        if size > most:
            taken = size / MEGABYTE
            raise InputError(f"{files[-1].stem} takes {taken:.1f} MB; expected at most {max_mb:g}; allow more")
        if size > room:
            parts.append([])
            room = most
        parts[-1] += files
        room -= size
    written = []
    for number, files in enumerate(filter(None, parts), start=1):
        with replacing(out / f"part-{number}.tar") as temporary, tarfile.open(temporary, "w") as archive:
            for path in files:
                archive.add(path, path.relative_to(paths.ARTIFACTS).as_posix())
        written.append(out / f"part-{number}.tar")
    return written


def unpack(archive: Path) -> tuple[int, int]:
    """Take over the results that are not here yet; returns how many came, and how many were here or damaged."""
    came = left = 0
    with temporary_folder(paths.ARTIFACTS / "unpacked") as folder:
        extract(archive, folder)
        for record in sorted(folder.glob(RECORDS)):
            files = files_of(record)
            if not files or files_of(paths.ARTIFACTS / record.relative_to(folder)):
                left += 1
                continue
            for path in [*files, record]:  # the record last: what a kill leaves behind counts as not there
                target = paths.ARTIFACTS / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, target)
            came += 1
    return came, left


def extract(archive: Path, folder: Path) -> None:
    """Lay the archive's files into the folder. Errors: InputError for a damaged archive."""
    try:
        with tarfile.open(archive) as stream:
            stream.extractall(folder, filter="data")
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise InputError(f"{archive} cannot be unpacked ({error}); expected an archive made by pack") from None


def _archived(path: Path) -> int:
    """Bytes of a file in an archive, at most: itself, its header and its last block."""
    return path.stat().st_size + 2048


def main(arguments: list[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m snnlib.companion.runner.pack", description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="where the archives go, or are")
    parser.add_argument("--unpack", action="store_true", help="take results over instead")
    parser.add_argument("--max-mb", type=float, default=60.0, help="size of an archive in MB")
    parser.add_argument("--kinds", nargs="*", default=[], help="rows, networks, ...: these alone")
    parser.add_argument("--newer-than", type=Path, metavar="FILE", help="results made after this file was written")

    def command() -> int:
        options = parser.parse_args(arguments)
        if options.unpack:
            archives = sorted(options.folder.glob("part-*.tar"))
            if not archives:
                raise InputError(f"{options.folder} holds no part-*.tar; expected archives made by pack")
            for archive in archives:
                came, left = unpack(archive)
                print(f"{archive.name}: {came} results came, {left} were here already or are damaged")
            return 0
        since = options.newer_than.stat().st_mtime if options.newer_than else 0.0
        for path in pack(options.folder, options.max_mb, options.kinds, since):
            print(f"{path}: {path.stat().st_size / MEGABYTE:.1f} MB")
        return 0

    return exit_code(command)


if __name__ == "__main__":
    sys.exit(main())
