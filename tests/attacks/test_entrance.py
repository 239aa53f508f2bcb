"""What an attack refuses before its first step (broken tensors, kept state, odd types), and what it takes."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from snnlib.attacks import ATTACKS, Budget, ensemble_attack, fgsm, parse_gradient, pgd, random_noise, rays, square
from snnlib.attacks import bit_flip as flip
from snnlib.attacks.entrance import PROBED, check_model
from snnlib.attacks.prepared import prepared
from snnlib.encoding import PoissonEncoder
from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.neurons import LIF, neurons_of, surrogates, use_kernel

BUDGET = Budget(0.1)
REMEDIES = ("snntorch.utils.reset(self)", "spikingjelly.activation_based.functional.reset_net(self)")
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


@pytest.fixture(autouse=True, scope="module")
def reference_kernel():
    with use_kernel("reference"):
        yield


def batch(count=6, dtype=torch.float32):
    images = torch.rand(count, 1, 6, 6, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return images, torch.arange(count) % 4


class Spiking(nn.Module):
    """A LIF layer between two linear ones, time first."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.hidden, self.head = nn.Linear(36, 20), nn.Linear(20, 4)
        self.norm, self.neuron = nn.BatchNorm1d(20), LIF(leak=0.8, threshold=0.5)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]), persistent=False)

    def forward(self, x):
        currents = self.norm(3 * self.hidden(x.flatten(1))).expand(3, -1, -1)
        return self.head(self.neuron(currents)).mean(0)


@every_attack
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hidden.weight", torch.nan, "hidden.weight holds NaN or infinity in 1 of 720 entries"),
        ("hidden.bias", torch.inf, "hidden.bias holds NaN or infinity in 1 of 20 entries"),
        ("norm.running_mean", torch.nan, "norm.running_mean holds NaN or infinity in 1 of 20 entries"),
        ("norm.running_var", -0.25, "norm.running_var holds -0.25; a variance is 0 or more"),
    ],
)
def test_a_broken_tensor_behind_a_spike_is_refused_by_name(name, value, message, attack, brief):
    model = Spiking()
    brief(attack)(model, *batch(), BUDGET)
    with torch.no_grad():
        model.state_dict()[name].view(-1)[3] = value
        # The neuron of a broken current stays silent: nothing in the logits tells.
        assert model.eval()(batch()[0]).isfinite().all()
    with pytest.raises(InputError) as refusal:
        brief(attack)(model, *batch(), BUDGET)
    assert str(refusal.value).startswith(message) and "\n" not in str(refusal.value)


def test_only_a_buffer_may_hold_minus_infinity_and_only_as_a_mask():
    model = Spiking()
    check_model(model)
    model.mask[0] = 0.5
    with pytest.raises(InputError, match="mask holds NaN or infinity in 1 of 2"):
        check_model(model)
    with pytest.raises(InputError, match="1.weight is made by the model's first call"):
        check_model(nn.Sequential(nn.Flatten(), nn.LazyLinear(4)))


class Stateful(nn.Module):
    """A membrane that lives on from call to call, in a place of the given kind."""

    def __init__(self, kind):
        super().__init__()
        self.linear = nn.Linear(36, 4)
        self.kind = kind
        self.register_buffer("buffered", torch.zeros(()))
        self.v, self.states, self.calls = torch.zeros(()), {"v": torch.zeros(())}, 0

    def forward(self, x):
        held = {"buffer": self.buffered, "attribute": self.v, "container": self.states["v"], "count": self.calls}
        new = held[self.kind] * 0.5 + self.linear(x.flatten(1))
        if self.kind == "buffer":
            self.buffered = new
        elif self.kind == "attribute":
            self.v = new
        elif self.kind == "container":
            self.states["v"] = new
        self.calls += 1
        return new


@every_attack
@pytest.mark.parametrize("kind", ["buffer", "attribute", "container", "count"])
def test_a_state_that_nobody_resets_is_refused_with_the_remedies(kind, attack):
    with pytest.raises(InputError, match="answers the same images differently the second time") as refusal:
        attack(Stateful(kind), *batch(), BUDGET)
    message = str(refusal.value)
    assert all(remedy in message for remedy in REMEDIES) and "\n" not in message
    named = {"buffer": "buffered has changed", "attribute": "v has changed", "container": "states.v has changed"}
    assert named.get(kind, "a state is left") in message


