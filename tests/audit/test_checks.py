"""Controls: honest models pass, each kind of masking is found by the checks that are there for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from snnlib.attacks import Budget
from snnlib.audit import CHECKS, EFFORTS, AuditReport, Effort, audit
from snnlib.encoding import build_encoder
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.neurons import LIF, surrogates, use_kernel

SMALL = Effort(
    steps=5, queries=25, members=("piecewise_linear(width=1)", "straight_through"), restarts=2, draws=2, eot=3, grid=3,
    pictured=4, eps_factors=(1.0, 2.0),
)  # fmt: skip
EPS = 0.02
COUNT = 30


@pytest.fixture(autouse=True, scope="module")
def reference_kernel():
    with use_kernel("reference"):
        yield


class Linear(nn.Module):
    """Four classes on 1x6x6 images, of the order of 1 per pixel."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weights = nn.Parameter(torch.randn(4, 36, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.weights.T


class Around(nn.Module):
    """A model with something done to its input or output."""

    def __init__(self, model: nn.Module, before=lambda x: x, after=lambda z: z) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.model(self.before(x)))


class Learning(nn.Module):
    """Takes a gradient step on itself at every call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.offset = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            offset = self.offset.detach().clone().requires_grad_(True)
            entropy = (self.model(x).detach() + offset).softmax(1).max(1).values.sum()
            (slope,) = torch.autograd.grad(entropy, offset)
        return self.model(x) + 0 * slope


class Counting(Linear):
    """Counts its calls in a buffer, as a defence that adapts would."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class SpikingBody(nn.Module):
    """Frames [T, N, ...] through one spiking layer to four classes."""

    def __init__(self, surrogate=None) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, 1)
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.hidden, self.head = nn.Linear(25, 40), nn.Linear(40, 4)
        self.neuron = LIF(leak=0.8, threshold=0.5, surrogate=surrogate)

    def forward(self, encoded: Tensor) -> Tensor:
        pooled = self.pool(encoded.flatten(0, 1)).unflatten(0, encoded.shape[:2])
        return self.head(self.neuron(3 * self.hidden(pooled.flatten(2)))).mean(0)


def spiking(encoder: str = "direct", encoder_gradient: str | None = None, surrogate=None) -> Model:
    return Model(build_encoder(encoder, 4, encoder_gradient), SpikingBody(surrogate), {})


