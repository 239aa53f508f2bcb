"""The other device, and how to run one thing there and here."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
import torch.optim.optimizer as optimisers
from torch import Tensor

from snnlib.neurons import use_kernel


def _helper() -> ModuleType:
    name = "snnlib_tests_other_device"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("other_device.py"))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def other_device(monkeypatch: pytest.MonkeyPatch):
    """`with other_device:` tensors of the device `other_device.name` hold numbers; neurons run by the reference."""
    helper = _helper()
    if reason := helper.why_not():
        pytest.skip(reason)
    name = helper.NAME
    supported, autocast = optimisers._get_fused_kernels_supported_devices, torch.autocast
    monkeypatch.setattr(optimisers, "_get_fused_kernels_supported_devices", lambda: [*supported(), name])
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda kind, *rest, **options: contextlib.nullcontext() if kind == name else autocast(kind, *rest, **options),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with use_kernel("reference"):
        yield helper.OtherDevice()
    torch.set_num_threads(threads)


@pytest.fixture
def same_on_both(other_device) -> Callable[[Callable[[str], object]], None]:
    """A function that asks `make(device)` on both devices, and for the same bytes."""

    def check(make: Callable[[str], object]) -> None:
        here = make("cpu")
        with other_device:
            there = make(other_device.name)
            there = there.cpu() if isinstance(there, Tensor) else there
        assert other_device.called, "nothing ran on the other device"
        if isinstance(here, pd.DataFrame):
            pd.testing.assert_frame_equal(there, here, check_exact=True)
        elif isinstance(here, Tensor):
            assert torch.equal(there, here)
        else:
            assert there == here

    return check
