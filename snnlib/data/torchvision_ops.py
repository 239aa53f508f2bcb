"""The one door to torchvision: it also opens where torchvision's compiled part cannot be loaded.

torchvision registers shape functions for its operators `nms` and `qnms` while it is imported. The operators
themselves live in a compiled library that wants CUDA; beside a CPU-only torch that library does not load, the
operators do not exist and the import fails. Datasets and transforms need neither of them, so it is enough to
declare the two schemas first.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import PathFinder
from types import ModuleType

import torch

from snnlib.optional import needs

MISSING_OPERATORS = ("nms", "qnms")
_SCHEMA = "{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# A torch.library.Library takes its declarations with it when it is collected.
_declared: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """Import torchvision, declaring the operator schemas it misses, and return the module.

    The declared operators have no kernels: calling them fails, as it does in torchvision itself then.
    Raises InputError where torchvision is not installed.
    """
    if "torchvision" not in sys.modules and not _load_compiled_operators():
        _declare_missing_operators()
    return needs("torchvision", extra="data")


def _load_compiled_operators() -> bool:
    """True once torchvision's own library has registered its operators.

    Asked before declaring anything: a library that loads after us would find its schemas taken and abort.
    """
    package = importlib.util.find_spec("torchvision")
    folders = package.submodule_search_locations if package else None
    library = PathFinder.find_spec("_C", folders) if folders else None
    if library is None or library.origin is None:
        return False
    try:
        torch.ops.load_library(library.origin)
    except OSError:
        return False
    return True


def _declare_missing_operators() -> None:
    fragment = torch.library.Library("torchvision", "FRAGMENT")
    for name in MISSING_OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            fragment.define(_SCHEMA.format(name=name))
    _declared.append(fragment)
