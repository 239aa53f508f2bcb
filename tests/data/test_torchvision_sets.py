from __future__ import annotations

import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from snnlib.data.torchvision_ops import import_torchvision
from snnlib.data.torchvision_sets import fetch_cifar, has_cifar, read_cifar, read_svhn
from snnlib.errors import InputError


@pytest.fixture(scope="module")
def datasets():
    return import_torchvision().datasets


@pytest.fixture
def cifar10(cifar, make, datasets):
    """The made-up files, the archive that holds them, and a class that trusts both."""
    files = cifar.python_files()
    archive = make.tar_gz({f"cifar-10-batches-py/{name}": content for name, content in files.items()})
    return SimpleNamespace(
        files=files, archive=archive, trusting=make.trusting_class(datasets.CIFAR10, files, archive=archive)
    )


def test_images_and_labels_are_exact_when_folder_is_intact(cifar, cifar10, make, tmp_path):
    make.write_files(tmp_path / "cifar-10-batches-py", cifar10.files)
    train, test, class_names = read_cifar(tmp_path, cifar10.trusting)
    assert torch.equal(train.images, torch.from_numpy(cifar.train_images))
    assert train.labels.tolist() == cifar.train_labels.tolist()
    assert test.images.flatten(1).numpy().tolist() == cifar.pixels["test_batch"].tolist()
    assert class_names == tuple(f"class {i}" for i in range(10))


def test_archive_is_extracted_when_it_is_all_there_is(cifar, cifar10, tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(cifar10.archive)
    assert has_cifar(tmp_path, cifar10.trusting)
    train, _, _ = read_cifar(tmp_path, cifar10.trusting)
    assert torch.equal(train.images, torch.from_numpy(cifar.train_images))
    assert sorted(os.listdir(tmp_path)) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


def test_nothing_is_extracted_when_archive_is_truncated(cifar10, tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(cifar10.archive[:-100])
    with pytest.raises(InputError, match="cifar-10-python.tar.gz is corrupt or truncated .*delete it"):
        read_cifar(tmp_path, cifar10.trusting)
    assert os.listdir(tmp_path) == ["cifar-10-python.tar.gz"]


def test_nothing_is_unpickled_when_a_checksum_is_wrong(cifar10, make, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    hostile = {**cifar10.files, "data_batch_3": pickle.dumps(Payload())}
    make.write_files(tmp_path / "cifar-10-batches-py", hostile)
    with pytest.raises(InputError, match="data_batch_3 is corrupt or truncated"):
        read_cifar(tmp_path, cifar10.trusting)
    assert not (tmp_path / "executed").exists()


def test_missing_file_is_named_when_folder_is_incomplete(cifar10, make, tmp_path):
    files = {name: content for name, content in cifar10.files.items() if name != "test_batch"}
    make.write_files(tmp_path / "cifar-10-batches-py", files)
    with pytest.raises(
        InputError, match="test_batch is missing: delete .*cifar-10-batches-py and start again"
    ):
        read_cifar(tmp_path, cifar10.trusting)


def test_only_the_checked_folder_is_kept_when_downloaded(cifar, cifar10, make, served, datasets, tmp_path):
    (served[0] / "archive.tar.gz").write_bytes(cifar10.archive)
    url = f"{served[1]}/archive.tar.gz"
    trusting = make.trusting_class(datasets.CIFAR10, cifar10.files, url, cifar10.archive)
    fetch_cifar(tmp_path / "new", trusting)
    assert os.listdir(tmp_path / "new") == ["cifar-10-batches-py"]
    assert torch.equal(read_cifar(tmp_path / "new", trusting)[0].images, torch.from_numpy(cifar.train_images))


def test_nothing_is_left_when_downloaded_archive_is_another(cifar10, make, served, datasets, tmp_path):
    (served[0] / "archive.tar.gz").write_bytes(cifar10.archive[:-1])
    url = f"{served[1]}/archive.tar.gz"
    trusting = make.trusting_class(datasets.CIFAR10, cifar10.files, url, cifar10.archive)
    with pytest.raises(InputError, match="is corrupt or truncated"):
        fetch_cifar(tmp_path, trusting)
    assert os.listdir(tmp_path) == []


def test_cifar100_has_its_fine_labels_when_read(make, datasets, tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (200, 3072)).astype(np.uint8)
    labels = [i % 100 for i in range(200)]
    batch = pickle.dumps({"data": pixels, "fine_labels": labels, "coarse_labels": [0] * 200})
    names = [f"fine {i}" for i in range(100)]
    files = {"train": batch, "test": batch, "meta": pickle.dumps({"fine_label_names": names})}
    make.write_files(tmp_path / "cifar-100-python", files)
    train, test, class_names = read_cifar(tmp_path, make.trusting_class(datasets.CIFAR100, files))
    assert train.labels.tolist() == labels and len(test) == 200
    assert torch.equal(train.images.flatten(1), torch.from_numpy(pixels))
    assert class_names == tuple(names)


@pytest.fixture
def svhn(make, datasets, tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3, 20)).astype(np.uint8)
    labels = np.array([[digit] for digit in [10, *range(1, 10)] * 2], dtype=np.uint8)
    table = {}
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        scipy_io.savemat(path, {"X": pixels, "y": labels})
        table[split] = [make.unreachable, path.name, make.md5(path.read_bytes())]
    trusting = type("TrustingSVHN", (datasets.SVHN,), {"split_list": table})
    return SimpleNamespace(folder=tmp_path, pixels=pixels, trusting=trusting)


def test_svhn_digit_zero_has_label_zero_when_read(svhn):
    train, test, class_names = read_svhn(svhn.folder, svhn.trusting)
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 2
    assert torch.equal(train.images[7], torch.from_numpy(svhn.pixels[:, :, :, 7].transpose(2, 0, 1).copy()))
    assert torch.equal(test.images, train.images)
    assert class_names == tuple("0123456789")


def test_svhn_file_is_named_when_truncated(svhn):
    path = svhn.folder / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="test_32x32.mat is corrupt or truncated"):
        read_svhn(svhn.folder, svhn.trusting)


def test_svhn_remedy_is_given_when_missing_and_no_network(svhn):
    (svhn.folder / "train_32x32.mat").unlink()
    with pytest.raises(InputError, match="could not be downloaded .*put train_32x32.mat into a folder"):
        read_svhn(svhn.folder, svhn.trusting)
    assert os.listdir(svhn.folder) == ["test_32x32.mat"]
