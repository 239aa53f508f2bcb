from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snnlib.errors import InputError
from snnlib.files import file_lock, remove_stale_parts, replacing, sha256_of, write_atomic


def test_file_is_replaced_whole_when_written_again(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "new" / "a.txt", "one\n")
    assert write_atomic(path, b"two").read_bytes() == b"two"
    assert os.listdir(path.parent) == ["a.txt"]


def test_old_file_stays_when_writing_fails(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_sha256_is_the_published_one_when_file_holds_abc(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "a", "abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_only_old_parts_are_removed_when_sweeping(tmp_path: Path) -> None:
    old, new, other = tmp_path / ".a.1-1.part", tmp_path / ".b.2-2.part", tmp_path / "c.part"
    for path in (old, new, other):
        path.write_text("")
    for path in (old, other):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    assert remove_stale_parts(tmp_path) == 1
    assert not old.exists() and new.exists() and other.exists()


def test_lock_is_refused_while_held_and_free_after_kill(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    code = """
import fcntl, sys, time
stream = open(sys.argv[1], "w")
fcntl.flock(stream, fcntl.LOCK_EX)
print(1, flush=True)
time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code, lock], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"1\n"
        with pytest.raises(InputError, match="is locked by another process"), file_lock(lock, wait_seconds=0):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with file_lock(lock, wait_seconds=5):
        pass
