"""Replayed passes give the bytes of plain ones, and stand aside where they would not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from snnlib.attacks.gradients import backward_through_rate
from snnlib.models import build_model
from snnlib.tensor_files import state_digest
from snnlib.training import Recipe, inner_attack
from snnlib.training.epoch import build_optimiser, train_epoch
from snnlib.training.replay import MOST_RECORDINGS, PlainPasses, ReplayedPasses, passes_of, same_memory


class OnTheCpu:
    """A recording as CUDA's: fixed memory for points, logits and gradients, which every pass overwrites."""

    def __init__(self, forward, model, x, weights):
        self.lease = lambda: None
        self._model_forward, self._model, self._wants_slope = forward, model, x.requires_grad
        self._originals, self._weights, self._static = weights, weights, None

    def forward(self, x):
        with same_memory(self._model) as twins, torch.set_grad_enabled(bool(self._weights) or self._wants_slope):
            self._weights = [twins[weight] for weight in self._originals]
            self._x = x.detach().clone().requires_grad_(self._wants_slope)
            self._logits = self._model_forward(self._x)
        return self._logits.detach().clone()

    def backward(self, g_logits):
        inputs = [self._x, *self._weights] if self._wants_slope else self._weights
        found = torch.autograd.grad(self._logits, inputs, g_logits, allow_unused=True)
        if self._static is None:
            self._static = [None if gradient is None else gradient.clone() for gradient in found]
        for memory, gradient in zip(self._static, found, strict=True):
            if memory is not None:
                memory.copy_(gradient)
        return [None if memory is None else memory.detach() for memory in self._static]


def network():
    return build_model("vgg11", 3, 2, width=2, trainable_threshold=True, dropout=0.2, seed=0)


@pytest.fixture(scope="module")
def splits(tiny):
    big = tiny.make_splits()
    grown = lambda images: replace(images, images=images.images.repeat(1, 1, 4, 4))  # noqa: E731
    return replace(big, train=grown(big.train), validation=grown(big.validation), test=grown(big.test))


ROBUST = {name: Recipe(epochs=1, batch_size=8, learning_rate=0.01, objective=name, attack=inner_attack(name, 0.03))
          for name in ("trades", "mart", "consistency", "adversarial")}  # fmt: skip


@pytest.mark.parametrize("recipe", [Recipe(epochs=1, batch_size=8), *ROBUST.values()], ids=lambda r: r.objective)
def test_an_epoch_of_replayed_passes_gives_the_bytes_of_plain_ones(splits, recipe):
    digests = []
    for replayed in (False, True):
        model = network()
        passes = ReplayedPasses(model, OnTheCpu) if replayed else PlainPasses()
        torch.manual_seed(3)
        with passes.active():
            train_epoch(model, build_optimiser(model, recipe), splits.train, recipe, 1, torch.device("cpu"), int)
        digests.append(state_digest(model.state_dict()))
    assert digests[0] == digests[1]
    assert "forward" not in vars(model) and 0 < len(passes.recordings) < MOST_RECORDINGS


def test_a_pass_whose_gradient_is_still_to_come_is_not_overwritten():
    model = network().train()
    passes, x = ReplayedPasses(model, OnTheCpu), torch.rand(4, 3, 32, 32)
    with passes.active():
        first, second = model(x), model(x + 0.1)
        assert [len(held) for held in passes.recordings.values()] == [2]
        (first.sum() + second.sum()).backward()
        model(x)
    assert [len(held) for held in passes.recordings.values()] == [2]


def test_a_pass_that_nobody_differentiates_gives_its_recording_back():
    model = network().train()
    passes, x = ReplayedPasses(model, OnTheCpu), torch.rand(4, 3, 32, 32)
    with passes.active():
        for _ in range(3):
            model(x)
    assert [len(held) for held in passes.recordings.values()] == [1]


def test_modes_weights_shapes_and_surrogates_have_recordings_of_their_own():
    model = network()
    passes, x = ReplayedPasses(model, OnTheCpu), torch.rand(4, 3, 32, 32)
    with passes.active():
        for change in (model.train, model.eval, lambda: model.body.fc.requires_grad_(False)):
            change()
            model(x)
        with torch.no_grad():
            model(x)
        model(x[:2])
        model(x.clone().requires_grad_())
        assert len(passes.recordings) == 6


def test_hooks_and_an_attackers_rule_see_the_plain_network():
    model = network().eval()
    passes, x, seen = ReplayedPasses(model, OnTheCpu), torch.rand(4, 3, 32, 32), []
    with passes.active():
        handle = model.body.fc.register_forward_hook(lambda *_: seen.append(1))
        model(x)
        handle.remove()
        with backward_through_rate().applied(model):
            model(x)
    assert seen == [1] and passes.recordings == {}


def test_recordings_are_bounded():
    model = network().eval()
    passes = ReplayedPasses(model, OnTheCpu)
    with passes.active(), torch.no_grad():
        for count in range(1, MOST_RECORDINGS + 3):
            model(torch.rand(count, 3, 32, 32))
    assert len(passes.recordings) == MOST_RECORDINGS


def test_only_trainings_of_which_passes_compute_the_same_are_replayed(monkeypatch):
    cuda, recipe = torch.device("cuda"), Recipe(epochs=1)
    assert isinstance(passes_of(network(), recipe, cuda), ReplayedPasses)
    sparse = replace(recipe, objective="sparse_gradient", objective_parameters={"weight": 0.1})
    poisson = build_model("vgg11", 3, 2, encoder="poisson", width=2)
    for model, other, device in (
        (network(), sparse, cuda), (network(), replace(recipe, precision="bfloat16"), cuda),
        (torch.nn.Linear(2, 2), recipe, cuda), (poisson, recipe, cuda), (network(), recipe, torch.device("cpu")),
    ):  # fmt: skip
        assert isinstance(passes_of(model, other, device), PlainPasses)
    monkeypatch.setenv("SNNLIB_CUDA_GRAPHS", "0")
    assert isinstance(passes_of(network(), recipe, cuda), PlainPasses)
