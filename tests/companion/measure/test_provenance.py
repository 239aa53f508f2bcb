"""What made a result: the modules that it depends on, their digest, and the circumstances."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path

import pytest
import torch

import snnlib
from snnlib import runtime
from snnlib.companion import paths
from snnlib.companion.measure import provenance
from snnlib.companion.measure.provenance import INFRASTRUCTURE, circumstances, code_digest, imports_of
from snnlib.errors import InputError

PACKAGE = "snnlib.made_up"
CACHES = (provenance.code_digest, provenance._direct_imports, provenance._tree, provenance._path)


@pytest.fixture
def write_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that writes the modules of a made-up package `snnlib.made_up`."""
    folder = tmp_path / "made_up"
    folder.mkdir()
    monkeypatch.setattr(snnlib, "__path__", [*snnlib.__path__, str(tmp_path)])

    def write(**modules: str) -> None:
        for cached in CACHES:
            cached.cache_clear()
        for name, source in {"__init__": "", **modules}.items():
            (folder / f"{name}.py").write_text(source)

    yield write
    for cached in CACHES:
        cached.cache_clear()


def short(names: tuple[str, ...]) -> set[str]:
    return {name.removeprefix(f"{PACKAGE}.") for name in names}


def test_imports_are_followed_through_modules_and_functions(write_package):
    write_package(
        a="from snnlib.made_up.b import x\n",
        b="def f():\n    from snnlib.made_up.c import y\n",
        c="import math\n",
        d="",
    )
    assert short(imports_of(f"{PACKAGE}.a")) == {"a", "b", "c"}


def test_name_taken_from_a_package_leads_to_its_module_alone(write_package):
    write_package(
        __init__="from snnlib.made_up.b import x\nfrom snnlib.made_up.c import y as z\n",
        a="from snnlib.made_up import z\n",
        b="",
        c="",
    )
    assert short(imports_of(f"{PACKAGE}.a")) == {"a", "c"}


def test_registry_of_a_package_stands_for_everything_in_it(write_package):
    write_package(
        __init__="from snnlib.made_up.b import x\nALL = {'x': x}\n", a="from snnlib.made_up import ALL\n", b=""
    )
    assert short(imports_of(f"{PACKAGE}.a")) == {"a", "b", PACKAGE}


def test_module_imported_from_its_package_is_itself(write_package):
    write_package(a="from snnlib.made_up import b\nimport snnlib.made_up.c\n", b="", c="")
    assert short(imports_of(f"{PACKAGE}.a")) == {"a", "b", "c"}


def test_circles_end(write_package):
    write_package(a="from snnlib.made_up.b import x\n", b="from snnlib.made_up.a import y\n")
    assert short(imports_of(f"{PACKAGE}.a")) == {"a", "b"}


def test_storage_and_display_are_no_part_of_what_made_a_result():
    assert not set(INFRASTRUCTURE) & set(imports_of("snnlib.companion.measure.networks"))
    assert all(provenance._path(name) for name in INFRASTRUCTURE), "a module of the list was renamed"


def test_one_line_error_for_an_unknown_module():
    with pytest.raises(InputError, match="'snnlib.nothing'.*such as 'snnlib.attacks'"):
        imports_of("snnlib.nothing")


def digest_of(write_package, source: str, **others: str) -> str:
    write_package(part=source, **others)
    return code_digest(f"{PACKAGE}.part")


def test_digest_stays_when_only_prose_changes(write_package):
    plain = digest_of(write_package, "def f(x):\n    return x + 1\n")
    prose = '"""Module."""\n\n# remark\ndef f(x):\n    """Doc."""\n    return (x +\n        1)  # why\n'
    assert digest_of(write_package, prose) == plain


def test_digest_changes_when_code_changes_here_or_in_what_it_imports(write_package):
    plain = digest_of(write_package, "def f(x):\n    return x + 1\n")
    assert digest_of(write_package, "def f(x):\n    return x + 2\n") != plain
    assert digest_of(write_package, 'def f(x):\n    return x + 1\ntext = "a string that is no docstring"\n') != plain
    using = "from snnlib.made_up.other import y\n"
    assert digest_of(write_package, using, other="y = 1\n") != digest_of(write_package, using, other="y = 2\n")
    assert digest_of(write_package, "y = 1\n", other="z = 1\n") == digest_of(write_package, "y = 1\n", other="z = 2\n")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache, which is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    provenance._known.cache_clear()
    yield provenance._cache_file()
    provenance._known.cache_clear()


def digest_of_another_start() -> str:
    code_digest.cache_clear()
    provenance._known.cache_clear()
    return code_digest("snnlib.energy")


def test_the_next_start_finds_the_digests_of_this_one(cache, monkeypatch):
    first = digest_of_another_start()
    assert len(json.loads(cache.read_text())) > 3
    monkeypatch.setattr(provenance.ast, "dump", None)
    assert digest_of_another_start() == first


@pytest.mark.parametrize("text", ["{half", "[1]", "7"])
def test_a_damaged_cache_counts_as_none_and_no_place_for_one_does_no_harm(cache, monkeypatch, text):
    first = digest_of_another_start()
    cache.write_text(text)
    assert digest_of_another_start() == first and json.loads(cache.read_text())
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert digest_of_another_start() == first


def test_circumstances_name_module_code_device_and_versions():
    made = circumstances("snnlib.neurons")
    assert made["module"] == "snnlib.neurons" and made["code"] == code_digest("snnlib.neurons")
    assert made["torch"] == torch.__version__ and made["threads"] == torch.get_num_threads()
    assert made["device"] == runtime.describe_device() and made["python"] == platform.python_version()


def test_commit_says_whether_files_differ_from_it(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        names = ("-c", "user.name=n", "-c", "user.email=e")
        done = subprocess.run(["git", *names, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit() -> str | None:
        provenance.git_commit.cache_clear()
        return provenance.git_commit()

    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() is None
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD")
    assert commit() == head
    (tmp_path / "untracked").write_text("no part of it")
    assert commit() == head
    (tmp_path / "file").write_text("two")
    assert commit() == head + "+"
    monkeypatch.setenv("PATH", "")
    assert commit() is None, "no git here"
    provenance.git_commit.cache_clear()
