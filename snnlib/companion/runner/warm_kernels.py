"""Kernels forked from one process that has imported what notebooks import: PyTorch, pandas, seaborn, IPython.

Those imports take several seconds of a core, and a series starts two dozen kernels. A fork shares modules that are
loaded and nothing else: no thread, no random draw and no code of this project comes before it.

Jupyter starts this file as the kernel's process. It hands arguments, environment, folder and standard streams to the
server, passes signals on, and ends with its kernel, as the kernel ends with it. Without a server (JupyterLab, another
system than Linux, a server that died) it becomes an ordinary kernel.
"""

from __future__ import annotations

import builtins
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from tempfile import mkdtemp
from types import SimpleNamespace

FOLDER = "SNNLIB_WARM_KERNELS"
"""The environment variable that names the folder of the server's socket."""
IMPORTS = (
    "torch._dynamo", "safetensors.torch", "pandas", "scipy.stats", "statsmodels.stats.proportion", "seaborn",
    "ipykernel.kernelapp",
)  # fmt: skip
BEFORE_IMPORTS = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONHASHSEED": "0"}
"""What a kernel's environment says to modules and interpreter when they start; the same for all, so for the server."""
SAFE_TO_FORK = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""Of the server alone: should a module ask for a GPU while it is imported, CUDA is not started: it dies in a fork."""
START_SECONDS = 600
"""For a kernel's first answer: it waits for the imports, from a cold disk if need be."""
STARTED = b"\0"
SECONDS_BETWEEN_LOOKS = 1.0
COMMAND = (sys.executable, "-I", "-S", __file__, "kernel")
"""Starts a kernel; -I and -S as it needs no package until it is forked."""
PLAIN_KERNEL = ("-Xfrozen_modules=off", "-m", "ipykernel_launcher")


@contextmanager
def warm_kernels(imports: Sequence[str] = IMPORTS) -> Iterator[None]:
    """Kernels that start within the block, in this process or one that it starts, are forked behind the imports."""
    if sys.platform != "linux":  # elsewhere, libraries that have been loaded may not survive a fork
        yield
        return
    folder = mkdtemp(prefix="snnlib-")
    with socket.socket(socket.AF_UNIX) as listener:
        with _socket_in(folder) as address:
            listener.bind(address)
        listener.listen()
        command = [sys.executable, "-Xfrozen_modules=off", "-m", __spec__.name, "serve", folder]
        command += [str(listener.fileno()), *imports]
        server = subprocess.Popen(
            command,
            env=os.environ | BEFORE_IMPORTS | SAFE_TO_FORK,
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    os.environ[FOLDER] = folder
    try:
        yield
    finally:
        del os.environ[FOLDER]
        server.kill()
        server.wait()
        shutil.rmtree(folder)


def serve(folder: str, listener: socket.socket, imports: Sequence[str]) -> None:
    """Import, then fork a kernel for every connection, until the process that started this one ends."""
    parent = os.getppid()
    del sys.path[0]  # -m put the folder there in which this process started
    builtins.get_ipython = lambda: SimpleNamespace(kernel=None)  # pandas asks who will show its tables
    for name in imports:
        importlib.import_module(name)
    del builtins.get_ipython
    gc.freeze()  # a collection in a kernel would touch every page that it shares, and so copy it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a kernel that has ended
    # The threads that it warns of are OpenBLAS's and jemalloc's, which both start theirs anew behind a fork.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    listener.settimeout(SECONDS_BETWEEN_LOOKS)
    while os.getppid() == parent:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            listener.close()
            become_kernel(connection)
        connection.close()
    shutil.rmtree(folder, ignore_errors=True)


def become_kernel(connection: socket.socket) -> None:
    """Be what `ask` asks for. Does not return."""
    connection.setblocking(True)
    text, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not text.endswith(b"\n"):
        more = connection.recv(1 << 20)
        if not more:  # whoever asked has ended
            os._exit(1)
        text += more
    arguments, folder, environment = json.loads(text)
    for stream, number in zip(streams, (0, 1, 2), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, folder)
    sys.argv = ["ipykernel_launcher", *arguments]
    connection.sendall(STARTED)
    threading.Thread(target=_obey, args=(connection,), daemon=True).start()
    runpy.run_module(PLAIN_KERNEL[-1], run_name="__main__", alter_sys=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)  # as multiprocessing ends its children: taking down what is shared takes seconds


def _obey(connection: socket.socket) -> None:
    """Send this process the signals that come; end it with the process that Jupyter knows."""
    while sent := connection.recv(1):
        os.kill(os.getpid(), sent[0])
    os._exit(1)


def ask(arguments: list[str]) -> None:
    """Start a kernel with these arguments, here or by the server, and live as long as it does."""
    with socket.socket(socket.AF_UNIX) as connection:
        if not _forked(connection, arguments):
            os.execv(sys.executable, [sys.executable, *PLAIN_KERNEL, *arguments])
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: _pass_on(connection, number))
        connection.settimeout(SECONDS_BETWEEN_LOOKS)
        parent = os.getppid()
        while os.getppid() == parent:
            try:
                connection.recv(1)
                return
            except TimeoutError:
                continue
            except ConnectionError:  # the kernel died before it had read a signal
                return


def _pass_on(connection: socket.socket, number: int) -> None:
    with suppress(ConnectionError):  # it has ended, which `ask` is about to see
        connection.sendall(bytes([number]))


def _forked(connection: socket.socket, arguments: list[str]) -> bool:
    """Whether the server has started the kernel."""
    try:
        with _socket_in(os.environ.get(FOLDER, "")) as address:
            connection.connect(address)
        asked = json.dumps([arguments, os.getcwd(), dict(os.environ)]) + "\n"
        sent = socket.send_fds(connection, [asked.encode()], [0, 1, 2])
        connection.sendall(asked.encode()[sent:])
        return connection.recv(1) == STARTED
    except OSError:
        return False


@contextmanager
def _socket_in(folder: str) -> Iterator[str]:
    """The address of the socket in a folder, by a path that is short: an address has 107 bytes at most."""
    opened = os.open(folder, os.O_PATH)
    try:
        yield f"/proc/self/fd/{opened}/kernels"
    finally:
        os.close(opened)


def around(command: list[str]) -> int:
    """Run a command whose kernels are forked; returns its exit code."""
    with warm_kernels():
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "serve":
        folder, listener, *imports = arguments
        serve(folder, socket.socket(fileno=int(listener)), imports)
    elif role == "kernel":
        ask(arguments)
    else:
        sys.exit(around(arguments))
