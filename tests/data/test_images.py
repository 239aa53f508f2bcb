from __future__ import annotations

from functools import partial

import pytest
import torch

from snnlib.data import load_images
from snnlib.data.cifar10 import CLASS_NAMES, read_cifar10
from snnlib.data.embedded import read_embedded
from snnlib.data.images import DATA_SETS
from snnlib.data.torchvision_ops import import_torchvision
from snnlib.errors import InputError


def fingerprints(images) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.images}


@pytest.fixture(scope="module")
def splits():
    return load_images()


def test_embedded_cifar10_is_split_by_class_when_nothing_else_is_asked(splits):
    assert splits.name == "cifar10" and splits.num_classes == 10 and splits.class_names == CLASS_NAMES
    assert splits.train.labels.bincount().tolist() == [450] * 10
    assert splits.validation.labels.bincount().tolist() == [50] * 10
    assert splits.test.labels.bincount().tolist() == [100] * 10


def test_train_and_validation_are_disjoint_and_complete_when_split(splits):
    train, validation = fingerprints(splits.train), fingerprints(splits.validation)
    assert not train & validation
    assert train | validation == fingerprints(read_embedded()[0])


def test_test_split_is_untouched_when_seed_and_fraction_change(splits):
    other = load_images(seed=5, validation_fraction=0.5)
    assert torch.equal(other.test.images, read_embedded()[1].images)
    assert torch.equal(other.test.labels, splits.test.labels)
    assert not torch.equal(other.validation.labels, splits.validation.labels)


def test_same_bytes_when_loaded_again(splits):
    again = load_images()
    assert torch.equal(again.train.images, splits.train.images)
    assert torch.equal(again.validation.images, splits.validation.images)


def test_split_is_the_recorded_one_when_seed_is_zero(splits):
    """Stored results name this split by its seed alone, so it must never change."""
    original = {image.numpy().tobytes(): position for position, image in enumerate(read_embedded()[0].images)}
    held_out = [original[image.numpy().tobytes()] for image in splits.validation.images]
    assert held_out[:6] == [9, 11, 15, 21, 25, 33]


def test_subset_is_cut_before_the_split_when_images_per_class_are_given():
    small = load_images(train_per_class=20, test_per_class=3)
    assert small.train.labels.bincount().tolist() == [18] * 10
    assert small.validation.labels.bincount().tolist() == [2] * 10
    assert small.test.labels.bincount().tolist() == [3] * 10
    first = read_embedded()[0].first_per_class(20)
    assert fingerprints(small.train) | fingerprints(small.validation) == fingerprints(first)


def test_whole_cifar10_is_split_when_folder_has_the_bin_layout(cifar, make, tmp_path, monkeypatch):
    files = cifar.binary_files()
    make.write_files(tmp_path / "cifar-10-batches-bin", files)
    monkeypatch.setitem(DATA_SETS, "cifar10", partial(read_cifar10, bin_checksums=make.md5_table(files)))
    splits = load_images(subset="whole", data_dir=tmp_path, validation_fraction=0.2)
    assert splits.train.labels.bincount().tolist() == [8] * 10
    assert splits.validation.labels.bincount().tolist() == [2] * 10
    assert splits.test.labels.tolist() == cifar.labels["test_batch"].tolist()


def test_artifacts_folder_is_used_when_no_data_folder_is_given(cifar, make, tmp_path, monkeypatch):
    files = cifar.python_files()
    monkeypatch.setenv("SNNLIB_DATA", str(tmp_path / "data"))
    make.write_files(tmp_path / "data" / "cifar-10-batches-py", files)
    trusting = make.trusting_class(import_torchvision().datasets.CIFAR10, files)
    monkeypatch.setitem(DATA_SETS, "cifar10", partial(read_cifar10, dataset_class=trusting))
    assert len(load_images(subset="whole").test) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "cifar-10"},
            "data set is 'cifar-10'; expected one of cifar10, cifar100, svhn, tinyimagenet",
        ),
        ({"subset": "half"}, "subset is 'half'; expected one of embedded, whole"),
        ({"name": "svhn"}, "data set 'svhn' has no embedded subset"),
        ({"data_dir": "/no/such/folder"}, "data folder /no/such/folder does not exist"),
        ({"train_per_class": 501}, "501 images per class asked for, class 0 has 500"),
        ({"test_per_class": 0}, "test_per_class is 0; expected a whole number of at least 1"),
        ({"train_per_class": True}, "train_per_class is True; expected a whole number"),
        ({"test_per_class": 2.0}, "test_per_class is 2.0; expected a whole number"),
        ({"seed": 2**40}, "seed is 1099511627776; expected a whole number in 0..4294967295"),
        ({"validation_fraction": "0.1"}, "validation_fraction is '0.1'; expected a finite number"),
        ({"data_dir": __file__}, "test_images.py is no folder"),
        ({"data_dir": "~no-such-user/data"}, "~no-such-user/data has no home folder"),
        ({"validation_fraction": 1.5}, "validation_fraction=1.5"),
    ],
)
def test_one_clear_line_when_an_argument_is_wrong(arguments, message):
    with pytest.raises(InputError, match=message) as error:
        load_images(**arguments)
    assert "\n" not in str(error.value)


def test_home_in_a_data_folder_is_put_in(cifar, make, tmp_path, monkeypatch):
    files = cifar.binary_files()
    make.write_files(tmp_path / "data" / "cifar-10-batches-bin", files)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(DATA_SETS, "cifar10", partial(read_cifar10, bin_checksums=make.md5_table(files)))
    assert len(load_images(subset="whole", data_dir="~/data").test) == 20


@pytest.mark.parametrize("label", [10, 255])
def test_labels_beyond_the_classes_are_refused_whatever_the_source(cifar, make, tmp_path, monkeypatch, label):
    files = cifar.binary_files()
    files["data_batch_3.bin"] = bytes([label]) + files["data_batch_3.bin"][1:]
    make.write_files(tmp_path / "cifar-10-batches-bin", files)
    monkeypatch.setitem(DATA_SETS, "cifar10", partial(read_cifar10, bin_checksums=make.md5_table(files)))
    with pytest.raises(InputError, match=f"labels of cifar10 are 0..{label}, expected 0..9: the files") as error:
        load_images(subset="whole", data_dir=tmp_path, validation_fraction=0.3)
    assert "\n" not in str(error.value)
