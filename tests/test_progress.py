from __future__ import annotations

from pathlib import Path

import pytest

from snnlib import progress as progress_module
from snnlib.errors import InputError
from snnlib.progress import progress


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


@pytest.mark.parametrize("wanted", ["loud", "file:"])
def test_one_line_error_when_mode_is_unknown(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("SNNLIB_PROGRESS", wanted)
    with pytest.raises(InputError, match=f"'{wanted}'; expected off, bar, lines or file:PATH"):
        progress(range(3), label="x")
