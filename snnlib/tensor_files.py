"""Tensors in a safetensors file that knows when it was damaged: a digest over all that it holds, checked on reading.

The same content gives the same bytes: tensors lie in the format's fixed order, the metadata is one sorted JSON text,
and no time of day goes in. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from snnlib.errors import InputError
from snnlib.files import write_atomic

METADATA_KEY = "snnlib"  # one key only: safetensors writes several in no fixed order
DIGEST = "digest"


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: dict) -> Path:
    """Write atomically, whatever layout or device the tensors have. `metadata`: plain types, NaN excluded."""
    plain = {name: plain_copy(value) for name, value in tensors.items()}
    metadata = json.loads(json.dumps(metadata, allow_nan=False))  # as it will be read: keys are texts then
    text = json.dumps({**metadata, DIGEST: _digest(plain, metadata)}, sort_keys=True)
    return write_atomic(path, save(plain, metadata={METADATA_KEY: text}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict | None]:
    """Tensors on the CPU and their metadata; None for a safetensors file of somebody else, which has no digest.

    Errors: InputError for a file that is missing, damaged, or in another format.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file; expected weights in the safetensors format; correct the path")
    if zipfile.is_zipfile(path):  # what torch.save writes
        raise InputError(
            f"{path} is a pickle of PyTorch, which may run any code and is not read; expected safetensors; give a file "
            "with a function that loads it, as FILE.py:function, or write the weights with snnlib.models.save"
        )
    try:
        with safe_open(path, framework="pt") as stream:
            found = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118, it has no iterator
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is damaged or no safetensors file ({_first_line(error)}); delete it and make it again; "
            "pickled weights are not read"
        ) from None
    if METADATA_KEY not in found and not any(f'"{DIGEST}"' in text for text in found.values()):
        return tensors, None
    try:
        metadata = json.loads(found[METADATA_KEY])
        whole = metadata.pop(DIGEST) == _digest(tensors, metadata)
    except (KeyError, ValueError, AttributeError, TypeError):
        whole = False
    if not whole:
        raise InputError(
            f"{path} is damaged (its digest is another); delete it, in a training folder the whole folder, and make it "
            "again"
        )
    return tensors, metadata


def state_digest(state: Mapping[str, Tensor]) -> str:
    """16 hex digits over the names, types, shapes and bytes of a state dict; the same on every device."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\0".encode())
        digest.update(plain_copy(value).flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def plain_copy(value: Tensor) -> Tensor:
    """Contiguous, on the CPU, and a copy, because safetensors refuses tensors that share memory (tied weights)."""
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _digest(tensors: Mapping[str, Tensor], metadata: dict) -> str:
    text = json.dumps(metadata, sort_keys=True)
    return hashlib.sha256(f"{state_digest(tensors)} {text}".encode()).hexdigest()[:16]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
