"""A model on loan: whatever an audit does to it, it comes back as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from snnlib.attacks.entrance import same_values


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """On leaving, also by an exception, the model's modes, tensors, `requires_grad` and `.grad` are what they were.

    Buffers come back as the same tensors, also where the model made, replaced or resized some; so does extra state.
    """
    flags = {module: module.training for module in model.modules() if hasattr(module, "training")}
    weights = [(one, one.detach().clone(), one.requires_grad, one.grad) for one in model.parameters()]
    buffers = {module: _buffers_of(module) for module in model.modules()}
    extra = {module: copy.deepcopy(module.get_extra_state()) for module in model.modules() if _has_extra_state(module)}
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training
        with torch.no_grad():
            for weight, value, requires_grad, grad in weights:
                if not same_values(weight, value):
                    weight.copy_(value)
                weight.requires_grad_(requires_grad)
                weight.grad = grad
            for module, own in buffers.items():
                _give_back(module, own)
        for module, state in extra.items():
            module.set_extra_state(state)


def _buffers_of(module: nn.Module) -> dict[str, tuple[Tensor | None, Tensor | None]]:
    """Each buffer with a copy of its values."""
    found = module._buffers.items()
    return {name: (one, None if one is None else one.detach().clone()) for name, one in found}


def _give_back(module: nn.Module, own: dict[str, tuple[Tensor | None, Tensor | None]]) -> None:
    for name in [name for name, _ in module._buffers.items() if name not in own]:
        delattr(module, name)
    for name, (buffer, value) in own.items():
        if isinstance(module, ScriptModule):
            setattr(module, name, value)
            continue
        if buffer is not None and not same_values(buffer, value):
            buffer.set_(value) if buffer.shape != value.shape else buffer.copy_(value)
        module._buffers[name] = buffer


def _has_extra_state(module: nn.Module) -> bool:
    return not isinstance(module, ScriptModule) and type(module).get_extra_state is not nn.Module.get_extra_state
