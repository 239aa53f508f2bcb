"""Run one notebook in a fresh kernel of this interpreter, and believe it only when every cell has completed.

papermill alone is not enough: it only warns of an unknown parameter, and it takes `sys.exit(0)` in a cell for
success although the cells after it never ran. The kernel's progress reaches the terminal through a file, so
that the outputs stored in the notebook stay clean.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import snnlib.companion.runner.without_grammar  # noqa: F401
from snnlib.companion import paths
from snnlib.companion.runner import warm_kernels
from snnlib.companion.runner.stamps import Run
from snnlib.files import write_atomic
from snnlib.progress import LOG_SECONDS, progress_mode

KERNEL_NAME = "python3"
REDRAW_SECONDS = 0.5
CLEAR_LINE = "\r\x1b[K"


class NotebookFailed(Exception):
    """A notebook did not complete; the message is one line with the reason."""


def execute(run: Run, label: str) -> None:
    """Execute a notebook into `run.executed`, showing `label` and its progress meanwhile.

    Raises NotebookFailed, after which the cells that did run are in `run.unfinished`.
    """
    import papermill
    from papermill.exceptions import PapermillException, PapermillExecutionError

    run.unfinished.parent.mkdir(parents=True, exist_ok=True)
    run.executed.parent.mkdir(parents=True, exist_ok=True)
    folder = kernel_folder(run)
    write_kernel_spec(folder)
    os.environ["JUPYTER_PATH"] = str(folder)
    progress_file(folder).unlink(missing_ok=True)
    with _live_line(label, progress_file(folder)):
        try:
            papermill.execute_notebook(
                str(run.notebook.path),
                str(run.unfinished),
                parameters=run.parameters,
                kernel_name=KERNEL_NAME,
                language="python",
                cwd=str(paths.ROOT),
                start_timeout=warm_kernels.START_SECONDS,
                progress_bar=False,
            )
        except PapermillExecutionError as error:
            raise NotebookFailed(_one_line(f"{error.ename}: {error.evalue}")) from error
        except (PapermillException, OSError, RuntimeError, ValueError) as error:
            raise NotebookFailed(_one_line(f"{type(error).__name__}: {error}")) from error
    check_completed(run.unfinished)
    os.replace(run.unfinished, run.executed)


def check_completed(path: Path) -> None:
    """Raises NotebookFailed unless every code cell of an executed notebook ran to its end."""
    document = json.loads(path.read_text(encoding="utf-8"))
    code_cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    for index, cell in enumerate(code_cells, start=1):
        status = cell["metadata"].get("papermill", {}).get("status")
        errors = [output["ename"] for output in cell["outputs"] if output["output_type"] == "error"]
        if errors and "raises-exception" not in cell["metadata"].get("tags", []):
            raise NotebookFailed(
                f"code cell {index} of {len(code_cells)} ended with {errors[0]}, the rest never ran"
            )
        if status != "completed":
            raise NotebookFailed(
                f"code cell {index} of {len(code_cells)} did not complete (its status is {status})"
            )


def kernel_folder(run: Run) -> Path:
    """What `JUPYTER_PATH` must name so that kernel `python3` is the interpreter that ran this notebook."""
    return paths.runs_dir(run.profile) / "jupyter" / run.notebook.number


def progress_file(folder: Path) -> Path:
    """Where the kernel of this `kernel_folder` writes its progress."""
    return folder / "progress.txt"


def write_kernel_spec(folder: Path) -> None:
    """Declare a kernel that is this very interpreter.

    The user's own folder may hold a `python3` kernel of another environment, which has other packages. Each notebook
    has a folder of its own: two that run at the same time tell their progress apart.
    """
    spec = {
        "argv": [*warm_kernels.COMMAND, "--log-level=50", "-f", "{connection_file}"],
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "env": {
            "IPYTHONDIR": str(folder / "ipython"),
            **warm_kernels.BEFORE_IMPORTS,
            "SNNLIB_HOME": str(paths.ROOT),
            "SNNLIB_PROGRESS": f"file:{progress_file(folder)}",
        },
    }
    write_atomic(folder / "kernels" / KERNEL_NAME / "kernel.json", json.dumps(spec, indent=1) + "\n")


@contextmanager
def _live_line(label: str, kernel_progress: Path) -> Iterator[None]:
    """Show `label`, the time since the start and the kernel's last progress line until the block ends."""
    mode, started, done = progress_mode(), time.monotonic(), threading.Event()

    def line() -> str:
        told = kernel_progress.read_text(encoding="utf-8").splitlines() if kernel_progress.is_file() else []
        return "  ".join([label, clock(time.monotonic() - started), *told[-1:]])

    def keep_showing() -> None:
        while not done.wait(REDRAW_SECONDS if mode == "bar" else LOG_SECONDS):
            if mode == "bar":
                width = shutil.get_terminal_size().columns - 1
                print(f"{CLEAR_LINE}{line()[:width]}", end="", file=sys.stderr, flush=True)
            else:
                print(line(), file=sys.stderr, flush=True)

    shower = threading.Thread(target=keep_showing, daemon=True)
    if mode != "off":
        shower.start()
    try:
        yield
    finally:
        done.set()
        if mode != "off":
            shower.join()
        if mode == "bar":
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Seconds as "0:42", "12:05" or "1:02:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
