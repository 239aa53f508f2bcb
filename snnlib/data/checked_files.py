"""Data files with published checksums: checked before use, and put in place whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from snnlib.data.torchvision_ops import import_torchvision
from snnlib.errors import InputError
from snnlib.files import temporary_folder

Checksums = Mapping[str, str]
"""File name -> MD5 as published with the data set."""

CONNECT_SECONDS = 30


def require_md5(path: Path, expected: str, remedy: str) -> None:
    """Raise InputError unless `path` is a file with this MD5."""
    if not path.is_file():
        raise InputError(f"{path} is {'no file' if path.exists() else 'missing'}: {remedy}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != expected:
        raise InputError(f"{path} is corrupt or truncated (MD5 {found}, expected {expected}): {remedy}")


def require_all_md5(folder: Path, checksums: Checksums, remedy: str) -> None:
    """Raise InputError, naming the first offender, unless `folder` holds every file with its MD5."""
    for name, expected in checksums.items():
        require_md5(folder / name, expected, remedy)


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """An empty folder that becomes `target` when the block ends well, and disappears when it does not."""
    with temporary_folder(target) as temporary:
        folder = temporary / target.name
        folder.mkdir()
        yield folder
        try:
            os.replace(folder, target)
        except OSError:
            # Another process put its own, equally checked copy there first; anything else is a real failure.
            if not target.is_dir():
                raise


def extract_checked(archive: Path, checksums: Checksums, target: Path, remedy: str) -> None:
    """Extract the files named in `checksums`, wherever they are in the .tar.gz, into the new folder `target`.

    Members are picked by name and written by us, so no path in the archive can lead outside `target`.
    Raises InputError, leaving no `target`, where the archive is damaged, a file missing or its MD5 another.
    """
    with staged_folder(target) as folder:
        try:
            with tarfile.open(archive, "r:gz") as members:
                for member in members:
                    name = PurePosixPath(member.name).name
                    if name in checksums and member.isfile():
                        with members.extractfile(member) as packed, (folder / name).open("wb") as file:
                            shutil.copyfileobj(packed, file)
        except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError) as error:
            from_system = isinstance(error, OSError) and error.errno is not None
            what = "cannot be unpacked" if from_system else "is corrupt or truncated"
            raise InputError(f"{archive} {what} ({one_line(error)}): {remedy}") from error
        for name, expected in checksums.items():
            if not (folder / name).is_file():
                raise InputError(f"{archive} does not contain {name}: {remedy}")
            require_md5(folder / name, expected, remedy)


def download(url: str, md5: str, target: Path, remedy: str) -> None:
    """Download `url` to `target` with torchvision's downloader, which shows a progress bar; checked by MD5.

    Raises InputError where the network or the file fails; `target` then does not exist.
    """
    downloader = import_torchvision().datasets.utils.download_url
    with temporary_folder(target) as temporary:
        try:
            with _socket_timeout(CONNECT_SECONDS):
                downloader(url, str(temporary), target.name)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise InputError(f"{url} could not be downloaded ({one_line(error)}): {remedy}") from error
        require_md5(temporary / target.name, md5, remedy)
        os.replace(temporary / target.name, target)


def one_line(error: object) -> str:
    """The first line of an error's text, or the name of its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torchvision's downloader sets no timeout: without one a silent firewall would hang it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
