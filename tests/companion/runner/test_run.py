from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from snnlib.companion import paths
from snnlib.companion.measure import time_limit
from snnlib.companion.runner import run
from snnlib.files import file_lock

TELL = "with open('order.txt', 'a') as stream:\n    stream.write('{} ')"  # cwd is the project


def order(home: Path) -> str:
    return (home / "order.txt").read_text().strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "tiny"], "unknown profile 'tiny'; expected one of: smoke, quick, night, paper"),
        (["--only", "10,77"], "unknown notebook 77; expected some of: 10, 11"),
        (["--only", ","], "unknown notebook ','"),
        (["--set", "sizes=3"], "no chosen notebook has the parameter 'sizes'; they have: size"),
        (["--only", "11", "--set", "size=3"], "no chosen notebook has the parameter 'size'; they have: none"),
        (["--set", "size=three"], "parameter size is 'three'; expected int"),
        (["--set", "size"], "--set 'size'; expected key=value"),
        (["--set", "profile=smoke"], "use --profile for it"),
        (["--data-dir", "/no/such/folder"], "data folder '/no/such/folder' does not exist"),
        (["--publish", "--profile", "smoke"], "--publish with profile 'smoke'"),
        (["--dry-run", "--only", "10"], "--dry-run with --only '10'; expected --profile alone beside it"),
        (["--dry-run", "--only", ""], "--dry-run with --only ''"),
        (["--dry-run", "--force"], "--dry-run with --force; expected --profile alone beside it; leave --force out"),
        (["--dry-run", "--list"], "--dry-run with --list;"),
        (["--dry-run", "--publish"], "--dry-run with --publish;"),
        (["--dry-run", "--publish", "--profile", "smoke"], "--dry-run with --publish;"),
        (["--dry-run", "--set", "size=3"], "--dry-run with --set 'size=3'; expected --profile alone"),
        (["--dry-run", "--data-dir", "sets"], "--dry-run with --data-dir 'sets'"),
        (["--dry-run", "--profile", "tiny"], "unknown profile 'tiny'"),
        (["--dry-run", "--time-limit", "2h"], "--dry-run with --time-limit '2h'"),
        (["--dry-run", "--from-released"], "--dry-run with --from-released;"),
        (["--from-released", "--jobs", "local:2"], "--from-released with --jobs local:2; expected one of them"),
        (["--dry-run", "--at-once", "2"], "--dry-run with --at-once '2'"),
        (["--at-once", "0"], "--at-once is 0; expected"),
        (["--time-limit", "soon"], "time limit is 'soon'; expected a number and s, m or h, such as 100m"),
        (["--time-limit", "0m"], "time limit is '0m'"),
        (["--froce"], "unrecognized arguments: --froce"),
        (["--prof", "smoke"], "unrecognized arguments"),
    ],
)
def test_exit_code_2_and_one_line_when_option_is_wrong(
    home: Path, add_notebook, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    add_notebook("10_a", parameters="size = 3")
    add_notebook("11_b")
    assert run.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert not paths.ARTIFACTS.exists()


def test_each_notebook_runs_once_by_number_and_again_only_when_its_code_changes(home: Path, add_notebook) -> None:
    add_notebook("12_c", TELL.format(12))
    add_notebook("10_a", TELL.format(10))
    assert run.main(["--profile", "smoke"]) == 0
    assert order(home) == "10 12"
    add_notebook("10_a", TELL.format(10), prose="Better words.")
    assert run.main(["--profile", "smoke"]) == 0
    assert order(home) == "10 12"
    add_notebook("10_a", TELL.format(10) + "\nx = 1")
    assert run.main(["--profile", "smoke", "--only", "12"]) == 0
    assert order(home) == "10 12", "a notebook makes what it needs: no other runs for it"
    assert run.main(["--profile", "smoke"]) == 0
    assert order(home) == "10 12 10"
    assert run.main(["--profile", "smoke", "--only", "12", "--force"]) == 0
    assert order(home) == "10 12 10 12"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("100m", 6000), ("1.5h", 5400)])
def test_time_limit_is_read_in_its_unit(text: str, seconds: float) -> None:
    assert time_limit.seconds_of(text) == seconds


