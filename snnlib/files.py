"""Files that are either whole or absent: atomic writes, checksums, locks."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snnlib.errors import InputError

PART_SUFFIX = ".part"


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there becomes `path` when the block ends well.

    For libraries that insist on a path. After an exception `path` is unchanged and the temporary file gone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{time.monotonic_ns()}{PART_SUFFIX}")
    try:
        yield temporary
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


def sha256_of(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove_stale_parts(folder: Path | str, older_than_seconds: float = 3600.0) -> int:
    """Delete temporary files that a killed process left under `folder`; returns how many."""
    limit = time.time() - older_than_seconds
    stale = [part for part in Path(folder).rglob(f".*{PART_SUFFIX}") if part.stat().st_mtime < limit]
    for part in stale:
        part.unlink(missing_ok=True)
    return len(stale)


@contextmanager
def file_lock(path: Path | str, *, wait_seconds: float = 60.0) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if missing). The system frees it when the process dies.

    Raises InputError when another process still holds it after `wait_seconds`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_seconds
    with open(path, "a+") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise InputError(f"{path} is locked by another process; wait for it or end it") from None
                time.sleep(0.05)
        yield
