"""Whether a network can fit at all, before a byte of it is made."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from snnlib.errors import InputError

LARGEST_SIZE = 2**31
"""Beyond it some product of sizes leaves 64 bits, with which PyTorch counts."""

BYTES = 4  # of a float32
GIB = 2**30


def machine_memory() -> float:
    """Bytes of main memory; infinite where the system does not say."""
    names = getattr(os, "sysconf_names", {})
    if not {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(names):
        return math.inf
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(counts: Mapping[str, int], build: Callable[[], nn.Module]) -> None:
    """Refuse a network whose weights, or one encoded image of which, exceed this machine's memory.

    counts: width, num_classes, in_channels, image_size, time_steps, as far as there are. A lower bound: activations
    come on top. Errors: InputError.
    """
    name = max(counts, key=counts.get)
    side = counts.get("image_size", 32)
    encoded = BYTES * counts["time_steps"] * counts["in_channels"] * side**2
    _refuse_beyond_memory(encoded, name, counts[name], f"one encoded {side}x{side} image takes")
    _refuse_beyond_memory(_weight_bytes(build, counts[name]), name, counts[name], "the weights take")


class _Undrawn(TorchFunctionMode):
    """Leaves out the drawing of weights: for tensors without memory PyTorch loads its decompositions, for seconds."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return args[0] if function in (Tensor.normal_, Tensor.uniform_) else function(*args, **(kwargs or {}))


def _weight_bytes(build: Callable[[], nn.Module], largest: int) -> float:
    if largest > LARGEST_SIZE:
        return math.inf
    try:
        with torch.device("meta"), _Undrawn():
            return BYTES * sum(parameter.numel() for parameter in build().parameters())
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        return math.inf


def _refuse_beyond_memory(needed: float, name: str, value: int, what: str) -> None:
    memory = machine_memory()
    if needed > memory:
        size = f"{needed / GIB:.3g} GiB" if needed < math.inf else "more bytes than 64 bits can count"
        raise InputError(f"{name} is {value}: {what} {size}, this machine has {memory / GIB:.3g} GiB; lower {name}")
