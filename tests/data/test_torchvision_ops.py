from __future__ import annotations

import subprocess
import sys


def _run(code: str) -> str:
    """Run `code` in a fresh interpreter, since a process can import torchvision only once."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_imports_with_datasets_and_transforms_when_process_is_fresh():
    out = _run(
        "import torch\n"
        "from snnlib.data.torchvision_ops import import_torchvision\n"
        "torchvision = import_torchvision()\n"
        "flipped = torchvision.transforms.functional.hflip(torch.tensor([[[1, 2, 3]]]))\n"
        "print(torchvision.datasets.CIFAR10.__name__, flipped.tolist())\n"
        "print(import_torchvision() is torchvision)\n"
    )
    assert out == "CIFAR10 [[[3, 2, 1]]]\nTrue"


def test_only_the_missing_operator_is_declared_when_compiled_library_cannot_be_loaded():
    out = _run(
        "import torch\n"
        "def refuse(path):\n"
        "    raise OSError(path)\n"
        "torch.ops.load_library = refuse\n"
        "present = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "present.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "from snnlib.data.torchvision_ops import import_torchvision\n"
        "import_torchvision()\n"
        "operators = torch.ops.torchvision\n"
        "print(operators.nms.default._schema, operators.qnms.default._schema, sep='|')\n"
    )
    arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    assert out == f"torchvision::nms{arguments}|torchvision::qnms{arguments}"


def test_nothing_is_declared_when_compiled_library_loads():
    out = _run(
        "import types, torch\n"
        "torch.ops.load_library = lambda path: None\n"
        "from snnlib.data import torchvision_ops\n"
        "torchvision_ops.importlib.import_module = lambda name: types.ModuleType(name)\n"
        "torchvision_ops.import_torchvision()\n"
        "print(len(torchvision_ops._declared), hasattr(torch.ops.torchvision, 'nms'))\n"
    )
    assert out == "0 False"
