"""Sweeps of functions that note what they do, so that a test sees who made what."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snnlib.companion.runner.items import Item

NOTING = '''
import os, signal, time
from pathlib import Path

def note(name, folder):
    with open(Path(folder) / "made", "a", encoding="utf-8") as stream:
        stream.write(f"{name}\\n")
    return "made"

def slow(name, folder, seconds):
    (Path(folder) / f"at-{os.getpid()}").touch()
    time.sleep(seconds)
    return note(name, folder)

def fail(name, folder):
    raise ValueError("no")

def die(name, folder, times):
    """Killed while it works, so many times."""
    died = Path(folder) / "died"
    before = len(died.read_text()) if died.exists() else 0
    if before < times:
        died.write_text("x" * (before + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return note(name, folder)

def out_of_time(name, folder):
    from snnlib.companion.measure.time_limit import OutOfTime
    raise OutOfTime("the time limit has passed")
'''


@pytest.fixture
def noting(home: Path) -> Callable[..., Item]:
    """`noting(name, *after, do="note", **more)`: an item that writes its name into `home`/made."""
    path = home / "noting.py"
    path.write_text(NOTING, encoding="utf-8")

    def item(name: str, *after: str, do: str = "note", **more: object) -> Item:
        return Item(name, f"{path}:{do}", {"name": name, "folder": str(home), **more}, after)

    return item


@pytest.fixture
def made(home: Path) -> Callable[[], list[str]]:
    """What has been made, in order."""
    path = home / "made"
    return lambda: path.read_text(encoding="utf-8").split() if path.exists() else []


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """`wait_for(condition, seconds=60)`: until it holds, or the test has failed."""

    def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.05)

    return wait


@pytest.fixture
def is_alive() -> Callable[[int], bool]:
    """`is_alive(pid)`. A zombie counts as dead: whoever adopted it has not collected it yet."""

    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except FileNotFoundError:
            return False

    return alive


@pytest.fixture
def environment_kept() -> Iterator[None]:
    """What a worker in this process puts into the environment is taken out again."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


SLURM_CONF = """
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
MinJobAge=20
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A SLURM cluster of one node, this machine, for this test alone (Debian: slurmctld, slurmd, munge; as root)."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if missing or os.getuid() != 0:
        pytest.skip(f"needs SLURM on this machine and root: {', '.join(missing) or 'not root'}")
    with tempfile.TemporaryDirectory(prefix="slurm-") as text:  # short: a socket's name has at most 107 characters
        folder = Path(text)
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        conf = folder / "slurm.conf"
        names = {"host": platform.node(), "user": "root", "folder": folder, "cores": os.cpu_count()}
        conf.write_text(SLURM_CONF.format(**names, ports=_free_ports(2)), encoding="utf-8")
        monkeypatch.setenv("SLURM_CONF", str(conf))
        files = {name: folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
        munge = ["munged", "-F", "--force", f"--key-file={key}"]
        munge += [f"--{name if name == 'socket' else name + '-file'}={path}" for name, path in files.items()]
        started = []
        try:
            for command in (munge, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c"]):
                log = open(folder / f"{command[0]}.out", "wb")  # noqa: SIM115
                started.append(subprocess.Popen(command, stdout=log, stderr=log))
                time.sleep(1)
            for _ in range(60):
                told = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False).stdout
                if told.strip() == "idle":
                    break
                time.sleep(0.5)
            else:
                pytest.fail("".join(path.read_text(errors="replace") for path in folder.glob("*.out"))[-2000:])
            yield folder
            subprocess.run(["scancel", "--me"], check=False)
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait(timeout=30)


@pytest.fixture
def ray_nodes(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple]:
    """A Ray cluster of two nodes on this machine, `(cluster, the node that is not the head)`."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    for name, value in {"raylet_start_wait_time_s": 120, "agent_register_timeout_ms": 120_000}.items():
        monkeypatch.setenv(f"RAY_{name}", str(value))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")

    def node() -> dict:  # ports that are given are not waited for, which a busy machine is too slow for
        names = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
        return {"num_cpus": 2, "include_dashboard": False, **dict(zip(names, _free_ports(3), strict=True))}

    cluster = Cluster(initialize_head=True, head_node_args=node())
    try:
        other = cluster.add_node(**node())
        cluster.wait_for_nodes()
        yield cluster, other
    finally:
        ray.shutdown()
        cluster.shutdown()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
