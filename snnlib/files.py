"""Files that are either whole or absent: atomic writes, checksums, locks."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from snnlib.errors import InputError

PART_SUFFIX = ".part"
PART_NAME = re.compile(r"-(\d+)-\d+\.part$")
"""The process that writes, and when it began."""
PART_SECONDS = 24 * 3600.0
"""Nobody writes that long: what is older is a leftover, whichever machine made it."""
_swept: set[tuple[int, str]] = set()
"""Process (a fork has a copy of this) and folder: where it has removed what killed ones left."""


def user_path(path: Path | str) -> Path:
    """`path` with a leading `~` or `~name` replaced by that home folder.

    Errors: InputError for an unknown user, and where the system refuses to look (name too long, no permission).
    """
    try:
        expanded = Path(path).expanduser()
        expanded.exists()
        return expanded
    except RuntimeError as error:
        raise InputError(f"{path} has no home folder ({error}); write the path without ~") from None
    except OSError as error:
        raise InputError(f"{path} cannot be looked at ({error.strerror}); choose another path") from None


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there becomes `path` when the block ends well.

    For libraries that insist on a path. After an exception `path` is unchanged and the temporary file gone; those that
    a killed process left of the same file go too. Errors: InputError where the system refuses (no permission, no room).
    """
    path = Path(path)
    with _said_in_one_line(path):
        temporary = _fresh_part(path)
        try:
            with open(temporary, "xb") as stream:
                usual_mode = os.fstat(stream.fileno()).st_mode & 0o777
            yield temporary
            os.chmod(temporary, usual_mode)  # some libraries write files that nobody else may read
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path | str, content: bytes | str) -> Path:
    """Write `content` (text as UTF-8, line ends as given) to `path`, making its folder; returns the path."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`, for what shall become `path`; it is gone when the block ends.

    Those that killed processes left go too. Errors: InputError where the folder cannot be made.
    """
    with _said_in_one_line(path):
        temporary = _fresh_part(path)
        temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_target(path: Path, name: str) -> None:
    """Find out, before hours of work, whether `path` can be written at their end; nothing is left behind.

    name: of the option, for the message. Errors: InputError.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{name} is {path}, which is no file; expected a file to write")
        tempfile.TemporaryFile(dir=next(folder for folder in path.absolute().parents if folder.exists())).close()
    except OSError as error:
        reason = error.strerror
        raise InputError(f"{name} is {path}, which cannot be written ({reason}); choose another place") from None


def sha256_of(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove_stale_parts(folder: Path | str, below: bool = True) -> int:
    """Delete the temporary files and folders that killed processes left in `folder`, and in the folders below it.

    They are left over if their process is gone; on another machine, if they are older than any write. Returns how many.
    """
    found = Path(folder).glob(f"{'**/' * below}.*{PART_SUFFIX}")
    named = [(part, PART_NAME.search(part.name)) for part in found]
    stale = [part for part, name in named if name and _is_left_over(part, int(name[1]))]
    for part in stale:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
    return len(stale)


@contextmanager
def file_lock(path: Path | str, *, wait_seconds: float = 60.0) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if missing). The system frees it when the process dies.

    Errors: InputError when another process still holds it after `wait_seconds`, or where the file cannot be made.
    """
    path = Path(path)
    lock = FileLock(path, timeout=wait_seconds)
    with _said_in_one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise InputError(f"{path} is locked by another process; wait for it or end it") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _said_in_one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path} cannot be written ({reason}); make room there or choose another folder") from error


def _fresh_part(path: Path) -> Path:
    """A temporary name beside `path`, in a folder that exists and from which leftovers were removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = (os.getpid(), os.path.abspath(path.parent))
    if place not in _swept:  # once: looking through a folder of 100,000 results takes longer than most writes
        _swept.add(place)
        remove_stale_parts(path.parent, below=False)
    return path.with_name(f".{path.name}.{_maker()}-{time.monotonic_ns()}{PART_SUFFIX}")


def _maker(process: int | None = None) -> str:
    """Names this process, or another one of this machine, in the names of temporary files."""
    return f"{platform.node()}-{os.getpid() if process is None else process}"


def _is_left_over(part: Path, process: int) -> bool:
    try:
        if f".{_maker(process)}-" in part.name:
            os.kill(process, 0)
            return False
        return part.stat().st_mtime < time.time() - PART_SECONDS  # a process of elsewhere cannot be asked
    except (FileNotFoundError, ProcessLookupError):
        return True
    except (PermissionError, OverflowError):  # a process of another user; no process at all
        return False
