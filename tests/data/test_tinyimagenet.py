from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from snnlib.data.tinyimagenet import PUBLISHED_SIZE, read_tinyimagenet
from snnlib.errors import InputError

CLASS_IDS = [f"n{9000 - i:08d}" for i in range(200)]  # not in alphabetic order: labels follow wnids.txt
SIZE = (400, 200)


def save(path, level: int, mode: str = "RGB", side: int = 64) -> None:
    value = level if mode == "L" else (level, 0, 255 - level)
    Image.new(mode, (side, side), value).save(path, "JPEG", quality=95)


@pytest.fixture
def folder(tmp_path):
    """200 classes with two training images and one val image each; a class's red level is its label."""
    root = tmp_path / "tiny-imagenet-200"
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(CLASS_IDS) + "\n")
    (root / "words.txt").write_text("".join(f"{c}\tname {i}, other\n" for i, c in enumerate(CLASS_IDS)))
    annotations = []
    for label, class_id in reversed(list(enumerate(CLASS_IDS))):
        images = root / "train" / class_id / "images"
        images.mkdir(parents=True)
        for i in range(2):
            save(images / f"{class_id}_{i}.JPEG", label)
        name = f"val_{len(annotations)}.JPEG"
        save(root / "val" / "images" / name, label)
        annotations.append(f"{name}\t{class_id}\t0\t0\t63\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    return root


@pytest.mark.parametrize("given", ["root", "parent"])
def test_images_labels_and_names_agree_when_layout_is_intact(given, folder):
    train, test, names = read_tinyimagenet(folder if given == "root" else folder.parent, SIZE)
    assert train.images.shape == (400, 3, 64, 64) and test.images.shape == (200, 3, 64, 64)
    assert train.labels.tolist() == [label for label in range(200) for _ in range(2)]
    assert test.labels.tolist() == list(range(199, -1, -1))
    for images in (train, test):
        red = images.images[:, 0].float().mean(dim=(1, 2))
        assert (red - images.labels).abs().max() <= 3  # JPEG rounds
    assert names[:2] == ("name 0", "name 1") and len(names) == 200


def test_grey_image_becomes_rgb_when_stored_with_one_channel(folder):
    save(folder / "train" / CLASS_IDS[0] / "images" / f"{CLASS_IDS[0]}_0.JPEG", 90, mode="L")
    image = read_tinyimagenet(folder, SIZE)[0].images[0].numpy()
    assert np.unique(image).tolist() == [90]


def test_one_clear_line_when_folder_is_missing(tmp_path):
    with pytest.raises(
        InputError, match="tiny-imagenet-200 is missing: unzip .*tiny-imagenet-200.zip"
    ) as error:
        read_tinyimagenet(tmp_path)
    assert "\n" not in str(error.value)


def test_published_size_is_asked_for_when_images_are_missing(folder):
    assert PUBLISHED_SIZE == (200 * 500, 200 * 50)
    with pytest.raises(InputError, match="has 400 training images, expected 100000: unzip"):
        read_tinyimagenet(folder)


def test_class_folder_is_named_when_missing(folder):
    (folder / "train" / CLASS_IDS[5]).rename(folder / "train" / "moved")
    with pytest.raises(InputError, match=f"{CLASS_IDS[5]}/images is missing"):
        read_tinyimagenet(folder, SIZE)


def test_image_is_named_when_truncated(folder):
    path = folder / "val" / "images" / "val_7.JPEG"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="val_7.JPEG cannot be read as an image"):
        read_tinyimagenet(folder, SIZE)


def test_image_is_named_when_missing(folder):
    (folder / "val" / "images" / "val_7.JPEG").unlink()
    with pytest.raises(InputError, match="val_7.JPEG cannot be read as an image .FileNotFoundError."):
        read_tinyimagenet(folder, SIZE)


def test_image_is_named_when_it_has_another_size(folder):
    save(folder / "val" / "images" / "val_7.JPEG", 3, side=32)
    with pytest.raises(InputError, match="val_7.JPEG is 32 × 32, expected 64 × 64"):
        read_tinyimagenet(folder, SIZE)


def test_annotation_line_is_shown_when_its_class_is_unknown(folder):
    with (folder / "val" / "val_annotations.txt").open("a") as file:
        file.write("val_0.JPEG\tn99999999\t0\t0\t1\t1\n")
    with pytest.raises(InputError, match="val_annotations.txt has the line 'val_0.JPEG.*n99999999"):
        read_tinyimagenet(folder, SIZE)


def test_list_of_classes_is_named_when_missing(folder):
    (folder / "wnids.txt").unlink()
    with pytest.raises(InputError, match="wnids.txt is missing"):
        read_tinyimagenet(folder.parent, SIZE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00\x01n00000001", "wnids.txt is no text"),
        (b"n00000001\n\x00\x01\n", "wnids.txt has the line .*expected ids"),
        (b"../../etc\n", "wnids.txt has the line '../../etc'"),
        (b"", "wnids.txt has the line None"),
        (b"n00000001\nn00000002\nn00000001\n", "wnids.txt has n00000001 twice"),
    ],
)
def test_one_clear_line_when_the_list_of_classes_is_damaged(folder, content, message):
    (folder / "wnids.txt").write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_tinyimagenet(folder, SIZE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["words.txt", "val/val_annotations.txt"])
def test_one_clear_line_when_a_list_is_no_text(folder, name):
    (folder / name).write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="is no text"):
        read_tinyimagenet(folder, SIZE)
