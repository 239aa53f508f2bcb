from __future__ import annotations

import io
import os
import random
import socket
import tarfile

import pytest

from snnlib.data.checked_files import download, extract_checked, require_all_md5, require_md5, staged_folder
from snnlib.errors import InputError

FILES = {"first.bin": bytes(range(256)) * 400, "second.bin": b"second" * 5000}


@pytest.fixture
def table(make):
    return make.md5_table(FILES)


def everything_below(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_files_pass_when_checksums_match(make, table, tmp_path):
    require_all_md5(make.write_files(tmp_path / "data", FILES), table, "get it again")


def test_file_is_named_with_both_checksums_and_remedy_when_content_differs(make, tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"changed")
    message = f"x.bin is corrupt or truncated .MD5 {make.md5(b'changed')}, expected {make.md5(b'x')}.: get it"
    with pytest.raises(InputError, match=message) as error:
        require_md5(path, make.md5(b"x"), "get it again")
    assert "\n" not in str(error.value)


def test_missing_file_is_named_when_absent(table, make, tmp_path):
    folder = make.write_files(tmp_path / "data", {"first.bin": FILES["first.bin"]})
    with pytest.raises(InputError, match="second.bin is missing: get it again"):
        require_all_md5(folder, table, "get it again")


def test_staged_folder_appears_whole_when_block_ends_well(tmp_path):
    with staged_folder(tmp_path / "target") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "target").exists()
    assert everything_below(tmp_path) == ["target", "target/a"]


def test_nothing_is_left_when_staging_is_interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "target") as folder:
        (folder / "a").write_text("a")
        raise KeyboardInterrupt
    assert everything_below(tmp_path) == []


def test_first_copy_stays_when_another_process_was_quicker(tmp_path):
    with staged_folder(tmp_path / "target") as folder:
        (folder / "a").write_text("slower")
        (tmp_path / "target").mkdir()
        (tmp_path / "target" / "a").write_text("quicker")
    assert (tmp_path / "target" / "a").read_text() == "quicker"
    assert everything_below(tmp_path) == ["target", "target/a"]


def test_only_named_files_are_extracted_when_archive_has_more(make, table, tmp_path):
    archive = tmp_path / "a.tar.gz"
    members = {f"package/some/{name}": content for name, content in FILES.items()}
    archive.write_bytes(make.tar_gz({"package/readme": b"text", **members}))
    extract_checked(archive, table, tmp_path / "target", "again")
    assert everything_below(tmp_path / "target") == sorted(FILES)
    assert all((tmp_path / "target" / name).read_bytes() == content for name, content in FILES.items())


def test_nothing_lands_outside_when_archive_paths_climb(make, table, tmp_path):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(make.tar_gz({f"../../{name}": content for name, content in FILES.items()}))
    inside = tmp_path / "inside"
    inside.mkdir()
    extract_checked(archive, table, inside / "target", "again")
    assert everything_below(tmp_path) == ["a.tar.gz", "inside", "inside/target"] + [
        f"inside/target/{name}" for name in sorted(FILES)
    ]


