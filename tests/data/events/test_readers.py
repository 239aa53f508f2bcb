"""Readers, on tiny files in the published layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from snnlib import models
from snnlib.data.cifar10 import CLASS_NAMES
from snnlib.data.events import load_events, nmnist, recording
from snnlib.data.events.aedat import PACKET, read_aedat31, read_cifar10_dvs
from snnlib.errors import InputError
from snnlib.training import Recipe, fit


def some(count=20, side=34, last=300_000, seed=0):
    random = np.random.default_rng(seed)
    t = np.sort(random.integers(0, last, count))
    return recording(random.integers(0, side, count), random.integers(0, side, count), t, random.integers(0, 2, count))


def packet(events, kind=1, overflow=0, invalid=()):
    data = events["x"].astype(int) << 17 | events["y"].astype(int) << 2 | events["p"].astype(int) << 1 | 1
    data[list(invalid)] &= ~1
    head = np.zeros(1, PACKET)
    head["type"], head["size"], head["overflow"] = kind, 8, overflow
    head["capacity"] = head["number"] = head["valid"] = len(events)
    body = np.stack([data, events["t"] & (2**31 - 1)], axis=1).astype("<u4")
    return head.tobytes() + body.tobytes()


HEADER_31 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"


def cifar_file(events):
    """AEDAT 2.0."""
    x, y, p = (events[name].astype(int) for name in "xyp")
    address = (127 - x) << 8 | (127 - y) << 1 | (1 - p)
    body = np.stack([address, events["t"]], axis=1).astype(">u4").tobytes()
    return b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n" + body


def test_an_nmnist_event_is_five_bytes_with_the_polarity_above_the_time(tmp_path):
    path = tmp_path / "1.bin"
    path.write_bytes(bytes([3, 7, 0x80 | 1, 2, 3, 5, 6, 1, 2, 4]))
    events = nmnist.read_recording(path)
    assert [tuple(event) for event in events.tolist()] == [(3, 7, 66051, 1), (5, 6, 66052, 0)]


def test_row_240_adds_8192_microseconds_to_what_follows(tmp_path):
    path = tmp_path / "1.bin"
    path.write_bytes(bytes([1, 1, 0, 0, 9, 0, 240, 0, 0, 0, 0, 240, 0, 0, 0, 2, 2, 0, 0, 5]))
    assert nmnist.read_recording(path)["t"].tolist() == [9, 5 + 2 * 8192]


@pytest.mark.parametrize("last", [300_000, 2**24])
def test_what_is_written_is_read_again(tmp_path, last):
    events = some(last=last)
    nmnist.write_recording(tmp_path / "1.bin", events)
    assert np.array_equal(nmnist.read_recording(tmp_path / "1.bin"), events)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has 0 bytes"),
        (bytes(12), "has 12 bytes, expected 5 per event: truncated"),
        (bytes([40, 1, 0, 0, 1]), "x in 40..40; expected 0..33"),
        (bytes([0, 240, 0, 0, 0]), "has 0 events"),
        (bytes([1, 1, 0, 0, 9, 1, 1, 0, 0, 8]), "goes back from t = 9 to 8"),
    ],
)
def test_a_damaged_nmnist_file_gives_one_line_with_its_name(tmp_path, content, said):
    path = tmp_path / "00017.bin"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        nmnist.read_recording(path)
    assert "00017.bin" in str(error.value) and "\n" not in str(error.value)


def nmnist_folder(folder, per_digit=3):
    for number, split in enumerate(nmnist.SPLITS):
        labelled = [(some(seed=100 * number + n), n % 10) for n in range(10 * per_digit)]
        nmnist.write_folder(folder, split, labelled)
    return folder


def test_nmnist_loads_from_its_folder_and_trains_a_network(tmp_path):
    splits = load_events("nmnist", nmnist_folder(tmp_path / "data"), bins=4, validation_fraction=0.34)
    assert splits.train.images.shape == (20, 4, 2, 34, 34)
    assert (len(splits.validation), len(splits.test), splits.num_classes) == (10, 30, 10)
    model = models.build_model("sew_resnet18", 10, 4, encoder="events", in_channels=2, width=4, seed=0)
    history = fit(model, splits, Recipe(epochs=1, batch_size=10, augmentation="none"), directory=tmp_path / "run")
    assert history.finished


def test_a_missing_digit_and_a_missing_folder_are_named(tmp_path):
    folder = nmnist_folder(tmp_path)
    for path in (folder / "Test" / "7").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"Test/7 has no .bin files; expected N-MNIST"):
        load_events("nmnist", folder)
    with pytest.raises(InputError, match="is no folder: unpack nmnist"):
        load_events("nmnist", tmp_path / "elsewhere")
    with pytest.raises(InputError, match="event data set is 'n-mnist'"):
        load_events("n-mnist", folder)


def test_aedat31_keeps_valid_polarity_events_and_the_overflow_of_the_clock(tmp_path):
    path, events, late = tmp_path / "a.aedat", some(6, 128), some(4, 128, seed=1)
    path.write_bytes(HEADER_31 + packet(events, invalid=(2,)) + packet(events, kind=0) + packet(late, overflow=1))
    late["t"] += 2**31
    assert np.array_equal(read_aedat31(path), np.concatenate([np.delete(events, 2), late]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"GIF89a", "does not begin with #!AER-DAT"),
        (HEADER_31 + packet(some(6, 128))[:-3], "ends inside a packet of 6 events"),
        (HEADER_31 + packet(some(6, 128))[:20], "ends inside a packet header"),
        (HEADER_31 + bytes(28), "a packet of 0 of 0 events of 0 bytes: corrupt"),
        (HEADER_31, "has 0 events"),
    ],
)
def test_a_damaged_aedat31_file_gives_one_line_with_its_name(tmp_path, content, said):
    path = tmp_path / "user01.aedat"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        read_aedat31(path)
    assert "user01.aedat" in str(error.value) and "\n" not in str(error.value)


def gesture_folder(folder):
    folder.mkdir()
    for split, seed in (("train", 0), ("test", 1)):
        (folder / f"trials_to_{split}.txt").write_text(f"user{seed}_led.aedat\n")
        (folder / f"user{seed}_led.aedat").write_bytes(HEADER_31 + packet(some(200, 128, seed=seed)))
        lines = [f"{label},{start},{start + 100_000}" for label in (1, 11) for start in (0, 100_000)]
        (folder / f"user{seed}_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n" + "\n".join(lines))
    return folder


def test_gestures_are_cut_out_of_their_trials(tmp_path):
    splits = load_events("dvs-gesture", gesture_folder(tmp_path / "g"), bins=4, shrink=4, validation_fraction=0.4)
    assert splits.train.images.shape == (2, 4, 2, 32, 32) and splits.test.labels.tolist() == [0, 0, 10, 10]
    assert splits.class_names[10] == "other gestures"


def test_a_damaged_table_of_gestures_gives_one_line(tmp_path):
    folder = gesture_folder(tmp_path / "g")
    (folder / "user0_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n12,0,5\n")
    with pytest.raises(InputError, match="has the line '12,0,5'; expected class 1..11"):
        load_events("dvs-gesture", folder)
    (folder / "user0_led.aedat").unlink()
    with pytest.raises(InputError, match="user0_led.aedat is missing, but named in trials_to_train.txt"):
        load_events("dvs-gesture", folder)


def test_cifar10_dvs_is_big_endian_flipped_and_sorted(tmp_path):
    events = some(30, 128)
    path = tmp_path / "cifar10_cat_3.aedat"
    path.write_bytes(cifar_file(events[::-1]))
    found = read_cifar10_dvs(path)
    assert found["t"].tolist() == events["t"].tolist()
    assert sorted(found.tolist()) == sorted(events.tolist())
    path.write_bytes(cifar_file(events)[:-3])
    with pytest.raises(InputError, match="bytes of events, expected 8 each: truncated"):
        read_cifar10_dvs(path)


def test_the_last_tenth_of_a_class_of_cifar10_dvs_is_its_test_split(tmp_path):
    for name in CLASS_NAMES:
        (tmp_path / name).mkdir()
        for number in range(11):
            (tmp_path / name / f"cifar10_{name}_{number}.aedat").write_bytes(cifar_file(some(30, 128, seed=number)))
    splits = load_events("cifar10-dvs", tmp_path, bins=2, shrink=8)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (90, 10, 10)
    tenth = read_cifar10_dvs(tmp_path / "cat" / "cifar10_cat_10.aedat")
    assert splits.test.images[3].sum() <= len(tenth)
    assert torch.equal(splits.test.images[0], splits.test.images[9])