def answered(model: nn.Module, count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Images of bytes, with the labels that the model gives them."""
    images = torch.randint(40, 216, (count, 1, 6, 6), generator=torch.Generator().manual_seed(3)) / 255
    with torch.no_grad(), torch.random.fork_rng():
        return images, model.eval()(images).argmax(1)


def audited(model: nn.Module, eps: float = EPS, **options) -> AuditReport:
    images, labels = answered(model)
    return audit(model, images, labels, Budget(eps), **{"effort": SMALL, **options})


@pytest.fixture(scope="module")
def honest() -> AuditReport:
    return audited(Linear())


def test_an_honest_linear_model_shows_no_sign_and_its_closed_form(honest):
    images, labels = answered(Linear())
    weights = Linear().weights
    logits = Linear()(images)
    against = weights[labels, None] - weights[None]
    margins = torch.gather(logits, 1, labels[:, None]) - logits
    reach = margins - EPS * against.abs().sum(2)
    reach[torch.arange(COUNT), labels] = torch.inf
    assert honest.verdict == "no sign of masking", str(honest)
    assert honest.robust == int((reach > 0).all(1).sum()) <= honest.own_robust <= honest.robust + 1
    assert honest.correct == COUNT and 0 < honest.robust < COUNT


def test_every_check_is_in_the_report_once_with_its_numbers(honest):
    assert [found.name for found in honest.findings] == list(CHECKS)
    for found in honest.findings:
        assert found.measured and (found.outcome == "not done") == (not found.numbers), found
        assert "\n" not in found.measured + found.rule + found.remark
    missing = {found.name for found in honest.findings if found.outcome == "not done"}
    assert missing == {
        "ensemble_gain", "backward_rule_gain", "pool_gradient_gain", "encoder_gradient_gain", "batch_norm_mode",
        "image_against_encoded", "draws_gain", "gains_together",
    }  # fmt: skip
    assert AuditReport.from_json(honest.to_json()) == honest


def test_the_curve_falls_to_zero_and_the_surface_rises_along_the_gradient(honest):
    accuracies = [point["robust_accuracy"] for point in honest.curves["eps"]]
    assert accuracies[0] == 1 and accuracies == sorted(accuracies, reverse=True)
    assert honest.finding("unbounded_eps").numbers["left"] == 0
    middle = [point["margin"] for point in honest.curves["surface"] if point["along_noise"] == 0]
    assert middle == sorted(middle) and len(honest.curves["surface"]) == SMALL.grid**2


def test_an_audit_does_not_depend_on_the_batch_size_and_its_noise_on_nothing_but_the_seed(honest):
    other = audited(Linear(), batch_size=7)
    assert other.findings == honest.findings
    seeded = audited(Linear(), generator=torch.Generator().manual_seed(5))
    assert seeded.seed == 5 and seeded.curves["surface"] != honest.curves["surface"]
    torch.rand(3)
    assert audited(Linear()) == honest


def outcomes(report: AuditReport, *names: str) -> list[str]:
    return [report.finding(name).outcome for name in names]


def test_rounded_inputs_are_found_by_everything_that_needs_no_gradient():
    report = audited(Around(Linear(), before=lambda x: (30 * x).round() / 30), eps=0.1)
    assert report.verdict == "masked"
    names = ("gradient_in_eval", "zero_gradients", "samples_without_gradient", "square_beats_white_box")
    assert outcomes(report, *names) == ["masked"] * 4
    assert report.finding("gradient_in_eval").numbers == {"eval": 0.0, "train": 0.0}
    assert report.robust < report.own_robust


def test_a_path_cut_by_detach_is_a_finding_and_no_error():
    report = audited(Around(Linear(), before=torch.detach), eps=0.1)
    assert report.verdict == "masked"
    assert outcomes(report, "gradient_in_eval", "square_beats_white_box") == ["masked", "masked"]
    assert report.finding("many_steps_against_one").remark == "no gradient reaches the image"
    assert report.own_robust == report.correct


def test_a_saturated_softmax_is_found_by_the_margin():
    report = audited(Around(Linear(), after=lambda z: 1e4 * z))
    assert outcomes(report, "output_range", "zero_gradients", "loss_gain") == ["suspicious", "masked", "masked"]
    assert outcomes(report, "samples_without_gradient", "loss_surface") == ["no", "no"]
    assert report.verdict == "masked"


def test_probabilities_are_told_from_logits():
    report = audited(Around(Linear(), after=lambda z: z.softmax(1)))
    assert report.finding("output_range").numbers["probabilities"] == 1
    assert report.finding("output_range").outcome == "suspicious"


def test_a_randomised_model_is_noted_and_attacked_over_draws():
    noisy = Around(Linear(), before=lambda x: x + 0.02 * torch.randn_like(x))
    before = torch.random.get_rng_state()
    report = audited(noisy)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert report.finding("randomised_output").outcome == "note"
    assert report.finding("draws_gain").outcome == "no" and report.finding("batch_mates").outcome == "not done"
    pgd = next(line for line in report.attacks if line.label == "PGD")
    assert pgd.backwards % SMALL.eot == 0 and pgd.backwards > 0


def test_a_network_that_encodes_by_chance_can_pass_where_its_expectation_is_attacked():
    class Poisson(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.linear = build_encoder("poisson", 30), Linear()

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.encoder(x).mean(0))

    # The labels are those of the expectation; images near its boundary fall to chance at once and are no matter here.
    images, labels = answered(Linear(), count=200)
    logits = Linear()(images).topk(2, dim=1).values
    sure = (logits[:, 0] - logits[:, 1]).argsort(descending=True)[:40]
    report = audit(Poisson(), images[sure], labels[sure], Budget(EPS), effort=replace(SMALL, eot=8))
    assert report.finding("randomised_output").outcome == "note"
    assert report.verdict == "no sign of masking", str(report)


@pytest.mark.parametrize("model, key", [(Learning(Linear()), "gradients_taken"), (Counting(), "changed_tensors")])
def test_optimisation_at_test_time_is_flagged(model, key):
    found = audited(model).finding("optimisation_at_test_time")
    assert found.outcome == "suspicious" and found.numbers[key] == 1


def test_two_classes_are_worth_a_note_and_no_suspicion():
    report = audited(Around(Linear(), after=lambda z: z[:, :2]))
    assert report.finding("class_count").outcome == "note"
    assert report.verdict == "no sign of masking"
    assert report.finding("class_count").numbers["classes"] == 2


def test_a_spiking_model_allows_every_check_but_the_one_for_batch_norm():
    report = audited(spiking("phase"))
    missing = {found.name for found in report.findings if found.outcome == "not done"}
    assert missing == {"batch_norm_mode", "draws_gain"}
    labels = [line.label for line in report.attacks]
    assert len(labels) == len(set(labels))
    assert {"PGD, pool ties", "PGD, adaptive_sharpness", "PGD, encoder smooth"} <= set(labels)
    assert not next(line for line in report.attacks if line.label == "PGD on the code").same_ball
    left = [line.left for line in report.attacks]
    assert left == sorted(left, reverse=True) and left[-1] == report.robust


def test_an_encoder_without_a_gradient_masks_and_its_stand_ins_show_it():
    report = audited(spiking("phase", "none"), eps=0.1)
    assert outcomes(report, "gradient_in_eval", "encoder_gradient_gain") == ["masked", "masked"]
    assert report.finding("encoder_gradient_gain").numbers["left_by_own_gradient"] == COUNT


def test_a_needle_as_surrogate_masks_and_the_ensemble_shows_it():
    report = audited(spiking(surrogate=surrogates.rectangular(width=1e-4)), eps=0.05)
    assert outcomes(report, "ensemble_gain", "backward_rule_gain") == ["masked", "masked"], str(report)
    assert report.finding("samples_without_gradient").outcome == "masked"
    assert report.robust < report.own_robust


@pytest.mark.parametrize("make", [Counting, lambda: spiking("phase"), lambda: Learning(Linear())])
def test_the_model_comes_back_as_it_was(make):
    model = make().train()
    model.requires_grad_(False)
    next(model.parameters()).requires_grad_(True)
    images, labels = answered(model)
    model.train()
    names = [name for name, module in model.named_modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    audit(model, images[:20], labels[:20], Budget(EPS), effort=EFFORTS["smoke"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert [weight.requires_grad for weight in model.parameters()][0]
    assert not any(weight.requires_grad for weight in list(model.parameters())[1:])
    assert all(weight.grad is None for weight in model.parameters())
    assert [name for name, module in model.named_modules()] == names
    assert not any("forward" in vars(module) for module in model.modules())


def test_nothing_to_audit_is_inconclusive_and_no_error():
    model = Linear()
    images, labels = answered(model)
    report = audit(model, images, (labels + 1) % 4, Budget(EPS), effort=SMALL)
    assert report.correct == report.robust == 0
    assert report.verdict == "inconclusive"
    assert AuditReport.from_json(report.to_json()) == report
    assert audit(model, images[:5], labels[:5], Budget(EPS), effort=SMALL).verdict == "inconclusive"


@pytest.mark.parametrize(
    "change, named",
    [
        ({"labels": torch.full((4,), 9)}, "labels contain 9"),
        ({"images": torch.full((4, 1, 6, 6), 1.5)}, "expected values in \\[0, 1\\]"),
        ({"images": torch.rand(0, 1, 6, 6), "labels": torch.zeros(0, dtype=torch.int64)}, "empty batch"),
        ({"model": Around(Linear(), after=lambda z: z / 0)}, "NaN or infinity"),
        ({"model": spiking(), "budget": Budget(0.1, space="encoded")}, "on images"),
        ({"effort": "heroic"}, "effort is 'heroic'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"generator": 3}, "generator is 3"),
    ],
)
def test_bad_input_is_one_line(change, named):
    given = {"model": Linear(), "images": torch.rand(4, 1, 6, 6), "labels": torch.zeros(4, dtype=torch.int64)}
    options = {**given, "budget": Budget(0.1), "effort": SMALL, **change}
    arguments = [options.pop(name) for name in ("model", "images", "labels", "budget")]
    with pytest.raises(InputError, match=named) as refusal:
        audit(*arguments, **options)
    assert "\n" not in str(refusal.value)
