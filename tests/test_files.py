from __future__ import annotations

import errno
import os
import platform
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from snnlib import files
from snnlib.errors import InputError
from snnlib.files import check_target, file_lock, remove_stale_parts, replacing, sha256_of, user_path, write_atomic


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


def test_a_file_has_the_usual_permissions_whoever_wrote_it(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with replacing(tmp_path / "weights") as temporary:
        save_file({"w": torch.zeros(2)}, temporary)  # readable by its owner alone
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "weights")}
    assert len(modes) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_one_line_and_the_old_file_when_the_system_refuses(tmp_path: Path, monkeypatch, number: int) -> None:
    path = write_atomic(tmp_path / "a.txt", "old")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(InputError, match=f"a.txt cannot be written .{os.strerror(number)}.; make room") as refusal:
        write_atomic(path, "new")
    assert "\n" not in str(refusal.value)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_one_line_when_a_file_stands_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "a.txt", "new")
    with pytest.raises(InputError, match="cannot be written"), file_lock(tmp_path / "file" / "x.lock"):
        pass


def test_sha256_is_the_published_one_when_file_holds_abc(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "a", "abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def _ended_process() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_parts_of_the_dead_and_old_ones_are_removed_when_sweeping(tmp_path: Path) -> None:
    node, dead = platform.node(), _ended_process()
    left = [tmp_path / f".a.{node}-{dead}-1.part", tmp_path / "below" / f".b.elsewhere-{os.getpid()}-2.part"]
    kept = [tmp_path / f".a.{node}-{os.getpid()}-1.part", tmp_path / f".a.elsewhere-{dead}-1.part", tmp_path / "c.part"]
    (tmp_path / "below").mkdir()
    for path in left + kept:
        path.write_text("")
    for path in (left[1], kept[2]):
        os.utime(path, (time.time() - 1e6, time.time() - 1e6))
    assert remove_stale_parts(tmp_path) == 2
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


def test_what_killed_writers_left_goes_when_the_folder_is_written_to_again(tmp_path: Path) -> None:
    code = """
import os, sys, signal
from snnlib.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    (tmp_path / ".film.part").write_text("of somebody else")
    for name in ("a.txt", "b.txt"):
        subprocess.run([sys.executable, "-c", code, tmp_path / name], check=False)
        assert sorted(path[:2] for path in os.listdir(tmp_path)) == sorted([".f", f".{name[0]}"])
    write_atomic(tmp_path / "c.txt", "whole")
    assert sorted(os.listdir(tmp_path)) == [".film.part", "c.txt"]


def test_a_folder_is_looked_through_once_however_much_is_written_there(tmp_path: Path, monkeypatch) -> None:
    looks = []
    monkeypatch.setattr(files, "remove_stale_parts", lambda *place, **how: looks.append(place))
    for number in range(5):
        write_atomic(tmp_path / f"{number}", "")
    assert looks == [(tmp_path,)]


def test_a_temporary_folder_is_gone_at_the_end_and_so_are_the_leftovers_of_others(tmp_path: Path) -> None:
    left = tmp_path / f".data.{platform.node()}-{_ended_process()}-1.part"
    left.mkdir()
    (left / "half").write_text("half")
    with pytest.raises(KeyboardInterrupt), files.temporary_folder(tmp_path / "data") as folder:
        assert os.listdir(tmp_path) == [folder.name]
        (folder / "a").write_text("a")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_lock_is_refused_while_held_and_free_after_kill(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "x.lock"
    code = """
import sys, time
from snnlib.files import file_lock
with file_lock(sys.argv[1]):
    print(1, flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code, lock], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"1\n"
        with pytest.raises(InputError, match="is locked by another process; wait"), file_lock(lock, wait_seconds=0):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with file_lock(lock, wait_seconds=5):
        pass
    with file_lock(lock, wait_seconds=0):
        pass


def test_a_target_is_tried_and_nothing_is_left(tmp_path: Path) -> None:
    check_target(tmp_path / "new" / "deeper" / "page.html", "--out")
    (tmp_path / "old.html").write_text("old")
    check_target(tmp_path / "old.html", "--out")
    assert os.listdir(tmp_path) == ["old.html"] and (tmp_path / "old.html").read_text() == "old"


@pytest.mark.parametrize("place", [".", "file/page.html", "/dev/null", "/proc/page.html", "n" * 300])
def test_a_target_that_cannot_be_written_is_named_with_its_option(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out is ") as refusal:
        check_target(tmp_path / place, "--out")
    assert "\n" not in str(refusal.value)


def test_home_is_put_in_and_an_unknown_user_refused(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert user_path("~/a") == Path("/somewhere/a") and user_path("a~") == Path("a~")
    with pytest.raises(InputError, match="~nobody-has-this-name/a has no home folder"):
        user_path("~nobody-has-this-name/a")
