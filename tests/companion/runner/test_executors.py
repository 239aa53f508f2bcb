"""Who works: every executor fills the same sweep, and what is killed on the way is made by another."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from snnlib.companion import paths
from snnlib.companion.runner import executors
from snnlib.companion.runner.executors import Jobs, Local, read_jobs, sbatch_script
from snnlib.companion.runner.items import items_of, network_of
from snnlib.companion.runner.sweep import DONE, FAILED, Sweep
from snnlib.companion.runner.work import make_all
from snnlib.errors import InputError
from snnlib.files import sha256_of

REPOSITORY = Path(__file__).resolve().parents[3]
KILLS = int(os.environ.get("SNNLIB_KILLS", "3"))
"""A killed worker takes some seconds to be replaced; ten kills of each kind were tried by hand."""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
two_cores = pytest.mark.skipif(CORES < 2, reason="needs two cores")


def words(jobs: str) -> str:
    return f"--jobs is {jobs!r}; expected 1, local:N, slurm:N or ray:N"


@pytest.mark.parametrize("jobs", ["0", "2", "local", "local:", "local:0", "local:-1", "slurm", "here:1", "dask:2"])
def test_unknown_jobs_are_one_line(jobs):
    with pytest.raises(InputError, match=words(jobs)):
        read_jobs(jobs)


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ("partition", "expected KEY=VALUE with one of cpus, gpus, memory, time"),
        ("colour=red", "--resources has 'colour=red'"),
        ("gpus=many", "expected a number for gpus"),
        ("cpus=-1", "expected a number of at least 0"),
        ("time=soon", "time limit is 'soon'"),
    ],
)
def test_unknown_resources_are_one_line(resources, message):
    with pytest.raises(InputError, match=message):
        read_jobs("slurm:2", resources)


def test_jobs_and_resources_are_read():
    assert read_jobs("1") == Jobs()
    found = read_jobs("slurm:8", "partition=gpu,time=4h,gpus=0.5,memory=16,cpus=4")
    assert found == Jobs("slurm", 8, cpus=4, gpus=0.5, memory=16.0, time="4h", partition="gpu") and found.threads == 4


def test_cores_are_divided_and_none_is_given_twice(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(7)), raising=False)
    shares = executors._shares(3)
    assert sorted(core for share in shares for core in share) == list(range(7)) and min(map(len, shares)) == 2
    with pytest.raises(InputError, match="--jobs local:8 on 7 cores; expected a core for each; use local:7"):
        executors._shares(8)


def test_too_little_memory_is_said_before_anything_starts(home, monkeypatch):
    monkeypatch.setattr(executors, "_free_memory", lambda: 1.5e9)
    monkeypatch.setattr(executors, "_shares", lambda count: [set()] * count)
    with pytest.raises(InputError, match="leaves 0.8 GB to each; use local:1"):
        Local(home, Jobs("local", 2))


def chain(noting, count: int = 6) -> list:
    found = [noting("ann"), noting("snn", "ann"), noting("rows", "snn")]
    return found + [noting(f"alone-{number}") for number in range(count)]


def check_all_made(sweep: Sweep, made, items) -> None:
    assert sweep.counts == {DONE: len(items), FAILED: 0} and sweep.left == 0
    assert sorted(made()) == sorted(item.name for item in items)
    assert made().index("ann") < made().index("snn") < made().index("rows")
    assert "done" in (sweep.folder / "sweep.html").read_text(encoding="utf-8")


def test_this_process_makes_all(home, noting, made):
    items = chain(noting)
    check_all_made(make_all(items, Jobs(), "trial"), made, items)


@two_cores
@pytest.mark.slow
def test_two_processes_of_this_machine_make_all(home, noting, made):
    items = chain(noting)
    check_all_made(make_all(items, Jobs("local", 2), "trial"), made, items)


@two_cores
@pytest.mark.slow
def test_an_item_whose_workers_are_killed_is_made_by_the_next(home, noting, made, capsys):
    items = [noting("hard", do="die", times=2), noting("rows", "hard"), noting("alone")]
    sweep = make_all(items, Jobs("local", 2), "trial")
    assert sorted(made()) == ["alone", "hard", "rows"] and sweep.counts[FAILED] == 0
    assert "a worker ended early" in capsys.readouterr().out


@two_cores
@pytest.mark.slow
def test_workers_that_all_end_at_once_are_not_started_for_ever(home, noting, monkeypatch):
    monkeypatch.setattr(executors.paths, "ROOT", home / "nowhere")
    with pytest.raises(InputError, match="workers ended before anything had happened"):
        make_all([noting("ann")], Jobs("local", 1), "trial")


class Killer(threading.Thread):
    """Kills workers at random moments: those that have left a file `at-PID`, and live."""

    def __init__(self, folder: Path, kills: int, ours: int) -> None:
        super().__init__(daemon=True)
        self.folder, self.kills, self.killed, self.ours = folder, kills, 0, ours

    def run(self) -> None:
        dice, until = random.Random(0), time.monotonic() + 300
        while self.killed < self.kills and time.monotonic() < until:
            time.sleep(dice.uniform(0.05, 0.3))
            for path in self.folder.glob("at-*"):
                process = int(path.name.removeprefix("at-"))
                path.unlink(missing_ok=True)
                if process != self.ours and self.killed < self.kills:
                    try:
                        os.kill(process, signal.SIGKILL)
                        self.killed += 1
                        break
                    except ProcessLookupError:
                        continue


def slow_items(noting, count: int = 10 + 3 * KILLS) -> list:
    return [noting(f"slow-{number}", do="slow", seconds=0.4) for number in range(count)]


def check_nothing_lost(sweep: Sweep, made, items, killer: Killer) -> None:
    assert killer.killed == killer.kills
    assert sweep.counts == {DONE: len(items), FAILED: 0}
    assert sorted(set(made())) == sorted(item.name for item in items)
    assert len(made()) <= len(items) + killer.killed


@two_cores
@pytest.mark.slow
def test_kills_at_random_lose_nothing_of_local_workers(home, noting, made):
    items, killer = slow_items(noting), Killer(home, KILLS, os.getpid())
    killer.start()
    check_nothing_lost(make_all(items, Jobs("local", 2), "trial"), made, items, killer)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_submitit_makes_all_without_a_cluster_too(home, noting, made, cluster, environment_kept):
    pytest.importorskip("submitit")
    items = chain(noting)
    check_all_made(make_all(items, Jobs("slurm", 2, cluster=cluster), "trial"), made, items)


@pytest.mark.slow
def test_kills_at_random_lose_nothing_of_submitits_workers(home, noting, made):
    pytest.importorskip("submitit")
    items, killer = slow_items(noting), Killer(home, KILLS, os.getpid())
    killer.start()
    check_nothing_lost(make_all(items, Jobs("slurm", 2, cluster="local"), "trial"), made, items, killer)


@pytest.mark.slow
def test_slurm_makes_all_and_takes_up_what_a_killed_job_was_doing(home, noting, made, slurm, capsys):
    pytest.importorskip("submitit")
    items, killer = slow_items(noting, 20), Killer(home, 2, os.getpid())
    killer.start()
    check_nothing_lost(make_all(items, Jobs("slurm", 2), "trial"), made, items, killer)


@pytest.mark.slow
def test_a_job_that_slurm_puts_back_goes_on_with_the_script_for_sbatch(home, slurm, tmp_path):
    own = home / "own.py"
    own.write_text("import time\ndef measure(seed):\n    time.sleep(0.5)\n    return seed * 2.0\n", encoding="utf-8")
    command = [sys.executable, "-m", "snnlib.companion.runner.work", "--call", f"{own}:measure", "--set", "seed=0..29"]
    text = subprocess.run([*command, "--jobs", "slurm:1", "--print-sbatch"], check=True, capture_output=True, text=True)
    script = tmp_path / "script.sh"
    script.write_text(text.stdout, encoding="utf-8")
    job = subprocess.run(["sbatch", "--parsable", script], check=True, capture_output=True, text=True).stdout.strip()
    (folder,) = (paths.ARTIFACTS / "sweeps").iterdir()
    sweep = Sweep.open(folder)
    wait_until(lambda: sweep.refresh() or sweep.counts[DONE] >= 3)
    subprocess.run(["scontrol", "requeue", f"{job}_0"], check=True)
    at_once = ["scontrol", "update", f"jobid={job}_0", "starttime=now"]  # it would wait for two minutes
    wait_until(lambda: subprocess.run(at_once, capture_output=True, check=False).returncode == 0)
    wait_until(lambda: sweep.refresh() or sweep.left == 0, seconds=240)
    assert sweep.counts[DONE] == 30 and len({state.worker for state in sweep.state}) == 2


def wait_until(true, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.2)


@pytest.mark.slow
def test_a_ray_cluster_makes_all_though_one_of_its_nodes_is_killed(home, noting, made, ray_nodes):
    cluster, other = ray_nodes
    items = [noting(f"slow-{number}", do="slow", seconds=0.5) for number in range(24)]
    killed = threading.Event()

    def kill_the_other_node() -> None:
        until = time.monotonic() + 120
        while len(made()) < 4 and time.monotonic() < until:
            time.sleep(0.1)
        cluster.remove_node(other, allow_graceful=False)
        killed.set()

    threading.Thread(target=kill_the_other_node, daemon=True).start()
    sweep = make_all(items, Jobs("ray", 2, address=cluster.address), "trial")
    assert killed.is_set() and sweep.counts == {DONE: len(items), FAILED: 0}
    assert sorted(set(made())) == sorted(item.name for item in items)
    assert len({state.worker for state in sweep.state}) > 1


@pytest.mark.slow
def test_kills_at_random_lose_nothing_of_rays_workers(home, noting, made, ray_nodes):
    items, killer = slow_items(noting), Killer(home, KILLS, os.getpid())
    killer.start()
    jobs = Jobs("ray", 2, address=ray_nodes[0].address)
    check_nothing_lost(make_all(items, jobs, "trial"), made, items, killer)


def test_the_script_for_sbatch_is_one_that_bash_can_read_and_asks_for_the_resources(home, tmp_path):
    jobs = read_jobs("slurm:8", "partition=gpu,time=4h,gpus=1,memory=16,cpus=2")
    text = sbatch_script(["python", "-m", "worker", "--set", "seed=0..9"], jobs, "trial", home)
    for wanted in ("array=0-7", "partition=gpu", "time=240", "gres=gpu:1", "mem=16G", "requeue", "cpus-per-task=2"):
        assert f"#SBATCH --{wanted}\n" in text
    assert "python -m worker --set seed=0..9 --jobs 1 --time-limit 238m &" in text and "account" not in text
    script = tmp_path / "script.sh"
    script.write_text(text, encoding="utf-8")
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_sbatch_works_without_slurm_as_one_worker_that_ends_with_the_sweep(home, tmp_path):
    own = home / "own.py"
    own.write_text("def measure(seed):\n    return seed * 2.0\n", encoding="utf-8")
    command = [sys.executable, "-m", "snnlib.companion.runner.work", "--call", f"{own}:measure", "--set", "seed=0..3"]
    environment = {**os.environ, "SNNLIB_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    text = subprocess.run([*command, "--jobs", "slurm:2", "--print-sbatch"], env=environment, check=True,
                          capture_output=True, text=True).stdout  # fmt: skip
    script = tmp_path / "script.sh"
    script.write_text(text, encoding="utf-8")
    for _ in range(2):
        done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    (folder,) = (paths.ARTIFACTS / "sweeps").iterdir()
    assert Sweep.open(folder).items and "seed,value" in (folder / "results.csv").read_text(encoding="utf-8")


def small_part_of_smoke() -> list:
    """Two ANNs, the SNN of one of them, and the rows of an ANN."""
    networks = tuple(f"{name}, seed 0" for name in ("ANN, natural", "ANN, AT", "SNN, conversion from AT"))
    return [item for item in items_of("smoke") if item.name in networks or item.name.startswith(networks[0])]


def bytes_in(artifacts: Path) -> dict[str, str]:
    """Digest of every stored table and network; records hold the time that it took, and logs too."""
    found = [path for end in ("parquet", "safetensors") for path in artifacts.rglob(f"*.{end}")]
    return {str(path.relative_to(artifacts)): sha256_of(path) for path in found}


@two_cores
@pytest.mark.slow
def test_every_executor_fills_the_store_with_the_same_bytes(home, monkeypatch, ray_nodes):
    pytest.importorskip("submitit")
    items, stores = small_part_of_smoke(), {}
    trials = [Jobs(), Jobs("local", 2), Jobs("slurm", 2, cluster="local"),
              Jobs("ray", 2, address=ray_nodes[0].address)]  # fmt: skip
    for jobs in trials:
        root = home / jobs.kind
        root.mkdir()
        for name in ("ROOT", "ARTIFACTS"):
            monkeypatch.setattr(paths, name, root / ("" if name == "ROOT" else "artifacts"))
        network_of.cache_clear()
        sweep = make_all(items, jobs, "trial")
        assert sweep.counts == {DONE: len(items), FAILED: 0}
        stores[jobs.kind] = bytes_in(root / "artifacts")
    assert len(items) == 5 and len(stores["here"]) == 3 * len(("best", "last")) + len(("thresholds", "fgsm", "pgd"))
    assert stores["local"] == stores["here"] and stores["slurm"] == stores["here"] and stores["ray"] == stores["here"]
