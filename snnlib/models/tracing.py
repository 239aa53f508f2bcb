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

    def __init__(self, is_leaf: Callable[[nn.Module], bool], answer: Callable[[fx.Node], bool] | None) -> None:
        super().__init__()
        self._is_leaf, self._answer = is_leaf, answer

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return self._is_leaf(module) or super().is_leaf_module(module, name)

    def to_bool(self, value: fx.Proxy) -> bool:
        return super().to_bool(value) if self._answer is None else self._answer(value.node)


def trace(
    module: nn.Module,
    is_leaf: Callable[[nn.Module], bool],
    answer: Callable[[fx.Node], bool] | None = None,
) -> fx.Graph:
    """What `module.forward` does with one tensor. is_leaf: modules that count as one operation, beside PyTorch's own.

    answer: what a question about the tensor, such as of its shape, is answered; None refuses it.
    Errors: InputError, with the line, for a forward that depends on more than its input's values passing through it.
    """
    try:
        return _Tracer(is_leaf, answer).trace(module)
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


class Values:
    """What the nodes of a module's graph are for an example input, each computed when it is asked for.

    The module runs once, before it is traced: while it is, its layers give no numbers.
    """

    def __init__(self, module: nn.Module, example: torch.Tensor) -> None:
        self._example = example
        self._kept = dict((*module.named_parameters(), *module.named_buffers()))
        self._outputs: dict[str, list[object]] = {}
        self._known: dict[fx.Node, object] = {}
        hooks = [
            part.register_forward_hook(lambda part, inputs, output, name=name: self._note(name, output))
            for name, part in module.named_modules()
        ]
        try:
            with torch.no_grad():
                module(example)
        finally:
            for hook in hooks:
                hook.remove()

    def __getitem__(self, node: fx.Node) -> object:
        if node not in self._known:
            with torch.no_grad():
                self._known[node] = self._run(node)
        return self._known[node]

    def _note(self, name: str, output: object) -> None:
        self._outputs.setdefault(name, []).append(output)

    def _run(self, node: fx.Node) -> object:
        if node.op == "placeholder":
            return self._example
        if node.op == "get_attr":
            return self._kept[node.target]
        if node.op == "call_module":
            calls = [each for each in node.graph.nodes if each.op == "call_module" and each.target == node.target]
            return self._outputs[node.target][calls.index(node)]
        args, kwargs = (fx.map_arg(each, self.__getitem__) for each in (node.args, node.kwargs))
        if node.op == "call_method":
            return getattr(args[0], node.target)(*args[1:], **kwargs)
        return node.target(*args, **kwargs)


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
