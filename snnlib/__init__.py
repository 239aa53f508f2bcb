"""Adversarial robustness of spiking neural networks: neurons, models, attacks, audit, conversion, theory.

Subpackages load on first use and importing them changes nothing in the process; `snnlib.companion` rebuilds the figures
of two papers with them.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.3.0"

__all__ = [
    "attacks",
    "audit",
    "conversion",
    "data",
    "encoding",
    "energy",
    "models",
    "neurons",
    "runtime",
    "sparsity",
    "theory",
    "training",
    "wrap",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"snnlib.{name}")
    raise AttributeError(f"snnlib has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
