"""Every command of the README runs, in a small project of the same shape: the script, notebooks, a test, a page."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from snnlib.bench import speed
from snnlib.companion.runner import run, work
from snnlib.companion.runner.items import Item
from snnlib.neurons import use_kernel

REPOSITORY = Path(__file__).resolve().parents[3]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
SCRIPT = (REPOSITORY / "run_all.sh").read_text(encoding="utf-8")
COMMANDS = [words.strip() for words in re.findall(r"^ *(?:\d\. .*?`)?\./run_all\.sh([^#`\n]*)", README, flags=re.M)]
OF_THE_VENV = re.findall(r"^\.venv/bin/(.*?) *(?:#.*)?$", README, flags=re.M)
REAL_NUMBERS = [path.name[:2] for path in (REPOSITORY / "notebooks").glob("*.ipynb")]
SAYS = 'print(f"notebook {number} at {profile} with data {data_dir!r}")'
MEASURE = "def measure(seed: int, lr: float) -> dict:\n    return {'product': seed * lr}\n"
PAGE = """from pathlib import Path

target = Path(__file__).parent.parent / "artifacts" / "site" / "html" / "index.html"
target.parent.mkdir(parents=True)
target.write_text("<h1>page</h1>")
"""
REAL_LIST = "--dry-run", "--jobs", "sweep"  # of the project's own networks, or by processes of the runner's


def missing() -> dict[bool, list[str]]:
    """What the script asks of an environment and this one lacks: True: for the page alone, False: for the rest."""
    lines = re.findall(r'^(.*)modules="([^"]*)"', SCRIPT, flags=re.M)
    words = {False: set(), True: set()}
    for before, names in lines:
        words["docs" in before] |= {name for name in names.split() if name[0] != "$"}
    return {of_page: sorted(name for name in names if find_spec(name) is None) for of_page, names in words.items()}


def numbers_of(command: str) -> list[str]:
    """The notebooks that the command names; two where it is about all of them."""
    line = re.findall(r'^step .*"\$\{smoke.*', SCRIPT, flags=re.M)[0] if command == "test" else command
    named = re.findall(r"--only ([\d,]+)", line)
    return named[0].split(",") if named else ["12", "13"]


@pytest.fixture
def series(request: pytest.FixtureRequest) -> list[str]:
    """The small project's notebooks: those that the command runs, and one more where it names some."""
    command = getattr(request.node, "callspec", None)
    command = command.params["command"] if command else ""
    return [*numbers_of(command), *["11"] * ("--only" in command)]


@pytest.fixture
def project(
    home: Path, series: list[str], add_notebook: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """`home` with all that the command names."""
    for number in series:
        add_notebook(f"{number}_toy", SAYS, parameters=f'number = "{number}"\ndata_dir = ""')
    for name in ("run_all.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, home / name)
    for name, text in {"tests/test_toy.py": "def test_toy() -> None:\n    pass\n", "docs/build.py": PAGE,
                       "mine.py": MEASURE, "D/README": ""}.items():  # fmt: skip
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(home)
    monkeypatch.setenv("CONDA_PREFIX", sys.prefix)  # an environment that has all: nothing is installed
    for name in missing()[True]:  # which the page that is built here does not need
        (home / "stubs" / name).mkdir(parents=True)
        (home / "stubs" / name / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), str(home / "stubs")]))
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST"):
        monkeypatch.delenv(name, raising=False)
    return home


def shell(command: str) -> str:
    """What the command printed. It has to end well."""
    if (lacking := missing()[False]) or not (Path(sys.prefix) / "bin" / "python").exists():
        pytest.skip(f"run_all.sh would install {', '.join(lacking) or 'a Python'}")
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=600, check=False)
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-2000:]
    return answer.stdout


def said(project: Path, profile: str) -> set[str]:
    """What the notebooks said that have run at this profile."""
    texts = (path.read_text(encoding="utf-8") for path in project.glob(f"artifacts/{profile}/notebooks/*.ipynb"))
    return {line for text in texts for line in re.findall(r'"(notebook \d\d at .*?)\\n"', text)}


def test_the_commands_are_those_that_are_run_below() -> None:
    names = "sweep", "--dry-run", "--jobs", "docs", "test"
    kinds = [next((name for name in names if name in each), "series") for each in COMMANDS]
    expected = {"series": 8, "--dry-run": 2, "--jobs": 1, "sweep": 2, "docs": 1, "test": 1}
    assert {kind: kinds.count(kind) for kind in expected} == expected
    assert {number for command in COMMANDS for number in numbers_of(command)} < set(REAL_NUMBERS)
    assert OF_THE_VENV == ["python -m snnlib.bench", "jupyter lab notebooks"]


