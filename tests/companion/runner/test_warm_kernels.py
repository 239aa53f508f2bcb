"""Kernels that are forked: the same as others in all that a notebook sees, and gone with whoever started them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from snnlib.companion import paths
from snnlib.companion.runner import run
from snnlib.companion.runner.warm_kernels import FOLDER, warm_kernels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")
SEEN = """import json, os, sys
shown = {name: value for name, value in os.environ.items() if name not in ("JPY_PARENT_PID", "SNNLIB_WARM_KERNELS")}
flags = [sys.executable, os.getcwd(), hash("text"), __name__, sorted(sys.path), sys.flags.dev_mode, __debug__]
print(json.dumps([shown, flags]))
"""
TOLD = "import sys\nprint('tarfile' in sys.modules)  # of snnlib"
ENDLESS = "import os, time\nopen('pid', 'w').write(f'{os.getpid()} {os.getppid()}')\ntime.sleep(600)"
RUN_WARM = """import sys
from snnlib.companion.runner import run
from snnlib.companion.runner.warm_kernels import warm_kernels
with warm_kernels(["tarfile"]):
    sys.exit(run.main(["--profile", "smoke", *sys.argv[1:]]))
"""
WIDE = """import pandas
table = pandas.DataFrame([['a long word in a cell'] * 9])
print('a long word' in repr(table), '...' in repr(table))"""
FIGURE = "import matplotlib.pyplot as plt\nplt.figure().gca().plot([1, 2]);"


def pictures(name: str) -> int:
    """How many figures of the notebook are shown in it."""
    return (paths.runs_dir("smoke") / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8").count('"image/png"')


def outputs(name: str, profile: str = "smoke") -> list[str]:
    """What each cell printed that did."""
    path = paths.runs_dir(profile) / "notebooks" / f"{name}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(each["text"]) for cell in cells for each in cell.get("outputs", []) if "text" in each]


def test_a_forked_kernel_shows_a_notebook_what_any_other_does(home: Path, add_notebook: Callable[..., Path]) -> None:
    add_notebook("10_a", SEEN, TOLD)
    with warm_kernels(["tarfile"]):
        assert run.main(["--profile", "smoke"]) == 0
        forked = outputs("10_a")
    assert run.main(["--profile", "smoke", "--force"]) == 0
    assert (forked[1].strip(), outputs("10_a")[1].strip()) == ("True", "False")
    assert json.loads(forked[0]) == json.loads(outputs("10_a")[0])


def test_a_forked_kernel_that_leaves_early_fails_its_notebook_alone(
    home: Path, add_notebook: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    leave = "import sys; sys.exit(0)", "import os; os._exit(0)", "import os; os.kill(os.getpid(), 9)", "1 / 0"
    for number, code in enumerate(leave, start=10):
        add_notebook(f"{number}_a", code, "print('the rest')")
    add_notebook("20_b", TOLD)
    with warm_kernels(["tarfile"]):
        assert run.main(["--profile", "smoke", "--at-once", "2"]) == 1
    assert "4 of 5 notebooks are not done: 10, 11, 12, 13" in capsys.readouterr().out
    assert outputs("20_b") == ["True\n"]


@pytest.mark.parametrize(("number", "at_once"), [(signal.SIGKILL, "1"), (signal.SIGKILL, "2"), (signal.SIGINT, "2")])
def test_server_and_kernels_end_with_the_runner(
    home: Path,
    add_notebook: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    wait_for: Callable[..., None],
    is_alive: Callable[[int], bool],
    number: int,
    at_once: str,
) -> None:
    add_notebook("10_a", ENDLESS)
    temporary = home / "temporary" / ("long" * 25)  # more than a socket's address may have
    temporary.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(temporary))
    command = [sys.executable, "-c", RUN_WARM, "--at-once", at_once]
    said = home / "said"
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=said.open("w"),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    try:
        wait_for(lambda: (home / "pid").is_file() and (home / "pid").read_text())
        kernel, server = map(int, (home / "pid").read_text().split())
        assert b"serve" in Path(f"/proc/{server}/cmdline").read_bytes() and list(temporary.glob("snnlib-*"))
        process.send_signal(number)
        assert process.wait(60) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    finally:
        process.kill()
    wait_for(lambda: not is_alive(kernel) and not is_alive(server))
    wait_for(lambda: not list(temporary.glob("snnlib-*")))
    assert "Traceback" not in said.read_text(encoding="utf-8")


def test_without_a_server_that_answers_a_kernel_starts_by_itself(
    home: Path, add_notebook: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    add_notebook("10_a", TOLD)
    with warm_kernels(["no_such_module"]):
        assert run.main(["--profile", "smoke"]) == 0
    assert outputs("10_a") == ["False\n"] and "no_such_module" in capfd.readouterr().err
    monkeypatch.setenv(FOLDER, str(home / "nobody"))
    assert run.main(["--profile", "smoke", "--force"]) == 0
    assert outputs("10_a") == ["False\n"]


def test_several_notebooks_of_the_library_are_forked_behind_what_they_import(
    home: Path, add_notebook: Callable[..., Path]
) -> None:
    told = "import sys\nprint('torch' in sys.modules)\nimport snnlib"
    add_notebook("10_a", told, FIGURE, WIDE)
    add_notebook("11_b", told, FIGURE, WIDE)
    assert run.main(["--profile", "smoke"]) == 0
    assert outputs("10_a") == outputs("11_b") == ["True\n", "True False\n"]
    assert pictures("10_a") == pictures("11_b") == 1
    assert FOLDER not in os.environ
    assert run.main(["--profile", "smoke", "--only", "10", "--force"]) == 0
    assert outputs("10_a") == ["False\n", "True False\n"], "one alone gains nothing"
    assert pictures("10_a") == 1


def test_a_command_may_run_around_forked_kernels(home: Path) -> None:
    command = [sys.executable, "-m", "snnlib.companion.runner.warm_kernels", "around", sys.executable, "-c"]
    told = subprocess.run([*command, f"import os, sys; sys.exit(len(os.environ['{FOLDER}']) > 9 and 7)"], check=False)
    assert told.returncode == 7
