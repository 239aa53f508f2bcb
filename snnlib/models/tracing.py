"""A network's operations in order, by torch.fx, each with the place where it stands in the source."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import fx, nn

from snnlib.errors import InputError

FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
TORCH = str(Path(torch.__file__).parent)


class _Tracer(fx.Tracer):
    record_stack_traces = True

    def __init__(self, is_leaf: Callable[[nn.Module], bool], truth: bool | None) -> None:
        super().__init__()
        self._is_leaf, self._truth = is_leaf, truth

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return self._is_leaf(module) or super().is_leaf_module(module, name)

    def to_bool(self, value: fx.Proxy) -> bool:
        return super().to_bool(value) if self._truth is None else self._truth


def trace(module: nn.Module, is_leaf: Callable[[nn.Module], bool], truth: bool | None = None) -> fx.Graph:
    """What `module.forward` does with one tensor. is_leaf: modules that count as one operation, beside PyTorch's own.

    truth: what a question about the tensor is answered; None refuses it.
    Errors: InputError, with the line, for a forward that depends on more than its input's values passing through it.
    """
    try:
        return _Tracer(is_leaf, truth).trace(module)
    except (fx.proxy.TraceError, TypeError, AttributeError, ValueError, RuntimeError, NotImplementedError) as error:
        place = _line_of(error)
        raise InputError(
            f"{type(module).__name__} cannot be followed by torch.fx ({_first_line(error)}{place}); expected a forward "
            "of one tensor without branches or loops over its values"
        ) from error


def place_of(node: fx.Node) -> str:
    """What a node is called in messages: layer or function, and the last line outside of PyTorch that made it."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    module = node.graph.owning_module
    if node.op == "call_module" and module is not None:
        name = f"{name} ({type(module.get_submodule(node.target)).__name__})"
    frames = [found for found in FRAME.finditer(node.stack_trace or "") if not found["file"].startswith(TORCH)]
    return f"{name} in {frames[-1]['file']}, line {frames[-1]['line']}" if frames else name


def _line_of(error: Exception) -> str:
    place, step = "", error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if step.tb_frame.f_code.co_name == "forward" and not file.startswith(TORCH):
            place = f", in {file}, line {step.tb_lineno}"
        step = step.tb_next
    return place


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
