from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch

from snnlib.data.embedded import COLUMNS, FOLDER, read_embedded, unpack_mosaic
from snnlib.data.embedded.make_embedded import make as make_embedded
from snnlib.data.embedded.make_embedded import pack_mosaic
from snnlib.errors import InputError

CHECKSUMS = json.loads((FOLDER / "checksums.json").read_text())
MOSAICS = sorted(name for name in CHECKSUMS if name.endswith(".webp"))


@pytest.fixture(scope="module")
def embedded():
    return read_embedded()


def test_twenty_small_mosaics_are_listed_when_repository_is_whole():
    assert sorted(path.name for path in FOLDER.glob("*.webp")) == MOSAICS
    assert len(MOSAICS) == 20
    assert all((FOLDER / name).stat().st_size < 4 * 2**20 for name in MOSAICS)


@pytest.mark.parametrize("name", MOSAICS)
def test_decoded_pixels_have_the_recorded_sha256_when_unpacked(name):
    pixels = unpack_mosaic((FOLDER / name).read_bytes())
    assert pixels.shape == (500 if name.startswith("train") else 100, 3, 32, 32)
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == CHECKSUMS[name]["pixels_sha256"]


def test_every_class_has_500_and_100_images_when_read(embedded):
    train, test = embedded
    assert train.labels.bincount().tolist() == [500] * 10
    assert test.labels.bincount().tolist() == [100] * 10


def test_labels_follow_the_original_files_when_read(embedded):
    """data_batch_1 starts with frog, truck, truck, deer; test_batch with cat, ship, ship, airplane."""
    train, test = embedded
    assert train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert test.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]


def test_first_image_has_its_original_bytes_when_read(embedded):
    """The first red values of data_batch_1: a frog."""
    assert embedded[0].images[0, 0, 0, :8].tolist() == [59, 43, 50, 68, 98, 119, 139, 145]


def test_mosaic_gives_back_every_pixel_when_images_are_noise():
    images = np.random.RandomState(0).randint(0, 256, (COLUMNS, 3, 32, 32)).astype(np.uint8)
    assert np.array_equal(unpack_mosaic(pack_mosaic(images)), images)


@pytest.fixture
def copied(tmp_path):
    folder = tmp_path / "embedded"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return folder


def test_one_clear_line_when_a_mosaic_is_truncated(copied):
    content = (copied / "train_dog.webp").read_bytes()
    (copied / "train_dog.webp").write_bytes(content[:-1])
    with pytest.raises(InputError, match="train_dog.webp has SHA-256 .* restore") as error:
        read_embedded(copied)
    assert "\n" not in str(error.value)


def test_one_clear_line_when_a_mosaic_is_missing(copied):
    (copied / "test_cat.webp").unlink()
    with pytest.raises(InputError, match="test_cat.webp is missing"):
        read_embedded(copied)


def test_one_clear_line_when_the_selection_was_edited(copied):
    selection = (copied / "selection.json").read_text()
    (copied / "selection.json").write_text(selection.replace("29,30", "30,29"))
    with pytest.raises(InputError, match="selection.json has SHA-256"):
        read_embedded(copied)


def test_script_selects_the_first_of_each_class_when_given_original_files(cifar, make, tmp_path, monkeypatch):
    files = cifar.binary_files()
    monkeypatch.setattr("snnlib.data.embedded.make_embedded.IMAGES_PER_CLASS", {"train": 5, "test": 2})
    monkeypatch.setattr("snnlib.data.embedded.make_embedded.COLUMNS", 1)
    monkeypatch.setattr("snnlib.data.embedded.COLUMNS", 1)
    make_embedded(make.write_files(tmp_path / "source", files), tmp_path / "made", make.md5_table(files))
    train, test = read_embedded(tmp_path / "made")
    chosen = np.sort(np.concatenate([np.flatnonzero(cifar.train_labels == c)[:5] for c in range(10)]))
    assert train.labels.tolist() == cifar.train_labels[chosen].tolist()
    assert torch.equal(train.images, torch.from_numpy(cifar.train_images[chosen]))
    assert test.labels.tolist() == cifar.labels["test_batch"].tolist()
