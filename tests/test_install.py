"""A base install suffices for the library, a wheel holds all of it, and `run_all.sh` answers before any install."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import snnlib

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WITHOUT = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
"""Makes Python find none of the packages HIDDEN, as if they were not installed."""

USE = """
import torch
from snnlib import attacks, audit, conversion, data, encoding, energy, models, neurons, sparsity, theory, training
from snnlib.neurons import use_kernel

with use_kernel("reference"):
    splits = data.load_images("cifar10", train_per_class=4, test_per_class=1)
    ann = models.build_model("vgg11", 10, 2, width=8, spiking=False, seed=0)
    recipe = training.Recipe(epochs=1, batch_size=10, learning_rate=0.01, seed=0)
    print(training.fit(ann, splits, recipe, directory="a run").finished)
    few = {"time_steps": 10, "batches": 1}
    options = {"batch_size": 10, "statistics": "reestimate", "calibration": few}
    snn, how = conversion.convert(ann, splits.train, time_steps=2, **options)
    print(len(how.table()))
    images, budget = splits.test.batch(slice(None)), attacks.Budget(eps=8 / 255)
    labels = snn.eval()(images).argmax(1)
    found = attacks.pgd(snn, images, labels, budget, steps=2)
    print(bool(found.backwards.any() and (found.adversarial != images).any()))
    print(audit.audit(snn, images[:4], labels[:4], budget, effort="smoke").correct)
"""
MISSING = """
import io, sys
from pathlib import Path
import numpy as np
import torch
from snnlib import data, theory
from snnlib.audit import command_line
from snnlib.data.torchvision_sets import read_cifar100
from snnlib.errors import InputError
from snnlib.theory.certificate import clopper_pearson_low

def page():
    sys.exit(command_line.main(["--model", "a", "--config", "b", "--out", "page.html"]))

for part in (lambda: read_cifar100(Path(".")), lambda: clopper_pearson_low(np.ones(1), 2, 0.1), page):
    try:
        part()
    except InputError as error:
        print(error)
