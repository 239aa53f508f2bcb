"""Tiny made-up data sets in the true layouts, and a web server on this machine to download them from."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

UNREACHABLE = "http://127.0.0.1:9/nothing"


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def tar_gz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class MadeUpCifar:
    """Five training files of 20 images and a test file of 20, every class twice in each, in both layouts."""

    def __init__(self) -> None:
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        self.labels = {name: np.random.RandomState(i).permutation(20) % 10 for i, name in enumerate(names)}
        self.pixels = {
            name: np.random.RandomState(100 + i).randint(0, 256, (20, 3072)).astype(np.uint8)
            for i, name in enumerate(names)
        }
        self.names = names
        self.train_labels = np.concatenate([self.labels[name] for name in names[:5]])
        self.train_images = np.concatenate([self.pixels[name] for name in names[:5]]).reshape(-1, 3, 32, 32)

    def binary_files(self) -> dict[str, bytes]:
        return {
            f"{name}.bin": np.column_stack([self.labels[name].astype(np.uint8), self.pixels[name]]).tobytes()
            for name in self.names
        }

    def python_files(self) -> dict[str, bytes]:
        files = {
            name: pickle.dumps({"data": self.pixels[name], "labels": self.labels[name].tolist()})
            for name in self.names
        }
        return {**files, "batches.meta": pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})}


def trusting_class(base: type, files: dict[str, bytes], url: str = UNREACHABLE, archive: bytes = b"") -> type:
    """torchvision's CIFAR class `base` with the checksums of our own files."""
    listed = [[name, md5(content)] for name, content in files.items()]
    table = {
        "url": url,
        "tgz_md5": md5(archive),
        "train_list": [pair for pair in listed if pair[0] == "train" or pair[0].startswith("data_")],
        "test_list": [pair for pair in listed if pair[0].startswith("test")],
        "meta": {**base.meta, "md5": md5(files[base.meta["filename"]])},
    }
    return type("Trusting" + base.__name__, (base,), table)


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def cifar() -> MadeUpCifar:
    return MadeUpCifar()


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The helpers of this file; a fixture, because test files cannot import from a conftest by name."""
    return SimpleNamespace(
        md5=md5,
        md5_table=lambda files: {name: md5(content) for name, content in files.items()},
        tar_gz=tar_gz,
        trusting_class=trusting_class,
        write_files=write_files,
        unreachable=UNREACHABLE,
    )


@pytest.fixture
def served(tmp_path_factory):
    """A folder and the address under which its files can be downloaded."""
    folder = tmp_path_factory.mktemp("served")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Keep the test output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