@pytest.mark.parametrize("command", [each for each in COMMANDS if not any(word in each for word in REAL_LIST)])
def test_a_command_of_the_script_does_what_it_says(command: str, project: Path, series: list[str]) -> None:
    printed, words = shell(f"./run_all.sh {command}"), shlex.split(command)
    if words == ["docs"]:
        assert (project / "artifacts/site/html/index.html").is_file()
    elif "--list" in words:
        assert printed.count("| not run |") == len(series) and not said(project, "quick")
    else:
        profile = "smoke" if words == ["test"] else "night" if "night" in words else "quick"
        data = str(project / "D") if "--data-dir" in words else ""
        expected = {f"notebook {number} at {profile} with data {data!r}" for number in numbers_of(command)}
        assert said(project, profile) == expected
    if words == ["test"]:
        assert "1 passed" in printed and "all checks passed" in printed
    if "--publish" in words:
        assert "notebook 12 at quick" in (project / "notebooks" / "12_toy.ipynb").read_text(encoding="utf-8")
        assert (project / "figures/quick/manifest.json").is_file()


@pytest.mark.parametrize("command", [each for each in COMMANDS if "--dry-run" in each])
def test_a_dry_run_prints_hours(command: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with use_kernel("reference"):  # what it times here is not looked at
        assert run.main(shlex.split(command)) == 0
    printed = capsys.readouterr().out
    assert "| " in printed and ("critical path" in printed.lower() or "Total:" in printed)


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("--profile") and "--jobs" in each])
def test_workers_make_the_list_before_the_notebooks_run(
    command: str,
    project: Path,
    series: list[str],
    noting: Callable[..., Item],
    made: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work, "items_of", lambda *_, **__: [noting("network"), noting("rows", "network")])
    assert run.main(shlex.split(command.replace("local:4", f"local:{min(4, os.cpu_count())}"))) == 0
    assert len(said(project, "night")) == len(series) and made() == ["network", "rows"]


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("sweep")])
def test_a_sweep_runs_or_prints_the_script_for_its_workers(command: str, project: Path) -> None:
    line, _, rest = command.partition(" && ")
    shell(f"./run_all.sh {line.replace('paper', 'smoke').replace('slurm:8', 'local:2') if not rest else line}")
    if rest:
        assert rest == "sbatch job.sh" and (project / "job.sh").read_text(encoding="utf-8").count("#SBATCH") > 3
    else:
        (table,) = project.glob("artifacts/sweeps/*/results.csv")
        assert len(table.read_text(encoding="utf-8").splitlines()) == 1 + 10 * 2


def test_the_bench_prints_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.DataFrame({"contender": ["one of tests/bench"], "ms": [1.0]})
    monkeypatch.setattr(speed, "bench", lambda rounds, device, small: table if (rounds, small) == (15, False) else None)
    assert speed.main(shlex.split(OF_THE_VENV[0])[3:]) == 0
    assert "one of tests/bench" in capsys.readouterr().out


@pytest.fixture
def lab(project: Path) -> Iterator[str]:
    """The address of JupyterLab, started as the README says, without opening a browser."""
    pytest.importorskip("jupyterlab")
    told = project / "runtime"
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(told), "JUPYTER_CONFIG_DIR": str(project / "config")}
    words = [*shlex.split(OF_THE_VENV[1]), "--no-browser", "--allow-root", "--ServerApp.port=0"]
    program = [str(Path(sys.executable).parent / words[0]), *words[1:], "--IdentityProvider.token=toy"]
    with open(project / "lab.log", "wb") as log:
        server = subprocess.Popen(program, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            found = re.search(r"http://127\.0\.0\.1:\d+/", (project / "lab.log").read_text(errors="replace"))
            if found or server.poll() is not None:
                break
            time.sleep(0.1)
        assert found, (project / "lab.log").read_text(errors="replace")[-2000:]
        yield found[0]
    finally:
        server.terminate()
        server.wait(60)


def test_jupyter_lab_shows_the_notebooks(lab: str, series: list[str]) -> None:
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"{lab}api/contents?token=toy", timeout=30) as answer:
                listed = answer.read().decode()
            break
        except ConnectionError:
            time.sleep(0.1)
    assert all(f"{number}_toy.ipynb" in listed for number in series)