def snntorch_net():
    snntorch, utils = pytest.importorskip("snntorch"), pytest.importorskip("snntorch.utils")
    first, second = nn.Linear(36, 20), nn.Linear(20, 4)

    class Net(nn.Module):
        def __init__(self, reset):
            super().__init__()
            self.first, self.second, self.reset = first, second, reset
            self.neuron = snntorch.Leaky(beta=0.8, threshold=0.5, init_hidden=True)

        def forward(self, x):
            if self.reset:
                utils.reset(self)
            return torch.stack([self.second(self.neuron(self.first(x.flatten(1)))) for _ in range(3)]).mean(0)

    return Net


def spikingjelly_net():
    pytest.importorskip("spikingjelly.activation_based")
    from spikingjelly.activation_based import functional, neuron

    first, second = nn.Linear(36, 20), nn.Linear(20, 4)

    class Net(nn.Module):
        def __init__(self, reset):
            super().__init__()
            self.first, self.second, self.reset = first, second, reset
            self.neuron = neuron.LIFNode(v_threshold=0.5, step_mode="m")

        def forward(self, x):
            if self.reset:
                functional.reset_net(self)
            return self.second(self.neuron(2 * self.first(x.flatten(1)).expand(3, -1, -1))).mean(0)

    return Net


@pytest.mark.parametrize("attack", [pgd, square, random_noise])
@pytest.mark.parametrize("make", [snntorch_net, spikingjelly_net])
def test_networks_of_other_frameworks_are_refused_without_their_reset_and_attacked_with_it(make, attack, brief):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make()
    with pytest.raises(InputError, match="the same images differently the second time, and neuron.(mem|v) has changed"):
        brief(attack)(net(reset=False), *batch(), BUDGET)
    assert len(brief(attack)(net(reset=True), *batch(), BUDGET)) == 6


class OwnNoise(nn.Module):
    """Random by a generator that it keeps, by one of the process, or by a source that cannot be seen."""

    def __init__(self, kind):
        super().__init__()
        self.linear, self.kind, self.passes = nn.Linear(36, 4), kind, 0
        own = {"numpy's own": np.random.default_rng, "Python's own": random.Random, "old": np.random.RandomState}
        self.source = own[kind](0) if kind in own else torch.Generator().manual_seed(0)
        self.hidden_source = iter(range(1, 10**6))

    def forward(self, x):
        self.passes += 1
        draws = {
            "numpy": np.random.rand,
            "python": random.random,
            "torch's own": lambda: torch.rand((), generator=self.source),
            "hidden": lambda: next(self.hidden_source),
        }
        self.scratch = self.linear(x.flatten(1)) + draws.get(self.kind, getattr(self.source, "random", None))()
        return self.scratch


@pytest.mark.parametrize("kind", ["numpy", "python", "torch's own", "numpy's own", "Python's own", "old"])
def test_a_model_that_is_random_by_a_known_source_is_attacked_and_the_processs_draws_are_left_alone(kind):
    np.random.seed(3), random.seed(3)
    model = OwnNoise(kind)
    fgsm(model, *batch(), BUDGET)
    after = np.random.rand(), random.random()
    np.random.seed(3), random.seed(3)
    for _ in range(model.passes - 2):  # the two passes of the probe leave no trace
        _ = np.random.rand() if kind == "numpy" else random.random() if kind == "python" else None
    assert after == (np.random.rand(), random.random())


def test_another_random_model_has_to_be_declared_by_eot():
    with pytest.raises(InputError, match="random on purpose keeps its generator as an attribute"):
        pgd(OwnNoise("hidden"), *batch(), BUDGET)
    assert len(pgd(OwnNoise("hidden"), *batch(), BUDGET, steps=2, eot=2)) == 6


def test_the_probe_is_two_passes_of_a_few_images_that_nobody_counts(toys):
    images, labels = toys.images_for(toys.convolutional(), 9)
    model = toys.Counting(toys.convolutional())
    result = fgsm(model, images, labels, BUDGET)
    assert model.samples == result.forwards.sum() + 2 * PROBED
    own, seen = build_model("resnet20", 4, 2, in_channels=1, width=8), []
    own.body.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    result = fgsm(own, torch.rand(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64), BUDGET)
    assert sum(seen) == result.forwards.sum(), "modules of ours hold no state: nothing to probe"