def test_what_the_time_limit_leaves_is_done_by_the_next_start(
    home: Path, add_notebook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SNNLIB_DEADLINE", "inf")  # so that what the run sets ends with the test
    cut = "from snnlib.companion.measure.time_limit import OutOfTime, seconds_left\n"
    wait = "import os, time\nwhile time.time() < float(os.environ['SNNLIB_DEADLINE']) < 1e11: time.sleep(0.1)\n"
    add_notebook("10_a", f"{cut}{wait}seconds_left()", TELL.format(10))
    add_notebook("11_b", TELL.format(11))
    assert run.main(["--profile", "smoke", "--time-limit", "5s"]) == 1
    out = capsys.readouterr().out
    assert "OutOfTime: the time limit has passed; start again to go on" in out and "FAILED" not in out
    assert "11_b  left for another start" in out and "2 of 2 notebooks are not done: 10, 11" in out
    assert not (home / "order.txt").exists()
    monkeypatch.setenv("SNNLIB_DEADLINE", "inf")
    assert run.main(["--profile", "smoke"]) == 0
    assert order(home) == "10 11"


REFUSED = """from dataclasses import replace
from snnlib.companion.measure.networks import Network, trained
from snnlib.companion.sizes import get_profile
trained(Network("toy", "sew_resnet18"), replace(get_profile("smoke"), rounded=True, width=4), 0)"""


@pytest.mark.parametrize("at_once", ["1", "2"])
def test_from_released_refuses_a_training_and_runs_the_other_notebooks(
    home: Path, add_notebook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at_once: str
) -> None:
    monkeypatch.setenv("SNNLIB_FROM_RELEASED", "")  # so that what the run sets ends with the test
    add_notebook("10_a", REFUSED)
    add_notebook("11_b", TELL.format(11))
    assert run.main(["--profile", "smoke", "--from-released", "--at-once", at_once]) == 1
    out = capsys.readouterr().out
    assert "published rows of profile smoke: 0 taken, 0 here already, 0 left out" in out
    assert "InputError: toy, seed 0, is not among the released networks of profile smoke" in out
    assert "1 of 2 notebooks are not done: 10" in out and order(home) == "11"
    assert not list((paths.ARTIFACTS / "networks").glob("*"))


def test_settings_and_data_folder_reach_the_notebook(home: Path, add_notebook) -> None:
    (home / "sets").mkdir()
    add_notebook("10_a", "print(profile, size, data_dir)", parameters="size = 3\ndata_dir = None")
    assert run.main(["--profile", "smoke", "--set", "size=5", "--data-dir", str(home / "sets")]) == 0
    executed = json.loads((paths.runs_dir("smoke") / "notebooks" / "10_a.ipynb").read_text())
    assert executed["cells"][-1]["outputs"][0]["text"] == [f"smoke 5 {home / 'sets'}\n"]


def test_exit_code_2_when_the_profile_is_already_running(
    home: Path, add_notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    add_notebook("10_a")
    with file_lock(paths.runs_dir("smoke") / "run.lock"):
        assert run.main(["--profile", "smoke"]) == 2
    assert "is locked by another process" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{half", "[1]"])
def test_damaged_timings_count_as_not_there(home: Path, text: str) -> None:
    run.timings_path("smoke").parent.mkdir(parents=True)
    run.timings_path("smoke").write_text(text)
    assert run.read_timings("smoke") == {}


def test_time_left_is_told_as_far_as_known() -> None:
    assert run.time_left({}, ["10", "11"]) == ""
    assert run.time_left({"10": 40.0}, ["10", "11"]) == ", at least 0:40 left"
    assert run.time_left({"10": 40.0, "11": 3600.4}, ["10", "11"]) == ", about 1:00:40 left"


@pytest.mark.parametrize("profile", paths.PROFILE_NAMES)
def test_dry_run_prints_the_cost_and_runs_nothing(
    home: Path,
    add_notebook,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    profile: str,
) -> None:
    from snnlib.companion.runner import dry_run

    add_notebook("10_a", TELL.format(10))
    monkeypatch.setattr(dry_run, "report", lambda name, measure: f"cost of {name}")
    assert run.main(["--dry-run", "--profile", profile]) == 0
    assert capsys.readouterr() == (f"cost of {profile}\n", "")
    assert not (home / "order.txt").exists() and not paths.ARTIFACTS.exists()


def test_the_cost_model_is_not_imported_without_a_dry_run() -> None:
    code = "import sys, snnlib.companion.runner.run; sys.exit('snnlib.companion.runner.cost' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
