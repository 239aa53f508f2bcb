"""Lend a model to an attack and give it back as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _BatchNorm

from snnlib.attacks.entrance import PROBED, equal_draws, explained, same_logits
from snnlib.attacks.gradients import SpikeGradient, SpikeRule, bptt
from snnlib.errors import InputError
from snnlib.neurons import foreign_neurons
from snnlib.neurons.surrogates import Surrogate

BATCH_NORM_MODES = ("eval", "train", "train-and-keep")
ONE_AT_A_TIME = threading.RLock()
"""Held while a model is prepared: an attack in another thread would find its surrogate, or leave it behind, and both
would draw from the process's one random state. One lock for all models, so that no two attacks can wait for each other.
"""


class PreparedModel:
    """A model during an attack: all modules in eval, except BatchNorm where the threat model says train.

    same_forward: the model computes the deployed function all the time, so one pass gives score and gradient. False
    (the ReLU proxy): outside `differentiable()` it is the deployed network, inside it is the stand-in.
    """

    def __init__(self, model: nn.Module, batch_norm: str, gradient: SpikeGradient | None = None) -> None:
        self.model = model
        self.batch_norm = batch_norm
        self.same_forward = gradient is None or gradient.same_forward
        self.rule: SpikeRule | None = None
        self._gradient = gradient
        self._batch_norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        self._own_statistics = [dict(module.named_buffers(recurse=False)) for module in self._batch_norms]

    @contextmanager
    def differentiable(self) -> Iterator[None]:
        """Inside, the model is what the attacker differentiates; success is never judged in here.

        Changes nothing where `same_forward`, which is so for every gradient but a proxy.
        """
        if self.same_forward:
            yield
        else:
            with self._gradient.applied(self.model):
                yield

    def active(self, index: Tensor, repeat: bool = False) -> None:
        """Say which samples the following passes hold, so that a state per sample can follow them.

        index: `[n]` int64, ascending positions of these samples in the batch that the attack began with; a subset of
        those named before, because samples leave an attack and never come back. In force until the next call.
        repeat: the points are those of the pass before (further draws of an EOT average): running statistics are used
        and not moved. Only `adaptive_sharpness` listens. Never called: the batch is taken as fixed.
        """
        if self.rule is not None:
            self.rule.active(index, repeat)

    def switch_modes(self) -> None:
        _set_training_flags(dict.fromkeys(_with_mode(self.model), False))
        for module in self._batch_norms:
            module.training = self.batch_norm != "eval"
        if self.batch_norm == "train":
            self._lend_statistics()

    @contextmanager
    def frozen_batch_norm(self) -> Iterator[None]:
        """Inside, BatchNorm uses running statistics and moves none."""
        flags = {module: module.training for module in self._batch_norms}
        _set_training_flags(dict.fromkeys(flags, False))
        try:
            yield
        finally:
            _set_training_flags(flags)

    def freeze_batch_norm(self) -> None:
        """From here on BatchNorm uses running statistics: those of the start, or the drifted ones if kept."""
        for module in self._batch_norms:
            module.training = False
        self.restore_statistics()

    def restore_statistics(self) -> None:
        if self.batch_norm == "train":
            for module, own in zip(self._batch_norms, self._own_statistics, strict=True):
                for name, buffer in own.items():
                    setattr(module, name, buffer)

    def _lend_statistics(self) -> None:
        # Copies drift in place of the buffers: writing the old values back would bump the buffers' version
        # counters and so break the backward pass of a graph that the caller built before the attack.
        for module, own in zip(self._batch_norms, self._own_statistics, strict=True):
            for name, buffer in own.items():
                setattr(module, name, buffer.clone())


@contextmanager
def prepared(
    model: nn.Module, *, gradient: Surrogate | SpikeGradient | None = None, batch_norm: str = "eval"
) -> Iterator[PreparedModel]:
    """Prepare `model` for an attack; on leaving, also by an exception, it is what it was.

    Restored: the training flag of each module, the BatchNorm buffers (not for "train-and-keep"),
    `requires_grad` of each parameter, and how each neuron is differentiated. `.grad` is never written, because weight
    gradients are off inside. Threads wait for each other.

    gradient: how the attacker differentiates spikes, see `snnlib.attacks.gradients`; a surrogate stands for `bptt` with
    it; None = the model's own.
    batch_norm: "eval" = running statistics. "train" = statistics of the attacked batch while attacking, all
    other modules in eval. "train-and-keep" = the same, and the running statistics stay where the attack moved
    them.
    Errors: InputError for an unknown mode, no gradient, or a gradient for a model without `snnlib` neurons.
    """
    if batch_norm not in BATCH_NORM_MODES:
        raise InputError(f"batch_norm is {batch_norm!r}; expected one of {', '.join(BATCH_NORM_MODES)}")
    if batch_norm != "eval" and any(isinstance(module, ScriptModule) for module in model.modules()):
        raise InputError(
            f"batch_norm is {batch_norm!r} and the model is TorchScript, whose BatchNorm is out of reach; "
            "use 'eval', or the model before it was scripted"
        )
    if isinstance(gradient, Surrogate):
        gradient = bptt(gradient)
    if gradient is not None and not isinstance(gradient, SpikeGradient):
        raise InputError(f"gradient is {gradient!r}; expected None or e.g. surrogates.atan(alpha=2.0)")
    if gradient is not None:
        gradient.check(model)
    with ONE_AT_A_TIME, ExitStack() as on_exit:
        lent = PreparedModel(model, batch_norm, gradient)
        on_exit.callback(lent.restore_statistics)
        on_exit.callback(_set_training_flags, {module: module.training for module in _with_mode(model)})
        on_exit.callback(_set_requires_grad, {weight: weight.requires_grad for weight in model.parameters()})
        if gradient is not None and lent.same_forward:
            lent.rule = on_exit.enter_context(gradient.applied(model))
        lent.switch_modes()
        # One by one: TorchScript refuses `model.requires_grad_`.
        _set_requires_grad(dict.fromkeys(model.parameters(), False))
        yield lent


def check_exchange(model: nn.Module, gradient: Surrogate | SpikeGradient | None, x: Tensor) -> None:
    """Errors: InputError where neurons of another framework fire otherwise once their surrogate is exchanged, as those
    do that compile it into their own kernels: it would be another function.

    x: images; looks at the first, with equal random numbers. A model that differs from itself is left to others.
    """
    if gradient is None or not foreign_neurons(model):
        return
    few = x[:PROBED]
    with torch.no_grad(), explained(model, few), equal_draws(few.device, model) as rewind:

        def logits(gradient: Surrogate | SpikeGradient | None) -> Tensor:
            rewind()
            with prepared(model, gradient=gradient):
                return model(few)

        own = logits(None)
        if not isinstance(own, Tensor) or not same_logits(own, logits(None)):
            return
        other = logits(gradient)
    if not same_logits(own, other):
        raise InputError(
            f"with the surrogate {gradient} the model's neurons fire otherwise: this would be another function; "
            "pass gradient=None"
        )


def _with_mode(model: nn.Module) -> list[nn.Module]:
    """Modules that have a training flag; frozen TorchScript has none."""
    return [module for module in model.modules() if hasattr(module, "training")]


def _set_training_flags(flags: dict[nn.Module, bool]) -> None:
    for module, training in flags.items():
        module.training = training


def _set_requires_grad(flags: dict[nn.Parameter, bool]) -> None:
    for weight, requires_grad in flags.items():
        weight.requires_grad_(requires_grad)
