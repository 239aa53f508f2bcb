"""Replayed passes give the bytes of plain ones, and stand aside where they would not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from snnlib.attacks import Budget, pgd
from snnlib.attacks.gradients import backward_through_rate
from snnlib.models import build_model
from snnlib.neurons import attacker_surrogate, kernels, surrogates
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


def test_modes_weights_strides_and_surrogates_have_recordings_of_their_own():
    model = network()
    passes, x = ReplayedPasses(model, OnTheCpu), torch.rand(4, 3, 32, 32)
    with passes.active():
        for change in (model.train, model.eval, lambda: model.body.fc.requires_grad_(False)):
            change()
            model(x)
        with torch.no_grad():
            model(x)
        model(x.contiguous(memory_format=torch.channels_last))
        model(x.clone().requires_grad_())
        with attacker_surrogate(model, surrogates.rectangular()):
            model(x)
            with torch.no_grad():
                model(x)
    assert len(passes.recordings) == 7


def test_hooks_rules_and_lent_statistics_see_the_plain_network():
    model = network().train()
    passes, x, seen = ReplayedPasses(model, OnTheCpu), torch.rand(4, 3, 32, 32), []
    norm = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    with passes.active():
        for hooked in (model.body.fc.register_forward_hook, model.body.fc.register_full_backward_hook):
            handle = hooked(lambda *_: seen.append(1))
            model(x).sum().backward()
            handle.remove()
        with backward_through_rate().applied(model):
            model(x)
        own, norm.running_mean = norm.running_mean, norm.running_mean.clone()
        model(x)
        norm.running_mean = own
        with torch.autograd.detect_anomaly(check_nan=False):
            model(x)
        assert seen == [1, 1] and passes.recordings == {}
        model(x)
    assert len(passes.recordings) == 1


def test_recordings_are_bounded_and_none_is_spent_on_sizes_that_do_not_train():
    model = network()
    passes = ReplayedPasses(model, OnTheCpu)
    with passes.active(), torch.no_grad():
        model.train()(torch.rand(8, 3, 32, 32))
        model.eval()
        for count in range(1, 9):
            model(torch.rand(count, 3, 32, 32))
        assert len(passes.recordings) == 2
        model.train()
        for count in range(2, MOST_RECORDINGS + 8):
            model(torch.rand(count, 3, 32, 32))
    assert len(passes.recordings) == MOST_RECORDINGS


def test_an_attack_alone_is_recorded_where_its_size_is_said_to_come_again():
    model, x = network().eval(), torch.rand(4, 3, 32, 32)
    for sizes, recorded in ((), 0), ([4], 1):
        passes = ReplayedPasses(model, OnTheCpu, sizes)
        with passes.active():
            for _ in range(2):
                pgd(model, x, torch.arange(4) % 3, Budget(0.01), steps=2, early_stop=False)
        assert sum(situation.wants_slope for situation in passes.recordings) == recorded


def test_what_cannot_be_recorded_is_told_once_and_trained_plainly():
    model, x = network().train(), torch.rand(4, 3, 32, 32)

    def refused(*_):
        raise RuntimeError("CUDA out of memory\nand more")

    passes = ReplayedPasses(model, refused)
    with passes.active(), pytest.warns(UserWarning, match="without CUDA graphs: CUDA out of memory$") as told:
        model(x).sum().backward()
        model(x)
    assert len(told) == 1 and passes.recordings == {}


def test_a_second_derivation_of_a_pass_is_refused():
    model = network().train()
    with ReplayedPasses(model, OnTheCpu).active():
        loss = model(torch.rand(4, 3, 32, 32)).sum()
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="differentiated twice"):
            loss.backward()


def test_a_forward_of_the_users_own_is_there_again_afterwards():
    model = network().train()
    model.forward = own = lambda x: x.mean((1, 2, 3))
    with ReplayedPasses(model, OnTheCpu).active():
        assert model(torch.ones(2, 3, 4, 4)).tolist() == [1, 1]
    assert vars(model)["forward"] is own


class _Asks(torch.nn.Identity):
    """A user's module."""


def test_only_trainings_of_which_passes_compute_the_same_are_replayed(monkeypatch):
    monkeypatch.setattr(kernels, "kernel_name", lambda device_type: "compiled")
    cuda, recipe = torch.device("cuda"), Recipe(epochs=1)
    assert isinstance(passes_of(network(), recipe, cuda), ReplayedPasses)
    sparse = replace(recipe, objective="sparse_gradient", objective_parameters={"weight": 0.1})
    poisson = build_model("vgg11", 3, 2, encoder="poisson", width=2)
    asking, averaging = network(), network()
    asking.body.head_pool = _Asks()
    next(part for part in averaging.modules() if isinstance(part, torch.nn.BatchNorm2d)).momentum = None
    for model, other, device in (
        (network(), sparse, cuda), (network(), replace(recipe, precision="bfloat16"), cuda),
        (torch.nn.Linear(2, 2), recipe, cuda), (poisson, recipe, cuda), (network(), recipe, torch.device("cpu")),
        (asking, recipe, cuda), (averaging, recipe, cuda), (build_model("vgg11", 3, 65, width=2), recipe, cuda),
    ):  # fmt: skip
        assert isinstance(passes_of(model, other, device), PlainPasses)
    monkeypatch.setenv("SNNLIB_CUDA_GRAPHS", "0")
    assert isinstance(passes_of(network(), recipe, cuda), PlainPasses)
    monkeypatch.delenv("SNNLIB_CUDA_GRAPHS")
    monkeypatch.setattr(kernels, "kernel_name", lambda device_type: "reference")
    assert isinstance(passes_of(network(), recipe, cuda), PlainPasses)