"""


def _base_packages() -> set[str]:
    """Names of the distributions that a base install brings, directly or not."""
    found: set[str] = set()
    waiting = list(PROJECT["dependencies"])
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(name)
            waiting += importlib.metadata.requires(name) or []
    return found


def _hidden_modules() -> set[str]:
    """Every installed top-level module that a base install would not have."""
    base = _base_packages()
    return {
        module
        for module, makers in importlib.metadata.packages_distributions().items()
        if module != "snnlib" and not base & {canonicalize_name(maker) for maker in makers}
    }


def _base_python(code: str, package: Path, folder: Path) -> subprocess.CompletedProcess:
    """Run `code` in `folder`, with snnlib from `package` and nothing but the base packages."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(package), "SNNLIB_PROGRESS": "off", "SNNLIB_HOME": ""}
    return subprocess.run(
        [sys.executable, "-P", "-c", f"HIDDEN = {_hidden_modules()!r}\n{WITHOUT}\n{code}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in a path with a space: what building and `run_all.sh` read, nothing that they make."""
    folder = tmp_path_factory.mktemp("a folder") / "snnlib"
    folder.mkdir()
    for name in ("README.md", "LICENSE", "pyproject.toml", "constraints.txt", "run_all.sh"):
        shutil.copy2(REPOSITORY / name, folder / name)
    for name in ("snnlib", "notebooks"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    return folder


def test_hidden_are_the_packages_of_the_extras_and_no_others():
    hidden = _hidden_modules()
    assert {"matplotlib", "seaborn", "scipy", "torchvision", "pyarrow", "papermill", "snntorch", "pytest"} <= hidden
    assert not {"torch", "numpy", "pandas", "safetensors", "tqdm", "filelock", "PIL"} & hidden


@pytest.mark.slow
def test_library_works_from_a_wheel_with_nothing_but_the_base_packages(checkout, tmp_path):
    target = tmp_path / "site packages"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--no-compile", "--target", str(target), str(checkout)], check=True)
    answer = _base_python(f"{USE}\nimport snnlib; print(snnlib.__file__)", target, tmp_path / "user")
    assert answer.returncode == 0, answer.stderr
    *printed, place = answer.stdout.splitlines()
    assert printed == ["True", "10", "True", "4"]
    assert Path(place).is_relative_to(target)
    metadata = importlib.metadata.PathDistribution(next(target.glob("snnlib-*.dist-info"))).metadata
    assert metadata["License-Expression"] == "MIT"


def test_a_part_that_needs_an_extra_says_which_in_one_line(tmp_path):
    answer = _base_python(MISSING, REPOSITORY, tmp_path / "user")
    lines = answer.stdout.splitlines() + answer.stderr.splitlines()
    assert lines == [
        'torchvision is not installed; this part needs it: pip install "snnlib[data]"',
        'scipy is not installed; this part needs it: pip install "snnlib[theory]"',
        'error: matplotlib is not installed; this part needs it: pip install "snnlib[report]"',
    ]
    assert answer.returncode == 2 and not list((tmp_path / "user").iterdir())


def test_every_requirement_is_pinned_and_the_pins_stand_in_order():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    names = [canonicalize_name(Requirement(pin).name) for pin in pins]
    assert pins == sorted(pins, key=lambda pin: pin.partition("==")[0].lower())
    extras = PROJECT["optional-dependencies"]
    wanted = [Requirement(text) for text in sum(extras.values(), PROJECT["dependencies"])]
    assert {canonicalize_name(each.name) for each in wanted} - {"snnlib"} <= set(names)
    assert {extra for each in wanted if each.name == "snnlib" for extra in each.extras} <= set(extras)


def test_citation_and_changes_are_of_this_version():
    for name, line in (("CITATION.cff", "version: "), ("CHANGELOG.md", "## ")):
        assert f"\n{line}{snnlib.__version__}" in (REPOSITORY / name).read_text(encoding="utf-8"), name


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Path:
    """A PATH whose first Python has no packages, and no environment that is active; returns its folder."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python3.13").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    (programs / "python3.13").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    for name in ("CONDA_PREFIX", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    return programs


@pytest.mark.parametrize("options", [["--help"], ["--list"], ["test", "--help"], ["--list", "--profile", "smoke"]])
def test_run_all_answers_before_anything_is_installed(checkout, bare, options):
    answer = subprocess.run(["./run_all.sh", *options], cwd=checkout, capture_output=True, text=True, check=True)
    if "--help" in options:
        assert all(text in answer.stdout for text in ("--profile smoke|quick|night|paper", "--time-limit", "--publish"))
    else:
        *titles, last = answer.stdout.splitlines()
        assert len(titles) == len(list((REPOSITORY / "notebooks").glob("*.ipynb")))
        assert titles[0].startswith("00 ") and last.startswith("not installed yet")
    assert not answer.stderr and not list(checkout.glob(".venv*"))


def test_run_all_says_in_one_line_what_is_wrong_before_anything_is_installed(checkout, bare):
    command = ["./run_all.sh", "--list", "--profile", "day"]
    answer = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert answer.returncode == 2 and answer.stderr.startswith("error: unknown profile 'day'")
    assert answer.stderr.count("\n") == 1 and not list(checkout.glob(".venv*"))


def test_list_ends_quietly_when_nobody_reads(checkout, bare):
    reading, writing = os.pipe()
    os.close(reading)
    command = ["./run_all.sh", "--list"]
    with os.fdopen(writing, "w") as closed:
        answer = subprocess.run(command, cwd=checkout, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (answer.returncode, answer.stderr) == (141, "")


def _take_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("ended_by", ["ctrl-c", "failure"])
def test_an_interrupted_installation_does_not_blame_the_network(checkout, bare, ended_by):
    started = bare / "started"
    pip = "exit 1" if ended_by == "failure" else f"trap 'kill $!; exit 1' INT; sleep 60 & touch '{started}'; wait"
    installed, made = bare / "installed", '.venv/bin && cp "$(dirname "$0")/installed" .venv/bin/python'
    installed.write_text(f'#!/bin/sh\ncase "$*" in *" pip "*) {pip};; esac\n')
    installed.chmod(0o755)
    (bare / "python3.13").write_text(f'#!/bin/sh\ncase "$*" in "-m venv"*) mkdir -p {made};; esac\n')
    child = subprocess.Popen(
        ["./run_all.sh", "--only", "01"],
        cwd=checkout,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_take_interrupts,  # a test run in the background hands on that it ignores them
    )
    try:
        if ended_by == "ctrl-c":
            deadline = time.monotonic() + 60
            while not started.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            os.killpg(child.pid, signal.SIGINT)
        _, said = child.communicate(timeout=60)
    finally:
        shutil.rmtree(checkout / ".venv", ignore_errors=True)
        (checkout / ".venv.lock").unlink(missing_ok=True)
    assert "network" in said if ended_by == "failure" else "network" not in said
    assert child.returncode == (2 if ended_by == "failure" else 130)
    assert not (checkout / ".venv/ready").exists()