def test_a_state_of_another_batch_that_stops_the_model_is_one_line():
    class Stuck(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.v = nn.Linear(36, 4), torch.zeros(17, 4)

        def forward(self, x):
            return self.v + self.linear(x.flatten(1))

    with pytest.raises(InputError, match="v is left from another batch") as refusal:
        fgsm(Stuck(), *batch(), BUDGET)
    assert "reset_net" in str(refusal.value) and "\n" not in str(refusal.value)


@every_attack
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_batch_norm_without_running_statistics_is_refused_by_name(norm, attack):
    model = nn.Sequential(norm(1, track_running_stats=False), nn.Flatten(), nn.Linear(36, 4))
    with pytest.raises(InputError, match="0 is a (Sync)?BatchNorm.* without running statistics") as refusal:
        attack(model, *batch(), BUDGET)
    assert "track_running_stats=True" in str(refusal.value) and "\n" not in str(refusal.value)
    of_each_image = nn.Sequential(nn.InstanceNorm2d(1), nn.Flatten(), nn.Linear(36, 4))
    assert len(fgsm(of_each_image, *batch(), BUDGET)) == 6


@every_attack
def test_images_of_another_dtype_than_the_models_are_one_line_and_float64_works(attack, brief):
    for model in (Spiking(), build_model("resnet20", 4, 2, in_channels=1, width=8)):
        with pytest.raises(InputError, match="images are torch.float64 and the model, of torch.float32") as refusal:
            brief(attack)(model, *batch(dtype=torch.float64), BUDGET)
        assert "\n" not in str(refusal.value)
        result = brief(attack)(model.double(), *batch(dtype=torch.float64), BUDGET)
        assert result.adversarial.dtype == result.loss.dtype == torch.float64
        with pytest.raises(InputError, match="images are torch.float32 and the model, of torch.float64"):
            brief(attack)(model, *batch(), BUDGET)


def test_float64_works_in_the_ensemble_and_where_no_gradient_is_taken():
    model = Spiking().double()
    members = {name: parse_gradient(name) for name in ("atan(alpha=2)", "backward_through_rate")}
    found = ensemble_attack(model, *batch(dtype=torch.float64), BUDGET, members=members, steps=2)
    assert found.result.adversarial.dtype == torch.float64


@every_attack
def test_a_batch_with_its_channels_last_is_refused_where_the_model_would_take_it(attack):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    with pytest.raises(InputError, match=r"images have shape \[2, 8, 8, 3\], channels last") as refusal:
        attack(model, torch.rand(2, 8, 8, 3), torch.tensor([0, 1]), BUDGET)
    assert "permute(0, 3, 1, 2)" in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_narrow_picture_of_many_channels_is_no_batch_with_channels_last():
    model = nn.Sequential(nn.Conv2d(8, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * 8 * 3, 4))
    assert len(fgsm(model, torch.rand(2, 8, 8, 3), torch.tensor([0, 1]), BUDGET)) == 2


def test_numpy_numbers_count_as_numbers():
    model, (images, labels) = Spiking(), batch()
    plain = pgd(model, images, labels, BUDGET, steps=3, restarts=2, step_size=0.25, eot=2)
    other = pgd(
        model, images, labels, Budget(np.float64(0.1)), steps=np.int64(3), restarts=np.int32(2),
        step_size=np.float32(0.25), eot=np.uint8(2),
    )  # fmt: skip
    assert torch.equal(plain.adversarial, other.adversarial) and torch.equal(plain.forwards, other.forwards)
    assert len(square(model, images, labels, BUDGET, queries=np.int64(5), p_init=np.float32(0.5))) == 6
    assert len(rays(model, images, labels, BUDGET, queries=np.int64(5))) == 6
    assert len(random_noise(model, images, labels, BUDGET, draws=np.int16(2))) == 6
    for wrong in (np.float64(3), np.bool_(True), np.int64(0)):
        with pytest.raises(InputError, match="steps is"):
            pgd(model, images, labels, BUDGET, steps=wrong)


@every_attack
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.int16])
def test_labels_of_every_integer_type_give_the_same(dtype, attack, brief):
    model, (images, labels) = Spiking(), batch()
    expected, found = (brief(attack)(model, images, kind, BUDGET) for kind in (labels, labels.to(dtype)))
    assert torch.equal(found.adversarial, expected.adversarial) and torch.equal(found.success, expected.success)
    with pytest.raises(InputError, match="labels contain 9, but the model has classes 0..3"):
        brief(attack)(model, images, torch.full((6,), 9).to(dtype), BUDGET)


