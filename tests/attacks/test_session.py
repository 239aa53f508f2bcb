"""What all attacks share: inputs, encoded space, fixed batches, the checked result."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from snnlib.attacks import (
    ATTACKS,
    Budget,
    apgd,
    apgd_targeted,
    concatenate,
    fgsm,
    mi_fgsm,
    pgd,
    r_fgsm,
    random_noise,
    rays,
    sa_pgd,
    spsa,
    square,
)
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.prepared import PreparedModel
from snnlib.attacks.result import checked_result
from snnlib.attacks.session import Session, open_session
from snnlib.errors import InputError
from snnlib.neurons import LIF

pytestmark = pytest.mark.usefixtures("unprobed")


class Returns(nn.Module):
    """Gives whatever `function` makes of the images."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def two_logits(x):
    score = x.flatten(1).sum(1)
    return torch.stack([score, -score], 1)


FEWER = {
    square: {"queries": 60},
    rays: {"queries": 80},
    spsa: {"steps": 6, "directions": 10, "step_size": 0.004},
    apgd: {"steps": 5},
    apgd_targeted: {"steps": 5},
    sa_pgd: {"steps": 5},
}
IMAGES, LABELS = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64)
BAD_INPUTS = {
    "eps for budget": ({"budget": 0.1}, "budget is 0.1"),
    "function": ({"model": two_logits}, "model is a function"),
    "no body": ({"budget": Budget(0.1, space="encoded")}, "Returns has no .encoder"),
    "bytes": ({"images": IMAGES.to(torch.uint8)}, "images are torch.uint8"),
    "half": ({"images": IMAGES.half()}, "images are torch.float16"),
    "list": ({"images": [0.5]}, "images are list"),
    "no batch": ({"images": torch.rand(4)}, "images have shape [4]"),
    "empty": ({"images": IMAGES[:0], "labels": LABELS[:0]}, "images have shape [0, 1, 2, 2]: an empty batch"),
    "0..255": ({"images": IMAGES * 255}, "images span 127.5..127.5; expected values in [0, 1]"),
    "negative": ({"images": IMAGES - 1}, "images span -0.5..-0.5"),
    "beyond rounding": ({"images": IMAGES * 2.00001}, "images span 1.00000501..1.00000501; expected values in"),
    "NaN": ({"images": IMAGES * torch.nan}, "images span nan..nan"),
    "one-hot": ({"labels": torch.eye(3)}, "labels are torch.float32"),
    "too few": ({"labels": LABELS[:2]}, "labels have shape [2]; expected [3]"),
    "below 0": ({"labels": LABELS - 1}, "labels contain -1"),
    "above": ({"labels": LABELS + 2}, "labels contain 2, but the model has classes 0..1"),
    "seed": ({"generator": 3407}, "generator is 3407"),
    "NaN logits": ({"model": Returns(lambda x: two_logits(x) * torch.nan)}, "the model's logits contain NaN"),
    "inf logits": (
        {"model": Returns(lambda x: two_logits(x) / 0)},
        "the model's logits contain NaN or infinity",
    ),
    "map": ({"model": Returns(lambda x: x)}, "the model returned [3, 1, 2, 2]; expected logits [3, classes]"),
    "one logit": ({"model": Returns(lambda x: x.flatten(1)[:, :1])}, "the model returned [3, 1]"),
    "tuple": ({"model": Returns(lambda x: (two_logits(x), x))}, "the model returned tuple"),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize(("change", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_attack_refuses_in_one_line_when_an_input_does_not_fit(change, message, attack):
    arguments = {
        "model": Returns(two_logits),
        "images": IMAGES,
        "labels": LABELS,
        "budget": Budget(0.1),
    } | change
    with pytest.raises(InputError) as error:
        attack(**arguments)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("eps", [0.0, 0.05])
def test_pixels_outside_the_box_by_rounding_are_taken(attack, eps, toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 5)
    images[:, 0, 0, :2] = torch.tensor([1.0000001, -1e-7])
    assert images.amax() > 1 and images.amin() < 0
    result = attack(model, images, labels, Budget(eps), **FEWER.get(attack, {}))
    assert Budget(eps).inside(result.adversarial, images).all()


@pytest.mark.parametrize("attack", [fgsm, r_fgsm, pgd, mi_fgsm, apgd, sa_pgd])
@pytest.mark.parametrize(
    "function", [lambda x: two_logits(x.detach()), lambda x: two_logits((x > 0.4) * 1.0)]
)
def test_gradient_attack_says_what_to_do_when_logits_have_no_gradient(function, attack):
    with pytest.raises(InputError, match="do not depend on the images in a differentiable way") as error:
        attack(Returns(function), IMAGES, LABELS, Budget(0.1))
    assert 'Budget(space="encoded")' in str(error.value) and "eval mode" in str(error.value)
    assert random_noise(Returns(function), IMAGES, LABELS, Budget(0.1)).forwards.tolist() == [2, 2, 2]


def test_attack_says_so_when_gradient_or_later_logits_are_not_finite():
    square_root_at_zero = Returns(lambda x: two_logits((x - 0.5).abs().sqrt() + 1))
    with pytest.raises(InputError, match="NaN or infinite in the attack"):
        fgsm(square_root_at_zero, IMAGES, LABELS, Budget(0.1))
    finite_at_start_only = Returns(lambda x: two_logits(x) + torch.where(x.amax() == 0.5, 0.0, torch.nan))
    with pytest.raises(InputError, match="NaN or infinite in the attack"):
        random_noise(finite_at_start_only, IMAGES, LABELS, Budget(0.1))


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_inputs_are_left_alone_when_attacked(attack, toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 5)
    labels = labels.to(torch.int32)
    before = images.clone(), labels.clone()
    result = attack(model, images, labels, Budget(0.05), **FEWER.get(attack, {}))
    assert torch.equal(images, before[0]) and torch.equal(labels, before[1]) and not images.requires_grad
    assert result.adversarial.data_ptr() != images.data_ptr() and len(result) == 5


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_forwards_add_up_to_what_the_model_saw_when_samples_leave(attack, toys):
    inner = toys.convolutional()
    images, labels = toys.images_for(inner, 16)
    labels[:3] = (labels[:3] + 1) % 4
    model = toys.Counting(inner)
    result = attack(model, images, labels, Budget(0.02), **FEWER.get(attack, {}))
    assert model.samples == result.forwards.sum()
    assert result.success.any() and not result.success.all()
    assert (result.first_successful_step[:3] == 0).all() and (result.forwards[:3] == 1).all()
    assert torch.equal(result.success, result.first_successful_step >= 0)
    predicted = inner.eval()(result.adversarial).argmax(1)
    assert torch.equal(result.success, predicted != labels)


@pytest.fixture
def encoded_toy(toys):
    weights = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    model = toys.Encoded(weights / weights.abs().sum(), bias=2.0)
    images = torch.rand(5, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    return model, images, torch.ones(5, dtype=torch.int64)


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_every_time_step_is_perturbed_on_its_own_when_space_is_encoded(attack, encoded_toy):
    model, images, labels = encoded_toy
    result = attack(model, images, labels, Budget(0.1, space="encoded"))
    encoded = model.encoder(images)
    optimum = (encoded - 0.1 * model.linear.weights.sign().unsqueeze(1)).clamp(0, 1)
    assert result.adversarial.shape == (3, 5, 2, 4, 4)
    torch.testing.assert_close(result.adversarial, optimum)
    torch.testing.assert_close(result.l2, (optimum - encoded).transpose(0, 1).flatten(1).norm(dim=1))
    assert model.encodings == 2


def test_encoder_without_gradient_is_an_error_in_image_space_only_when_attacked(encoded_toy):
    model, images, labels = encoded_toy
    with pytest.raises(InputError, match="if the encoder cuts it"):
        fgsm(model, images, labels, Budget(0.1))
    assert fgsm(model, images, labels, Budget(0, space="encoded")).adversarial.equal(model.encoder(images))


def test_noise_follows_the_image_when_space_is_encoded(encoded_toy):
    model, images, labels = encoded_toy
    budget = Budget(0.1, "l2", space="encoded")
    whole = random_noise(model, images, labels, budget)
    pieces = [random_noise(model, images[[i]], labels[[i]], budget) for i in (4, 3, 2, 1, 0)]
    assert torch.equal(concatenate(pieces).adversarial.flip(1), whole.adversarial)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (lambda images: images.expand(3, -1, -1, -1, -1) * 2, "encoded values span"),
        (lambda images: images.unsqueeze(1), "the encoder returned [5, 1, 2, 4, 4]; expected [T, 5, ...]"),
    ],
)
def test_encoded_attack_refuses_when_the_encoder_returns_something_else(encoder, message, encoded_toy):
    model, images, labels = encoded_toy
    model.encoder = encoder
    with pytest.raises(InputError) as error:
        fgsm(model, images, labels, Budget(0.1, space="encoded"))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("batch_norm", ["train", "train-and-keep"])
@pytest.mark.parametrize("steps", [1, 7])
def test_train_mode_protocol_equals_a_plain_loop_when_batch_norm_trains(steps, batch_norm, toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 10)
    plain = copy.deepcopy(model).eval()
    plain[1].train(), plain[5].train()
    eps, step_size = 6 / 255, 0.01
    x = images
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        nn.functional.cross_entropy(plain(x), labels).backward()
        x = (x + step_size * x.grad.sign()).detach()
        x = (images + (x - images).clamp(-eps, eps)).clamp(0, 1)
    scored = (plain if batch_norm == "train-and-keep" else copy.deepcopy(model)).eval()
    expected = scored(x).argmax(1) != labels

    result = pgd(
        model,
        images,
        labels,
        Budget(eps),
        steps=steps,
        step_size=step_size,
        start="none",
        batch_norm=batch_norm,
    )
    torch.testing.assert_close(result.adversarial, x)
    assert torch.equal(result.success, expected)
    assert torch.equal(result.first_successful_step, torch.where(expected, steps, -1))
    assert (result.forwards == steps + 1).all() and (result.backwards == steps).all()
    torch.testing.assert_close(model[5].running_mean, scored[5].running_mean)


def test_train_mode_fgsm_perturbs_misclassified_samples_too_when_nobody_leaves(toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 10)
    labels = (labels + 1) % 4
    result = fgsm(model, images, labels, Budget(6 / 255), batch_norm="train")
    assert (result.linf > 0.02).all()
    assert set(result.first_successful_step.tolist()) <= {1, -1}


def test_loss_gradient_of_a_sample_has_the_same_size_when_batch_grows(toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 8)

    def gradient(positions):
        part = images[positions], labels[positions]
        with open_session(
            model, *part, Budget(0.1), gradient=None, generator=None, batch_norm="eval"
        ) as session:
            return session.gradient(session.origin)

    torch.testing.assert_close(gradient([3]), gradient(list(range(8)))[[3]])


def result_of(x, origin, budget):
    count = len(x)
    names = ("success", "first_successful_step", "loss", "forwards", "backwards", "zero_gradient")
    return checked_result(budget, x, origin, **{name: torch.zeros(count) for name in names})


@pytest.mark.parametrize(
    ("norm", "shift"),
    [("linf", [0.0, 0.101]), ("l2", [0.08, 0.08]), ("linf", [0.06, 0.0]), ("l2", [float("nan"), 0.0])],
)
def test_result_is_refused_when_a_point_left_ball_or_box(norm, shift):
    origin = torch.tensor([[0.5, 0.5], [0.95, 0.5]])
    x = origin.clone()
    x[1] += torch.tensor(shift)
    result_of(origin, origin, Budget(0.1, norm))
    with pytest.raises(RuntimeError, match="attack left its budget .* sample 1"):
        result_of(x, origin, Budget(0.1, norm))


def test_joined_batches_equal_the_whole_when_concatenated(toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 7)
    whole = fgsm(model, images, labels, Budget(0.03))
    joined = concatenate(
        [fgsm(model, images[s], labels[s], Budget(0.03)) for s in (slice(0, 3), slice(3, 7))]
    )
    assert len(joined) == 7 and joined.budget == whole.budget
    assert torch.equal(joined.adversarial, whole.adversarial) and torch.equal(joined.success, whole.success)
    with pytest.raises(InputError, match="no attack results"):
        concatenate([])
    with pytest.raises(InputError, match="2 different budgets"):
        concatenate([whole, fgsm(model, images, labels, Budget(0.04))])


class OtherFunction(SpikeGradient):
    """A stand-in for the whole model: inside, `model` answers with logits of the other sign of slope."""

    same_forward = False
    family = "other_function"

    @contextmanager
    def applied(self, model):
        model.stand_in = True
        try:
            yield
        finally:
            model.stand_in = False


class Deployed(nn.Module):
    """Label 1, right while the mean pixel is above 0.4. Its own gradient is 0; the stand-in's shows the way down."""

    def __init__(self):
        super().__init__()
        self.neuron = LIF()
        self.stand_in, self.asked = False, []

    def forward(self, x):
        self.asked.append((self.stand_in, len(x)))
        mean = x.flatten(1).mean(1)
        score = 100 + mean if self.stand_in else (mean - 0.4).sign().detach() + 0 * mean
        return torch.stack([0 * score, score], 1)


@pytest.mark.parametrize("eot", [1, 2])
def test_stand_in_gives_the_gradient_and_the_deployed_network_the_verdict_when_they_differ(eot):
    model = Deployed()
    images = torch.tensor([0.45, 0.3, 0.8]).view(3, 1, 1, 1)
    labels = torch.ones(3, dtype=torch.int64)
    options = {"steps": 3, "step_size": 0.04, "start": "none", "eot": eot, "loss": "margin"}
    with_own = pgd(model, images, labels, Budget(0.1), **options)
    assert with_own.success.tolist() == [False, True, False] and with_own.zero_gradient[[0, 2]].all()
    model.asked.clear()
    result = pgd(model, images, labels, Budget(0.1), gradient=OtherFunction(), **options)
    # Scored, then differentiated by the stand-in those who stay: 0.45 → 0.41 → 0.37; 0.8 → 0.76 → 0.72 → 0.7.
    assert result.success.tolist() == [True, True, False] and result.first_successful_step.tolist() == [2, 0, -1]
    torch.testing.assert_close(result.adversarial.flatten(), torch.tensor([0.37, 0.3, 0.8]))
    passes = [(False, 3), (True, 2), (False, 2), (True, 2), (False, 2), (True, 1), (False, 1)]
    assert model.asked == [one for one in passes for _ in range(eot)]
    assert result.forwards.tolist() == [5 * eot, 1 * eot, 7 * eot]
    assert result.backwards.tolist() == [2 * eot, 0, 3 * eot]
    assert not result.zero_gradient.any() and not model.stand_in


def test_samples_still_under_attack_are_announced_before_every_pass(toys):
    class Listener(PreparedModel):
        def active(self, index, repeat=False):
            heard.append((index.tolist(), repeat))

    heard = []
    model = toys.Linear(torch.ones(1, 1, 1), -0.5)
    images = torch.tensor([0.4, 0.52, 0.9]).view(3, 1, 1, 1)
    lent = Listener(model, "eval")
    session = Session(
        lent, images, torch.ones(3, dtype=torch.int64), Budget(0.1), generator=None, loss="ce", eot=2, early_stop=True,
        use_draw=lambda number: None,
    )  # fmt: skip
    with torch.no_grad():
        session.record_clean()
        session.visit(session.active_origin - 0.05, 1)
        session.gradient(session.active_origin)
    everyone, two, one = [0, 1, 2], [1, 2], [2]
    assert heard == [(index, repeat) for index in (everyone, two, one) for repeat in (False, True)]
