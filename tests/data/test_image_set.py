from __future__ import annotations

import pytest
import torch

from snnlib.data.image_set import ImageSet, split_train_validation
from snnlib.errors import InputError


def numbered_set(labels: list[int]) -> ImageSet:
    """Image i is the constant i, so that images can be told apart."""
    images = torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return ImageSet(images.contiguous(), torch.tensor(labels))


def numbers(images: ImageSet) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


def test_batch_is_byte_over_255_when_every_level_occurs():
    levels = ImageSet(torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16), torch.tensor([0]))
    batch = levels.batch([0])
    assert batch.dtype == torch.float32 and batch.shape == (1, 1, 16, 16)
    expected = torch.tensor([level / 255 for level in range(256)], dtype=torch.float64).float()
    assert torch.equal(batch.flatten(), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batch_has_the_same_floats_when_on_cuda():
    levels = ImageSet(torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16), torch.tensor([0]))
    assert torch.equal(levels.batch([0], "cuda").cpu(), levels.batch([0]))


@pytest.mark.parametrize(
    ("index", "expected"),
    [([4, 1], [4, 1]), (torch.tensor([4, 1]), [4, 1]), (slice(1, 3), [1, 2])],
    ids=["list", "tensor", "slice"],
)
def test_batch_follows_the_index_when_given_as_list_tensor_or_slice(index, expected):
    batch = numbered_set([0] * 5).batch(index)
    assert (batch[:, 0, 0, 0] * 255).round().tolist() == expected


def test_first_per_class_keeps_order_and_balance_when_classes_are_mixed():
    subset = numbered_set([2, 0, 0, 1, 2, 1, 0, 2, 1]).first_per_class(2)
    assert numbers(subset) == [0, 1, 2, 3, 4, 5]
    assert subset.labels.tolist() == [2, 0, 0, 1, 2, 1]


def test_first_per_class_names_the_class_when_too_few():
    with pytest.raises(InputError, match="2 images per class asked for, class 1 has 1"):
        numbered_set([0, 1, 0]).first_per_class(2)


def test_first_per_class_refuses_when_none_asked_for():
    with pytest.raises(InputError, match="at least 1"):
        numbered_set([0]).first_per_class(0)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), "expected torch.uint8"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), r"\[N, C, H, W\]"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "one per image"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int32), "torch.int64"),
    ],
)
def test_image_set_refuses_when_dtype_or_shape_is_wrong(images, labels, message):
    with pytest.raises(InputError, match=message):
        ImageSet(images, labels)


def test_split_is_a_stratified_partition_when_classes_are_uneven():
    original = numbered_set([0] * 20 + [1] * 10 + [2] * 4)
    train, validation = split_train_validation(original, 0.2, seed=3)
    assert sorted(numbers(train) + numbers(validation)) == list(range(34))
    assert validation.labels.bincount().tolist() == [4, 2, 1]  # 20 %, at least one
    assert numbers(train) == sorted(numbers(train)) and numbers(validation) == sorted(numbers(validation))


def test_split_repeats_with_its_seed_and_changes_when_seed_changes():
    original = numbered_set([0] * 60 + [1] * 60)
    first, again, other = (split_train_validation(original, 0.25, seed)[1] for seed in (7, 7, 8))
    assert numbers(first) == numbers(again)
    assert numbers(first) != numbers(other)


def test_split_of_a_class_stays_when_another_class_is_added():
    alone = split_train_validation(numbered_set([0] * 30), 0.2, seed=1)[1]
    together = split_train_validation(numbered_set([0] * 30 + [1] * 30), 0.2, seed=1)[1]
    assert numbers(together)[: len(alone)] == numbers(alone)


def test_split_differs_between_classes_when_they_have_the_same_size():
    validation = split_train_validation(numbered_set([0] * 30 + [1] * 30), 0.2, seed=1)[1]
    positions = numbers(validation)
    assert positions[:6] != [position - 30 for position in positions[6:]]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_split_refuses_when_fraction_is_outside_the_open_interval(fraction):
    with pytest.raises(InputError, match="validation_fraction"):
        split_train_validation(numbered_set([0] * 10), fraction, seed=0)


def test_split_refuses_when_a_class_has_one_image():
    with pytest.raises(InputError, match="class 1 has 1 training images"):
        split_train_validation(numbered_set([0, 0, 1]), 0.1, seed=0)


def test_split_refuses_when_seed_is_negative():
    with pytest.raises(InputError, match="seed is -1"):
        split_train_validation(numbered_set([0] * 10), 0.1, seed=-1)
