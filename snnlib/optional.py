"""Packages that only some parts of the library need: imported where they are used, named where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from snnlib.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def needs(module: str, *, extra: str) -> ModuleType:
    """Import and return `module`, which the extra `extra` of this package brings.

    Errors: InputError that names the extra where the package is not installed. A package that is there but broken
    raises its own error.

    >>> needs("json", extra="data").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        raise InputError(f'{package} is not installed; this part needs it: pip install "snnlib[{extra}]"') from None


def axes_for(ax: Axes | None) -> Axes:
    """`ax` itself, or the axes of a new figure. Errors: InputError where matplotlib is missing."""
    return needs("matplotlib.pyplot", extra="report").subplots(layout="constrained")[1] if ax is None else ax