def test_links_are_not_followed_when_they_carry_a_wanted_name(make, table, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as members:
        link = tarfile.TarInfo("first.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        members.addfile(link)
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="does not contain first.bin"):
        extract_checked(archive, table, tmp_path / "target", "again")
    assert everything_below(tmp_path) == ["a.tar.gz"]


@pytest.mark.parametrize("kept", [0, 5, 0.5, 0.99], ids=["empty", "header", "half", "tail"])
def test_nothing_is_left_when_archive_is_truncated(kept, make, table, tmp_path):
    whole = make.tar_gz({name: os.urandom(1000) + content for name, content in FILES.items()})
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(whole[: kept if isinstance(kept, int) else int(len(whole) * kept)])
    with pytest.raises(InputError, match="a.tar.gz is corrupt or truncated .*: get it again"):
        extract_checked(archive, table, tmp_path / "target", "get it again")
    assert everything_below(tmp_path) == ["a.tar.gz"]


def test_nothing_is_left_when_archive_is_no_archive(table, tmp_path):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(b"<html>please log in to this network</html>")
    with pytest.raises(InputError, match="a.tar.gz is corrupt or truncated"):
        extract_checked(archive, table, tmp_path / "target", "get it again")
    assert everything_below(tmp_path) == ["a.tar.gz"]


@pytest.mark.parametrize("kind", ["absent", "folder"])
def test_nothing_is_left_when_archive_is_absent_or_a_folder(kind, table, tmp_path):
    archive = tmp_path / "a.tar.gz"
    if kind == "folder":
        archive.mkdir()
    with pytest.raises(InputError, match="a.tar.gz cannot be unpacked .*: get it again") as error:
        extract_checked(archive, table, tmp_path / "target", "get it again")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=f"a.tar.gz is {'no file' if kind == 'folder' else 'missing'}: get it"):
        require_md5(archive, "", "get it")
    assert everything_below(tmp_path) == (["a.tar.gz"] if kind == "folder" else [])


def test_any_damage_of_an_archive_is_one_line_or_harmless(make, table, tmp_path):
    whole = bytearray(make.tar_gz({name: os.urandom(300) + content[:2000] for name, content in FILES.items()}))
    draws, archive = random.Random(1), tmp_path / "a.tar.gz"
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(draws.choice((1, 3, 30))):
            damaged[draws.randrange(len(whole))] = draws.randrange(256)
        archive.write_bytes(damaged[: draws.choice((len(whole), draws.randrange(len(whole))))])
        with pytest.raises(InputError, match="a.tar.gz|first.bin|second.bin") as error:
            extract_checked(archive, table, tmp_path / "target", "get it again")
        assert "\n" not in str(error.value) and everything_below(tmp_path) == ["a.tar.gz"]


def test_one_clear_line_when_the_folder_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), staged_folder(tmp_path / "file" / "target"):
        pass


def test_nothing_is_left_when_extracted_file_has_another_checksum(make, table, tmp_path):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(make.tar_gz({**FILES, "second.bin": b"other"}))
    with pytest.raises(InputError, match="second.bin is corrupt"):
        extract_checked(archive, table, tmp_path / "target", "get it again")
    assert everything_below(tmp_path) == ["a.tar.gz"]


def test_file_arrives_when_download_has_its_checksum(make, served, tmp_path):
    folder, address = served
    (folder / "x.bin").write_bytes(b"content")
    download(f"{address}/x.bin", make.md5(b"content"), tmp_path / "new" / "x.bin", "check the network")
    assert (tmp_path / "new" / "x.bin").read_bytes() == b"content"
    assert everything_below(tmp_path) == ["new", "new/x.bin"]


def test_nothing_is_left_when_download_has_another_checksum(make, served, tmp_path):
    folder, address = served
    (folder / "x.bin").write_bytes(b"conten")
    with pytest.raises(InputError, match="x.bin is corrupt or truncated"):
        download(f"{address}/x.bin", make.md5(b"content"), tmp_path / "x.bin", "check the network")
    assert everything_below(tmp_path) == []


def test_one_clear_line_when_server_does_not_have_the_file(make, served, tmp_path):
    with pytest.raises(InputError, match="absent could not be downloaded .*404.*: check the network"):
        download(f"{served[1]}/absent", make.md5(b""), tmp_path / "x.bin", "check the network")
    assert everything_below(tmp_path) == []


def test_one_clear_line_and_timeout_restored_when_there_is_no_network(make, tmp_path):
    before = socket.getdefaulttimeout()
    with pytest.raises(InputError, match="could not be downloaded .*: check the network") as error:
        download(make.unreachable, make.md5(b""), tmp_path / "x.bin", "check the network")
    assert "\n" not in str(error.value)
    assert everything_below(tmp_path) == []
    assert socket.getdefaulttimeout() == before
