"""Forward passes that halt in front of layers: the same with any memory, and nothing left behind."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest
import torch
from torch import Tensor, nn

from snnlib.conversion import lockstep
from snnlib.conversion.lockstep import current_batch, layer_by_layer


class Scale(nn.Module):
    """Multiplies by a factor that the caller sets on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = float("nan")

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Net(nn.Module):
    """x -> a(x) -> a(x) + 1 -> b -> c + shortcut from the input, counting how often each part runs."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.b, self.a = Scale(), Scale(), Scale()
        self.runs: list[tuple[str, int]] = []
        self.fails_in: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        batch = current_batch()
        self.runs.append(("a", batch))
        y = self.a(x)
        if batch == self.fails_in:
            raise ArithmeticError("the model broke")
        self.runs.append(("b", batch))
        y = self.b(y + 1)
        self.runs.append(("c", batch))
        return self.c(y) + x


BATCHES = [torch.tensor([1.0, 2.0]), torch.tensor([5.0, 0.0]), torch.tensor([-1.0, 3.0])]
BYTES = 2 * 8


def _waiting() -> int:
    return sum(isinstance(thread, lockstep._Walk) for thread in threading.enumerate())


def _walk(net: Net, budget: int) -> list[tuple[nn.Module, list[float]]]:
    """Each layer's factor becomes the largest input over all batches."""
    found = []
    passes = layer_by_layer(lambda i: net(BATCHES[i]), 3, [net.a, net.b, net.c], lambda x: x.max().item(), budget)
    for layer, values in passes:
        layer.factor = max(values)
        found.append((layer, values))
    return found


@pytest.mark.parametrize("budget", [0, BYTES, 2 * BYTES, 2**30])
def test_layers_come_in_forward_order_with_what_the_caller_set_before(budget):
    net = Net()
    found = _walk(net, budget)
    # a: inputs' maxima 2, 5, 3 -> factor 5; b: 5x + 1 -> 11, 26, 16 -> factor 26; c: 26 (5x + 1)
    assert found == [(net.a, [2, 5, 3]), (net.b, [11, 26, 16]), (net.c, [286, 676, 416])]
    assert _waiting() == 0


def test_each_part_runs_once_per_batch_when_there_is_memory():
    net = Net()
    _walk(net, budget=3 * BYTES)
    assert net.runs == [(part, batch) for part in "abc" for batch in range(3)]


def test_prefix_runs_again_for_every_layer_when_there_is_no_memory():
    net = Net()
    _walk(net, budget=0)
    runs = [sum(1 for part, _ in net.runs if part == wanted) for wanted in "abc"]
    # Once for each layer and once more to the end; c is reached once for itself and once on the way to the end.
    assert runs == [3 * 4, 3 * 3, 3 * 2]


def test_only_as_many_passes_wait_as_fit():
    net = Net()
    _walk(net, budget=2 * BYTES)
    starts = [batch for part, batch in net.runs if part == "a"]
    assert starts.count(0) == 1 and starts.count(1) == 1 and starts.count(2) == 4


@pytest.mark.parametrize("budget", [0, 2**30])
def test_an_error_of_the_model_arrives_and_nothing_is_left(budget):
    net = Net()
    net.fails_in = 1
    with pytest.raises(ArithmeticError, match="the model broke"):
        _walk(net, budget)
    assert _waiting() == 0
    assert not net.a._forward_pre_hooks


def test_closing_early_ends_every_pass():
    net = Net()
    passes = layer_by_layer(lambda i: net(BATCHES[i]), 3, [net.a], lambda x: x.max().item(), 2**30)
    with closing(passes):
        next(passes)
        assert _waiting() == 3
    assert _waiting() == 0
    assert not net.a._forward_pre_hooks


def test_passes_run_without_gradients_and_the_caller_keeps_its_own():
    weight, modes = torch.ones(2, requires_grad=True), []

    def run(batch: int) -> Tensor:
        modes.append(torch.is_inference_mode_enabled())
        return net.a(weight * BATCHES[batch])

    net = Net()
    for layer, _ in layer_by_layer(run, 2, [net.a], lambda x: modes.append(x.requires_grad), 0):
        layer.factor = 1.0
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert set(modes) == {True, False} and modes.count(False) == 2


def test_a_pass_without_layers_yields_nothing():
    assert list(layer_by_layer(lambda i: BATCHES[i], 3, [], lambda x: x, 2**30)) == []
