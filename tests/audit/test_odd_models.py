"""Valid networks that are made otherwise than ours: audited and given back as they were, or refused before any work."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnlib.attacks import Budget
from snnlib.audit import AuditReport, Effort, audit
from snnlib.audit.unchanged import unchanged
from snnlib.encoding import build_encoder
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.neurons import LIF, use_kernel

SMALL = Effort(
    steps=3, queries=10, members=("piecewise_linear(width=1)",), restarts=1, draws=2, eot=2, grid=2, pictured=2,
    eps_factors=(1.0,),
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def reference_kernel():
    with use_kernel("reference"):
        yield


class Linear(nn.Module):
    """Four classes on 1x6x6 images."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(4, 36, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.weights.T


class FollowsTheBatch(Linear):
    """Keeps its last logits in a buffer, whose shape is that of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


class Resized(FollowsTheBatch):
    """The same in place."""

    def forward(self, x: Tensor) -> Tensor:
        logits = Linear.forward(self, x)
        with torch.no_grad():
            self.last.resize_(logits.shape).copy_(logits)
        return logits


class MadeByTheFirstCall(Linear):
    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "mean"):
            self.register_buffer("mean", x.new_full((), 0.5))
            self.register_buffer("unsaved", x.new_zeros(3), persistent=False)
        return super().forward(x + 0.5 - self.mean)


class Empty(Linear):
    """A buffer that is None until the first call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", None)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = x.detach().mean((0, 1, 2, 3))
        return super().forward(x)


