from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from snnlib.companion import paths
from snnlib.companion.runner import apart, run

WAIT = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"


def test_failure_stops_no_other_notebook(home: Path, add_notebook, capsys: pytest.CaptureFixture[str]) -> None:
    add_notebook("10_a", "print('before')", "1 / 0", "print('after')")
    add_notebook("11_b")
    assert run.main(["--profile", "smoke"]) == 1
    out = capsys.readouterr().out
    partial = paths.runs_dir("smoke") / "unfinished" / "10_a.ipynb"
    assert "ZeroDivisionError: division by zero" in out and str(partial) in out
    assert "1 of 2 notebooks are not done: 10" in out
    assert "before" in partial.read_text()
    assert [path.name for path in (paths.runs_dir("smoke") / "notebooks").iterdir()] == ["11_b.ipynb"]
    lines = (paths.runs_dir("smoke") / "status.md").read_text().splitlines()[4:]
    assert [line.split("|")[3].strip() for line in lines] == ["failed", "ran"]


@pytest.mark.parametrize("code", ["import sys; sys.exit(0)", "raise SystemExit", "import os; os._exit(0)"])
def test_notebook_that_leaves_early_has_failed(
    home: Path, add_notebook, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    add_notebook("10_a", code, "print('the rest')")
    assert run.main(["--profile", "smoke"]) == 1
    assert "FAILED" in capsys.readouterr().out
    assert not (paths.runs_dir("smoke") / "stamps" / "10.json").exists()


def test_kernel_is_this_interpreter_with_clean_outputs(home: Path, add_notebook) -> None:
    code = (
        "import sys, os\nfrom snnlib.progress import progress\nfor _ in progress(range(3), label='x'): pass\n"
    )
    add_notebook("10_a", code + "print(sys.executable, os.getcwd())")
    assert run.main(["--profile", "smoke"]) == 0
    executed = json.loads((paths.runs_dir("smoke") / "notebooks" / "10_a.ipynb").read_text())
    (output,) = executed["cells"][-1]["outputs"]
    assert output["text"] == [f"{sys.executable} {home}\n"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks /proc whether the kernel is gone")
@pytest.mark.parametrize("at_once", ["1", "2"])
def test_only_the_notebook_in_progress_is_lost_when_killed(
    home: Path, add_notebook, at_once: str, wait_for, is_alive
) -> None:
    add_notebook("10_a", "open('runs.txt', 'a').write('10 ')")
    wait = f"import os, time\nwhile {at_once} == 2 and not os.path.exists('runs.txt'): time.sleep(0.1)\n"
    first_time = f"{wait}if not os.path.exists('pid'):\n    {WAIT}\n"
    add_notebook("11_b", first_time + "open('runs.txt', 'a').write('11 ')")
    command = [sys.executable, "-m", "snnlib.companion.runner", "--profile", "smoke", "--at-once", at_once]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: (home / "pid").is_file() and (home / "pid").read_text())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kernel = int((home / "pid").read_text())
    wait_for(lambda: not is_alive(kernel))
    assert (home / "runs.txt").read_text() == "10 "
    assert run.main(["--profile", "smoke"]) == 0
    assert (home / "runs.txt").read_text() == "10 11 "
    assert not list(home.rglob("*.part")) and not list((paths.runs_dir("smoke") / "unfinished").iterdir())


@pytest.mark.parametrize("at_once", ["1", "2"])
def test_exit_code_130_and_no_kernel_left_when_interrupted(
    home: Path, add_notebook, at_once: str, wait_for, is_alive
) -> None:
    add_notebook("10_a", WAIT)
    command = [sys.executable, "-m", "snnlib.companion.runner", "--profile", "smoke", "--at-once", at_once]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore SIGINT, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for(lambda: (home / "pid").is_file() and (home / "pid").read_text())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.strip() == "interrupted; the next start continues here"
    wait_for(lambda: not is_alive(int((home / "pid").read_text())))


def test_the_next_notebook_is_of_a_chapter_that_nobody_runs_and_two_of_the_series_run_alone() -> None:
    waiting, alone = ["11", "12", "20", "40", "99"], ("40", "99")
    assert run.next_of(waiting, ["10"], alone) == "20" and run.next_of(waiting, ["20"], alone) == "11"
    assert run.next_of(["11", "12", "40"], ["10"], alone) == "11", "rather one of the same chapter than none"
    assert run.next_of(["40", "99"], ["12"], alone) is None and run.next_of(["40", "99"], [], alone) == "40"
    assert run.next_of(["11", "99"], ["40"], alone) is None and run.next_of(["99"], [], alone) == "99"
    assert run.next_of([], [], alone) is None and run.next_of([], ["10"], alone) is None


def test_notebooks_run_at_the_same_time_and_the_last_of_the_series_after_them(home: Path, add_notebook) -> None:
    meet = "import os, time\nopen('{0}', 'w')\nwhile not os.path.exists('{1}'): time.sleep(0.1)\n"
    add_notebook("10_a", meet.format("ten", "eleven"), "time.sleep(1); open(f'10.{os.getppid()}', 'w')")
    add_notebook("11_b", meet.format("eleven", "ten"), "open(f'11.{os.getppid()}', 'w')")
    both = "import glob, os\nassert glob.glob('10.*') and glob.glob('11.*')"
    add_notebook("99_c", both, "open(f'99.{os.getppid()}', 'w')")
    command = [sys.executable, "-m", "snnlib.companion.runner", "--profile", "smoke", "--at-once", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(run.read_timings("smoke")) == ["10", "11", "99"]
    before, processes = [path.suffix for path in home.glob("1?.*")], [path.suffix for path in home.glob("??.*")]
    assert len(before) == len(set(before)) == 2 and len(processes) == 3 and set(processes) == set(before)


def test_a_notebook_whose_process_dies_has_failed_alone(home: Path, add_notebook) -> None:
    add_notebook("10_a", "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)")
    add_notebook("11_b")
    command = [sys.executable, "-m", "snnlib.companion.runner", "--profile", "smoke", "--at-once", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "10_a  FAILED after 0:00: its process died" in done.stdout
    assert "1 of 2 notebooks are not done: 10" in done.stdout


def test_a_process_that_has_died_since_its_last_answer_is_replaced(wait_for) -> None:
    processes = apart.Processes()
    first = processes.call(os.getpid).result()
    assert processes.call(os.getpid).result() == first, "it waits for another call"
    os.kill(first, signal.SIGKILL)
    wait_for(processes.idle[0].poll)  # its end has come through
    assert processes.call(os.getpid).result() != first
    with pytest.raises(apart.ProcessDied):
        processes.call(os._exit, 1).result()
    assert processes.idle == []