def test_labels_of_unsigned_types_go_through_the_ensemble():
    members = {name: parse_gradient(name) for name in ("atan(alpha=2)", "straight_through(height=1)")}
    images, labels = batch()
    results = [
        ensemble_attack(Spiking(), images, kind, BUDGET, members=members, steps=2).result
        for kind in (labels, labels.to(torch.uint16))
    ]
    assert torch.equal(results[0].adversarial, results[1].adversarial)


class PoissonNet(nn.Module):
    """Poisson frames of 1x6x6 images to 4 classes, with .encoder and .body apart."""

    def __init__(self):
        super().__init__()
        self.encoder = PoissonEncoder(3)
        self.weights = nn.Parameter(torch.randn(36, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))

    def body(self, encoded):
        return (encoded.flatten(2) @ self.weights).mean(0)

    def forward(self, images):
        return self.body(self.encoder(images))


@pytest.mark.parametrize("space", ["image", "encoded"])
@pytest.mark.parametrize("attack", [square, rays, flip], ids=["square", "rays", "bit_flip"])
def test_draws_of_a_sample_follow_its_own_passes_where_samples_pass_unequally_often(attack, space):
    if attack is flip and space == "image":
        pytest.skip("bit_flip flips spikes")
    model, (images, _) = PoissonNet(), batch(40, torch.float64)
    labels = (images.flatten(1) @ model.weights).argmax(1).detach()
    budget = Budget(6, "l0", "encoded") if attack is flip else Budget(0.02 if attack is square else 0.1, space=space)
    options = {"rounds": 6} if attack is flip else {"queries": 40}

    def attacked(index):
        generator = torch.Generator().manual_seed(4)
        return attack(model, images[index], labels[index], budget, generator=generator, **options)

    whole = attacked(torch.arange(40))
    if (attack, space) != (square, "encoded"):  # there the frames are drawn once, and the body is not random
        assert len(whole.forwards.unique()) > 2, "samples pass unequally often"
    for size in (1, 7):
        for index in torch.arange(40).split(size):
            part = attacked(index)
            for name in ("success", "first_successful_step", "forwards"):
                assert torch.equal(getattr(part, name), getattr(whole, name)[index]), (name, size)
            torch.testing.assert_close(part.loss, whole.loss[index])
    assert model.encoder.seed is None and "encode" not in vars(model.encoder)


def test_attacks_from_several_threads_give_what_each_gives_alone_and_leave_the_model_as_it_was():
    model, (images, labels) = Spiking(), batch()
    curves = [surrogates.atan(alpha=2.0), surrogates.rectangular(width=0.3), surrogates.straight_through(), None]
    own = [neuron.surrogate for neuron in neurons_of(model)]

    def attack(curve):
        return pgd(model, images, labels, BUDGET, gradient=curve, steps=4).adversarial

    alone = [attack(curve) for curve in curves]
    torch.manual_seed(8)
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(attack, curves * 6))
    assert all(torch.equal(found, expected) for found, expected in zip(together, alone * 6, strict=True))
    assert [neuron.surrogate for neuron in neurons_of(model)] == own and model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_under_attack_is_out_of_reach_of_another_thread_until_it_is_given_back():
    model, entered = Spiking(), threading.Event()

    def other():
        with prepared(model):
            entered.set()

    with prepared(model), prepared(model):
        thread = threading.Thread(target=other)
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    thread.join()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_attacked_like_the_module_it_came_from_and_comes_back_as_it_was():
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 4))
    images, labels = batch()
    expected = pgd(module, images, labels, BUDGET, steps=3)
    scripted = torch.jit.script(module).train()
    for model in (scripted, torch.jit.trace(module.eval(), images), torch.jit.freeze(torch.jit.script(module.eval()))):
        result = pgd(model, images, labels, BUDGET, steps=3)
        torch.testing.assert_close(result.adversarial, expected.adversarial)
    assert all(part.training for part in scripted.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in scripted.parameters())
    with pytest.raises(InputError, match="the model is TorchScript"):
        pgd(scripted, images, labels, BUDGET, batch_norm="train")
