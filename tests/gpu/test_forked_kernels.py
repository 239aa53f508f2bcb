"""A kernel that is forked behind its imports computes on the device: none of them has started CUDA."""

from __future__ import annotations

from pathlib import Path

import pytest

from snnlib.companion.runner.execute import KERNEL_NAME, write_kernel_spec
from snnlib.companion.runner.warm_kernels import warm_kernels

pytestmark = pytest.mark.gpu
CODE = """import sys
loaded = 'torch' in sys.modules
import torch
print(loaded, torch.ones(3, device='{}').sum().item())
"""


def test_a_forked_kernel_computes_on_the_device(cuda: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipykernel")
    manager = pytest.importorskip("jupyter_client.manager")
    write_kernel_spec(tmp_path)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    said = []
    with warm_kernels(["torch._dynamo", "pandas"]), manager.run_kernel(kernel_name=KERNEL_NAME) as kernel:
        kernel.execute_interactive(CODE.format(cuda), output_hook=said.append, timeout=300)
    assert [each["content"]["text"].strip() for each in said if each["msg_type"] == "stream"] == ["True 3.0"]
