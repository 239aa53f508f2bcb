"""Which modules a result depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

import snnlib
from snnlib.companion.measure import code_imports
from snnlib.companion.measure.code_imports import INFRASTRUCTURE, imports_of
from snnlib.errors import InputError

PACKAGE = "snnlib.made_up"
CACHES = (code_imports._direct_imports, code_imports._tree, code_imports._path)


@pytest.fixture
def write_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that writes the modules of a made-up package `snnlib.made_up`."""
    folder = tmp_path / "made_up"
    folder.mkdir()
    monkeypatch.setattr(snnlib, "__path__", [*snnlib.__path__, str(tmp_path)])

    def write(**modules: str) -> None:
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
    assert short(imports_of(f"{PACKAGE}.a", without=(PACKAGE,))) == {"a"}


def test_module_imported_from_its_package_is_itself(write_package):
    write_package(a="from snnlib.made_up import b\nimport snnlib.made_up.c\n", b="", c="")
    assert short(imports_of(f"{PACKAGE}.a")) == {"a", "b", "c"}


def test_circles_end(write_package):
    write_package(a="from snnlib.made_up.b import x\n", b="from snnlib.made_up.a import y\n")
    assert short(imports_of(f"{PACKAGE}.a")) == {"a", "b"}


def test_storage_and_display_do_not_name_a_result():
    assert not set(INFRASTRUCTURE) & set(imports_of("snnlib.companion.measure.networks"))
    assert all(code_imports._path(name) for name in INFRASTRUCTURE), "a module of the list was renamed"


def test_one_line_error_for_an_unknown_module():
    with pytest.raises(InputError, match="'snnlib.nothing'.*such as 'snnlib.attacks'"):
        imports_of("snnlib.nothing")
