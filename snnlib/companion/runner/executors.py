"""Who makes a sweep's items: this process, processes of this machine, a SLURM cluster, a Ray cluster.

All of them run the same worker, `join`, on the same folder; an executor only starts workers, and starts another where
one has died. What is made does not depend on it: every worker computes with the same number of threads.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from snnlib.companion import paths
from snnlib.companion.measure.time_limit import VARIABLE, is_out_of_time, seconds_of, set_time_limit
from snnlib.errors import InputError
from snnlib.optional import needs
from snnlib.runtime import thread_count

LOOKS_EVERY = 0.5
SECONDS_BETWEEN_QUESTIONS = 10.0
GIGABYTE = 10**9
LEAST_MEMORY = 1.0 * GIGABYTE
BARREN_STARTS = 3
"""Workers in a row that may end before anything has happened; then something is wrong with all of them."""


@dataclass(frozen=True)
class Jobs:
    """What `--jobs` and `--resources` ask for.

    kind: "here" (this process), "local", "slurm" or "ray"; count: workers. Of each worker: cpus (0: as many as it has
    threads), gpus (a fraction shares one), memory in GB (0: as the cluster has it), time (of a SLURM job, such as 8h),
    partition, account. address: of the Ray cluster. cluster: "slurm", or submitit's "local" and "debug" for a trial.
    """

    kind: str = "here"
    count: int = 1
    cpus: int = 0
    gpus: float = 0.0
    memory: float = 0.0
    time: str = "8h"
    partition: str = ""
    account: str = ""
    address: str = "auto"
    cluster: str = "slurm"

    @property
    def threads(self) -> int:
        return self.cpus or thread_count()


def read_jobs(jobs: str, resources: str = "") -> Jobs:
    """"1", "local:4", "slurm:8" or "ray:8"; resources: "partition=gpu,time=8h,gpus=0.5". Errors: InputError."""
    kind, _, count = jobs.partition(":")
    if jobs != "1" and (kind not in CREWS or not re.fullmatch(r"[1-9]\d{0,4}", count)):
        raise InputError(f"--jobs is {jobs!r}; expected 1, local:N, slurm:N or ray:N, such as local:4")
    readers = {field.name: {"int": int, "float": float, "str": str}[field.type] for field in fields(Jobs)[2:]}
    given = {}
    for text in filter(None, resources.split(",")):
        key, _, value = text.partition("=")
        if key not in readers or not value:
            raise InputError(f"--resources has {text!r}; expected KEY=VALUE with one of {', '.join(readers)}")
        try:
            given[key] = readers[key](value)
        except ValueError:
            raise InputError(f"--resources has {text!r}; expected a number for {key}") from None
        if key in ("cpus", "gpus", "memory") and not 0 <= given[key] < 1e6:
            raise InputError(f"--resources has {text!r}; expected a number of at least 0")
    found = Jobs(*(("here", 1) if jobs == "1" else (kind, int(count))), **given)
    seconds_of(found.time)
    return found


def join(folder: str, home: str, threads: int, time_limit: str = "", parent: int = 0) -> None:
    """Work on the sweep in `folder` until none of its items is left. home: what `SNNLIB_HOME` is here.

    parent: the process without which no further item is begun, 0 for none.
    Whoever calls this has imported nothing that computes: threads are decided when the library is first used.
    """
    os.environ |= {"SNNLIB_HOME": home, "SNNLIB_THREADS": str(threads), "SNNLIB_PROGRESS": "off"}
    if time_limit:
        set_time_limit(time_limit)
    from snnlib.companion.runner.sweep import Sweep, work
    from snnlib.runtime import apply_process_settings

    apply_process_settings()
    work(Sweep.open(Path(folder)), lambda: is_out_of_time() or parent not in (0, os.getppid()))


class Crew(Protocol):
    """Starts workers and says whether they are there."""

    def start(self, place: int) -> Any:
        """Start worker number `place`; returns a handle."""

    def alive(self, worker: Any) -> bool:
        """Whether it works, or waits for its machine."""

    def end(self, workers: list[Any]) -> None:
        """End those that still work."""


class Local:
    """Processes of this machine, each on cores of its own. Errors: InputError for more than cores or memory allow."""

    def __init__(self, folder: Path, jobs: Jobs) -> None:
        self.command = [sys.executable, "-m", __name__, str(folder), str(paths.ROOT)]
        self.command += [str(thread_count()), str(os.getpid())]
        self.share = _shares(jobs.count)
        memory = _free_memory() / jobs.count
        if memory < LEAST_MEMORY:
            most = max(int(_free_memory() / LEAST_MEMORY), 1)
            raise InputError(f"--jobs local:{jobs.count} leaves {memory / GIGABYTE:.1f} GB to each; use local:{most}")

    def start(self, place: int) -> subprocess.Popen:
        cores = self.share[place]
        worker = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        if cores:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile, which `alive` will say
                os.sched_setaffinity(worker.pid, cores)
        return worker

    def alive(self, worker: subprocess.Popen) -> bool:
        return worker.poll() is None

    def end(self, workers: list[subprocess.Popen]) -> None:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            try:
                worker.wait(timeout=10)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


class Slurm:
    """Jobs of a SLURM cluster by submitit: one array at first, then a job for each that was lost or out of time.

    A job that SLURM preempts is put into the queue again. A job's items end before its time does. Ending the sweep's
    command leaves the jobs alone.
    """

    def __init__(self, folder: Path, jobs: Jobs) -> None:
        submitit = needs("submitit", extra="scale")
        self.jobs, minutes = jobs, max(int(seconds_of(jobs.time) // 60), 1)
        self.executor = submitit.AutoExecutor(folder / "slurm", cluster=jobs.cluster)
        options = {"timeout_min": minutes, "cpus_per_task": jobs.threads, "name": folder.name, "tasks_per_node": 1}
        options |= {"gpus_per_node": max(round(jobs.gpus), 1)} if jobs.gpus else {}
        options |= {"mem_gb": jobs.memory} if jobs.memory else {}
        more = {"slurm_partition": jobs.partition, "slurm_account": jobs.account, "slurm_array_parallelism": jobs.count}
        options |= {key: value for key, value in more.items() if value} if jobs.cluster == "slurm" else {}
        self.executor.update_parameters(**options)
        self.arguments = (str(folder), str(paths.ROOT), thread_count(), f"{max(60 * minutes - 120, 30)}s")
        self.name, self.first, self.queued, self.asked = folder.name, None, None, time.monotonic()

    def start(self, place: int) -> Any:
        if self.first is None:
            with self.executor.batch():
                self.first = [self.executor.submit(join, *self.arguments) for _ in range(self.jobs.count)]
        if self.first:
            return self.first.pop(0)
        self.queued, self.asked = None, time.monotonic()
        return self.executor.submit(join, *self.arguments)

    def alive(self, worker: Any) -> bool:
        if worker.done():
            return False
        queued = self._queued() if self.jobs.cluster == "slurm" else None
        return queued is None or worker.job_id in queued

    def _queued(self) -> set[str] | None:
        """Jobs that SLURM still knows, asked for now and then (without its accounting); None before the first answer,
        and after a job was submitted.
        """
        if time.monotonic() - self.asked > SECONDS_BETWEEN_QUESTIONS:
            answer = subprocess.run(["squeue", "--me", "-h", "-r", "-o", "%i"], capture_output=True, text=True)
            if answer.returncode == 0:  # else its controller is away: what was known goes on
                self.queued = set(answer.stdout.split())
            self.asked = time.monotonic()
        return self.queued

    def end(self, workers: list[Any]) -> None:
        if self.jobs.cluster != "slurm":
            for worker in workers:
                worker.cancel(check=False)
        elif workers:
            print(f"the jobs go on without this command; scancel --name {self.name} ends them", flush=True)


class Ray:
    """Tasks on a Ray cluster, with CPUs, memory and a fraction of a GPU each."""

    def __init__(self, folder: Path, jobs: Jobs) -> None:
        self.ray = needs("ray", extra="scale")
        threads = {"SNNLIB_THREADS": str(thread_count()), "OMP_NUM_THREADS": str(thread_count())}  # Ray sets its own
        if not self.ray.is_initialized():
            self.ray.init(address=jobs.address, runtime_env={"env_vars": threads}, log_to_driver=False)
        options = {"num_cpus": jobs.threads, "num_gpus": jobs.gpus, "max_retries": 0}
        options |= {"memory": int(jobs.memory * GIGABYTE)} if jobs.memory else {}
        here = [str(Path(__file__).resolve().parents[3]), *filter(None, sys.path)]

        def with_our_code(*arguments: Any) -> None:  # inside: travels as code, so that nothing is imported before
            sys.path[:0] = [part for part in here if part not in sys.path[:1]]
            from snnlib.companion.runner.executors import join

            join(*arguments)

        self.task = self.ray.remote(**options)(with_our_code)
        self.folder = folder

    def start(self, place: int) -> Any:
        return self.task.remote(str(self.folder), str(paths.ROOT), thread_count(), _limit())

    def alive(self, worker: Any) -> bool:
        return not self.ray.wait([worker], timeout=0)[0]

    def end(self, workers: list[Any]) -> None:
        for worker in workers:
            self.ray.cancel(worker, force=True)
        self.ray.shutdown()


CREWS: dict[str, Callable[[Path, Jobs], Crew]] = {"local": Local, "slurm": Slurm, "ray": Ray}


def supervise(crew: Crew, count: int, happened: Callable[[], int], left: Callable[[], int], show: Callable) -> None:
    """Keep `count` workers at work while items are left and time allows.

    happened: rises with whatever happens. show: reads that, and shows it.

    Errors: InputError where one worker after the other ends before anything has happened.
    """
    workers, barren, seen = [crew.start(place) for place in range(min(count, left()))], 0, happened()
    try:
        while left() and not (is_out_of_time() and not any(map(crew.alive, workers))):
            ended = [place for place, worker in enumerate(workers) if not crew.alive(worker)]
            show()  # reads what they noted before they ended
            for place in ended:
                if is_out_of_time() or not left():
                    continue
                barren, seen = (barren + 1 if happened() == seen else 0), happened()
                if barren >= BARREN_STARTS:
                    raise InputError(f"{BARREN_STARTS} workers ended before anything had happened; see what they wrote")
                print("a worker ended early; another takes what it was doing", flush=True)
                workers[place] = crew.start(place)
            time.sleep(LOOKS_EVERY)
    finally:
        crew.end([worker for worker in workers if crew.alive(worker)])


def sbatch_script(command: list[str], jobs: Jobs, name: str, folder: Path) -> str:
    """A script for `sbatch` that needs nothing but SLURM: an array of workers on one sweep, put back when cut short."""
    minutes = max(int(seconds_of(jobs.time) // 60), 5)
    lines = {
        "job-name": name, "array": f"0-{jobs.count - 1}", "cpus-per-task": jobs.threads, "time": minutes,
        "partition": jobs.partition, "account": jobs.account, "mem": f"{jobs.memory:g}G" if jobs.memory else "",
        "gres": f"gpu:{max(round(jobs.gpus), 1)}" if jobs.gpus else "", "open-mode": "append",
        "output": f"{folder}/%A_%a.out", "signal": "B:USR1@60",
    }  # fmt: skip
    head = [f"#SBATCH --{key}={value}" for key, value in lines.items() if value != ""]
    work = shlex.join([*command, "--jobs", "1", "--time-limit", f"{minutes - 2}m"])
    return "\n".join([
        "#!/bin/bash", *head, "#SBATCH --requeue",
        f"export SNNLIB_HOME={shlex.quote(str(paths.ROOT))} SNNLIB_THREADS={thread_count()} SNNLIB_PROGRESS=off",
        f"cd {shlex.quote(str(paths.ROOT))}",
        'again() { scontrol requeue "$SLURM_JOB_ID"; }',
        'trap \'kill -TERM "$worker"; wait "$worker"; again\' USR1  # a minute before the time is up',
        f"{work} &",
        "worker=$!",
        'wait "$worker"; code=$?',
        '[ "$code" -ne 3 ] || again  # 3: time is up, items are left',
        'exit "$code"',
    ])  # fmt: skip


def _shares(count: int) -> list[set[int]]:
    """The cores of each of `count` workers; sets are empty where the system has no say in that. Errors: InputError."""
    if not hasattr(os, "sched_getaffinity"):
        return [set()] * count
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        most = len(cores)
        raise InputError(f"--jobs local:{count} on {most} cores; expected a core for each; use local:{most}")
    return [set(cores[place * len(cores) // count : (place + 1) * len(cores) // count]) for place in range(count)]


def _free_memory() -> float:
    """Bytes that new processes can have; infinite where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float("inf")


def _limit() -> str:
    """What is left of `--time-limit`, in a form that travels to a machine with another clock; "" without one."""
    deadline = os.environ.get(VARIABLE)
    return f"{max(float(deadline) - time.time(), 1):.0f}s" if deadline else ""


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # the command that started this one says it
        join(sys.argv[1], sys.argv[2], int(sys.argv[3]), parent=int(sys.argv[4]))
