"""A file of tensors gives back what was written, or says that it is damaged; there is no third way."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from snnlib.errors import InputError
from snnlib.tensor_files import read_tensors, write_tensors

TENSORS = {
    "a.weight": torch.arange(24.0).view(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "b": torch.tensor(3),
    "c": torch.zeros(0, 2),
    "d": torch.tensor([True, False]),
    "e": torch.ones(3, dtype=torch.bfloat16),
}
METADATA = {"model": {"name": "vgg11", "leak": 1.0}, "history": [None, True]}


def _same(tensors: dict, metadata: dict | None) -> bool:
    if metadata != METADATA or tensors.keys() != TENSORS.keys():
        return False
    return all(torch.equal(tensors[name], one) and tensors[name].dtype == one.dtype for name, one in TENSORS.items())


def test_tensors_and_metadata_come_back_as_they_were(tmp_path):
    path = write_tensors(tmp_path / "t.safetensors", TENSORS, METADATA)
    assert _same(*read_tensors(path))


def test_no_flipped_bit_gives_other_tensors_or_metadata(tmp_path):
    path = write_tensors(tmp_path / "t.safetensors", TENSORS, METADATA)
    whole, noticed = path.read_bytes(), 0
    places = range(0, 8 * len(whole), 5)  # every place in a byte
    for place in places:
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            assert _same(*read_tensors(path)), place
        except InputError as refusal:
            noticed += 1
            assert "is damaged" in str(refusal) and "\n" not in str(refusal), place
    assert noticed >= len(places) - 2, "but for the byte of a true value, which stays true"


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_a_file_that_was_cut_is_damaged(tmp_path, kept):
    path = write_tensors(tmp_path / "t.safetensors", TENSORS, METADATA)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="t.safetensors is damaged or no safetensors file"):
        read_tensors(path)


def test_a_folder_and_an_absent_file_are_no_files(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match="is no file; expected weights"):
            read_tensors(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "pt", "title": "my net"}])
def test_a_file_of_somebody_else_is_read_and_has_no_metadata(tmp_path, metadata):
    save_file({"w": torch.ones(2)}, tmp_path / "other", metadata=metadata)
    tensors, found = read_tensors(tmp_path / "other")
    assert found is None and torch.equal(tensors["w"], torch.ones(2))
