from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from torch._inductor import compile_fx

from snnlib import progress as progress_module
from snnlib.errors import InputError
from snnlib.neurons import kernels
from snnlib.progress import progress, say


def test_nothing_is_shown_when_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SNNLIB_PROGRESS", "off")
    assert list(progress(range(3), label="x")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_short_loop_is_silent_when_in_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SNNLIB_PROGRESS", "lines")
    assert list(progress(range(3), label="x")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_whole_lines_with_counts_are_shown_when_in_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SNNLIB_PROGRESS", "lines")
    monkeypatch.setattr(progress_module, "LOG_SECONDS", 0.0)
    for _ in progress(range(4), label="epochs"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("epochs: 4/4 (100 %), 00:00 elapsed")
    assert len(lines) == len(set(lines))
    assert "\r" not in "".join(lines)


def test_lines_go_to_the_file_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("SNNLIB_PROGRESS", f"file:{tmp_path / 'p'}")
    monkeypatch.setattr(progress_module, "FILE_SECONDS", 0.0)
    bar = progress(total=5, label="rows")
    bar.update(2)
    bar.close()
    assert "rows: 2/5 (40 %)" in (tmp_path / "p").read_text().splitlines()[-1]
    assert capsys.readouterr().err == ""


class NotebookStream(io.StringIO):
    """What sys.stderr and sys.stdout are in a kernel, by the module that they come from."""


NotebookStream.__module__ = "ipykernel.iostream"


def test_a_notebook_gets_plain_text_and_nothing_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNLIB_PROGRESS", "bar")
    screen, errors = NotebookStream(), NotebookStream()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", errors)
    for _ in progress(range(3), label="rows"):
        pass
    say("compiling")
    assert errors.getvalue() == "" and "rows:" in screen.getvalue()
    assert screen.getvalue().endswith("\rcompiling\n"), "the bar takes itself away"


def test_what_is_said_goes_where_progress_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for mode in ("off", "lines", f"file:{tmp_path / 'p'}"):
        monkeypatch.setenv("SNNLIB_PROGRESS", mode)
        say(f"in {mode[:5]}")
    assert capsys.readouterr().err == "in lines\n"
    assert (tmp_path / "p").read_text() == "in file:\n"


def test_the_first_kernel_that_compiles_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(kernels, "say", said.append)
    monkeypatch.setattr(kernels, "_compilations", 0)
    monkeypatch.setattr(compile_fx, "compile_fx", lambda *_, **__: None)
    for _ in range(2):
        kernels._counting_inductor(None, [])
    assert len(said) == 1 and "compiles" in said[0]


@pytest.mark.parametrize("wanted", ["loud", "file:"])
def test_one_line_error_when_mode_is_unknown(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("SNNLIB_PROGRESS", wanted)
    with pytest.raises(InputError, match=f"'{wanted}'; expected off, bar, lines or file:PATH"):
        progress(range(3), label="x")