class ExtraState(Linear):
    """Extra state that is no tensor, and that every call changes."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = {"calls": []}

    def get_extra_state(self) -> dict:
        return self.notes

    def set_extra_state(self, state: dict) -> None:
        self.notes = state

    def forward(self, x: Tensor) -> Tensor:
        self.notes["calls"].append(len(x))
        return super().forward(x)


def answered(model: nn.Module, count: int = 24, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    images = torch.randint(40, 216, (count, 1, 6, 6), generator=torch.Generator().manual_seed(3)).to(dtype) / 255
    with torch.no_grad(), unchanged(model):
        return images, model.eval()(images).argmax(1)


@pytest.fixture(scope="module")
def plain() -> AuditReport:
    return audit(Linear(), *answered(Linear()), Budget(0.02), effort=SMALL, batch_size=10)


ODD = [FollowsTheBatch, Resized, MadeByTheFirstCall, Empty, ExtraState]


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_odd_models_get_the_findings_of_the_plain_one_and_come_back_as_they_were(make, plain):
    model = make()
    images, labels = answered(model)
    before = {name: None if value is None else value.clone() for name, value in model._buffers.items()}
    objects, kept = dict(model._buffers), set(model.state_dict())
    report = audit(model, images, labels, Budget(0.02), effort=SMALL, batch_size=10)
    assert [(found.name, found.outcome) for found in report.findings] == [
        (found.name, found.outcome) for found in plain.findings
    ]
    assert [line.fooled for line in report.attacks] == [line.fooled for line in plain.attacks]
    assert set(model.state_dict()) == kept and set(model._buffers) == set(before)
    for name, value in before.items():
        assert model._buffers[name] is objects[name]
        assert value is None or torch.equal(model._buffers[name], value)
    assert getattr(model, "notes", {"calls": []}) == {"calls": []}


def test_a_buffer_that_counts_on_is_still_told_from_one_that_follows_the_batch():
    class Counting(FollowsTheBatch):
        def forward(self, x: Tensor) -> Tensor:
            self.weights.data += 1e-9
            return super().forward(x)

    found = audit(Counting(), *answered(Linear()), Budget(0.02), effort=SMALL).finding("optimisation_at_test_time")
    assert found.outcome == "suspicious" and found.numbers["changed_tensors"] == 2


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("made", ["script", "trace", "frozen"])
def test_torchscript_is_audited_like_the_module_it_came_from(made):
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 4)).eval()
    images, labels = answered(module)
    expected = audit(module, images, labels, Budget(0.05), effort=SMALL)
    model = torch.jit.trace(module, images) if made == "trace" else torch.jit.script(module)
    model = torch.jit.freeze(model) if made == "frozen" else model.train()
    report = audit(model, images, labels, Budget(0.05), effort=SMALL)
    assert report.model == "Sequential" and report.correct == 24
    assert report.robust == expected.robust and report.own_robust == expected.own_robust
    missing = {found.name for found in report.findings if found.outcome == "not done"}
    assert missing - {found.name for found in expected.findings if found.outcome == "not done"} == {"batch_norm_mode"}
    if made != "frozen":
        assert all(part.training for part in model.modules())
        assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
        assert torch.equal(model.state_dict()["2.running_mean"], module[2].running_mean)


def refusal(model: nn.Module, images: Tensor, labels: Tensor) -> str:
    with pytest.raises(InputError) as error:
        audit(model, images, labels, Budget(0.02), effort=SMALL)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_audited_is_one_line_before_any_work(monkeypatch):
    images, labels = answered(Linear())
    monkeypatch.setattr("snnlib.audit.run.progress", lambda *_, **__: pytest.fail("a check has begun"))
    broken = Linear()
    broken.weights.data[0, 0] = torch.nan
    assert refusal(broken, images, labels).startswith("weights holds NaN or infinity in 1 of 144 entries")
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    assert refusal(lazy, images, labels).startswith("1.weight is made by the model's first call")
    norm = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), Linear())
    assert refusal(norm, images, labels).startswith("0 is a BatchNorm2d without running statistics")
    assert refusal(Linear(), images.double(), labels).startswith("images are torch.float64 and the model")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    assert "channels last" in refusal(flat, torch.rand(24, 8, 8, 3), labels)


def test_float64_unsigned_labels_and_numpy_counts_are_audited(plain):
    model, effort = Linear().double(), Effort(**{**vars(SMALL), "steps": np.int64(3), "queries": np.uint16(10)})
    images, labels = answered(model, dtype=torch.float64)
    report = audit(model, images, labels.to(torch.uint16), Budget(0.02), effort=effort, batch_size=np.int64(10))
    assert [(found.name, found.outcome) for found in report.findings] == [
        (found.name, found.outcome) for found in plain.findings
    ]
    assert json.loads(report.to_json())["effort"]["steps"] == 3
    with pytest.raises(InputError, match="queries is 0"):
        Effort(**{**vars(SMALL), "queries": 0})


@pytest.mark.parametrize("dependent", [True, False])
def test_a_model_that_quantises_by_its_batch_is_told_from_one_that_quantises_each_image(dependent):
    class Quantised(Linear):
        def forward(self, x: Tensor) -> Tensor:
            scale = x.detach().amax() if dependent else x.detach().amax((1, 2, 3), keepdim=True)
            rounded = (7 * x / scale).round() * scale / 7
            return super().forward(x + (rounded - x).detach())

    model = Quantised()
    images, labels = answered(model)
    images *= torch.linspace(0.2, 1, 24).view(-1, 1, 1, 1)
    report = audit(model, images, labels, Budget(0.02), effort=SMALL)
    found = report.finding("batch_mates")
    assert found.outcome == ("suspicious" if dependent else "no")
    assert (found.numbers["dependent"] > 0.3) == dependent


class Frames(nn.Module):
    """Frames [T, N, ...] through one spiking layer to four classes."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.hidden, self.head = nn.Linear(36, 40), nn.Linear(40, 4)
        self.neuron = LIF(leak=0.8, threshold=0.5)

    def forward(self, encoded: Tensor) -> Tensor:
        return self.head(self.neuron(3 * self.hidden(encoded.flatten(2)))).mean(0)


@pytest.mark.parametrize("eps", [0.0, 0.3 / 255])
def test_nothing_hides_on_a_ball_on_which_the_function_is_constant(eps):
    model = Model(build_encoder("phase", 8), Frames(), {})
    images, labels = answered(model, count=40)
    with torch.no_grad():
        model.body.head.bias -= model(images).mean(0)  # so that it tells classes apart
    images, labels = answered(model, count=40)
    report = audit(model, images, labels, Budget(eps), effort=replace(SMALL, steps=30))
    assert report.verdict == "no sign of masking", str(report)
    assert report.finding("loss_surface").outcome == "not done"
    assert "the margin is the same" in report.finding("loss_surface").remark
    assert report.robust == report.correct == 40


def test_at_eps_zero_a_plain_model_shows_no_sign():
    report = audit(Linear(), *answered(Linear(), count=40), Budget(0.0), effort=SMALL)
    assert report.verdict == "no sign of masking", str(report)


def test_audits_at_once_are_audits_in_turn():
    class Noisy(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 0.02 * torch.randn_like(x))

    model, (images, labels) = Noisy(), answered(Linear())
    alone = audit(model, images, labels, Budget(0.02), effort=SMALL)
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(audit, model, images, labels, Budget(0.02), effort=SMALL) for _ in range(4)]
    assert all(job.result() == alone for job in jobs)
    assert torch.equal(torch.get_rng_state(), before)
