"""A gain is what others find beyond as many runs of the own attack, by more than chance."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from snnlib.attacks import Budget
from snnlib.audit import Effort, audit, gains
from snnlib.audit.case import Case, CouldNotDo, wilson_lower
from snnlib.audit.gains import OWN, _gain, gains_together, loss_gain
from snnlib.audit.report import Finding
from snnlib.audit.spiking import _repeats, batch_norm_mode, noise_against_pgd, unbounded_eps
from snnlib.encoding import DirectEncoder, PhaseEncoder

EFFORT = Effort(steps=3, queries=10, members=("straight_through",), restarts=1, draws=2, grid=2, pictured=2)


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


class Scaled(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.mean(2)


class Rugged(nn.Module):
    """A loss so rugged that every further run from another start finds a few images more."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 48), Sine(), nn.Linear(48, 4))
        self.layers[1].weight.data *= 30
        self.layers[3].weight.data *= 4

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def case_of(model: nn.Module, eps: float, count: int = 200, effort: Effort = EFFORT) -> Case:
    images = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = model.eval()(images).argmax(1)
    return Case(model, images, labels, Budget(eps), effort, 0, 100)


def test_trying_more_often_is_no_gain():
    case = case_of(Rugged(), 0.015, effort=replace(EFFORT, steps=1))
    found = _gain(case, "loss_gain", "itself", {"itself": {"seed": 77}, "itself again": {"seed": 78}}, "remark")
    beyond, control = found.numbers["found"], found.numbers["found_by_as_many_own"]
    assert case.grade(beyond) != "no", "without a control this would count"
    assert control > 0 and found.outcome == "no" and found.numbers["share"] == case.share(beyond - control)
    labels = [line.label for line in case.lines.values()]
    assert labels == [OWN, "itself", "itself again", f"{OWN}, run 1 more", f"{OWN}, run 2 more"]
    fooled = [case.fooled[label] for label in labels]
    assert not (fooled[3] & fooled[4]).any() and not (fooled[0] & fooled[3]).any(), "each on what the others left"


def test_a_difference_counts_where_its_interval_excludes_none_and_it_is_large_enough():
    case = case_of(Rugged(), 0.01, count=100)
    images = torch.arange(100)

    def graded(gained: int, lost: int) -> tuple[int, str]:
        return case.grade_gain(images < gained, images >= 100 - lost)

    assert graded(0, 0) == (0, "no") and graded(6, 5) == (1, "no") and graded(0, 30) == (-30, "no")
    assert graded(3, 0) == (3, "no"), "three of three may be chance"
    assert graded(4, 0) == (4, "suspicious") and graded(5, 0) == (5, "masked")
    assert graded(20, 12) == (8, "no") and graded(40, 10) == (30, "masked")


def test_wilsons_interval_has_its_published_values():
    # Newcombe 1998, table I: 81 of 263 and 15 of 148.
    assert wilson_lower(81, 263) == pytest.approx(0.2553, abs=5e-5)
    assert wilson_lower(15, 148) == pytest.approx(0.0624, abs=5e-5)
    assert wilson_lower(0, 20) == pytest.approx(0, abs=1e-12) and wilson_lower(0, 0) == 0


class Uphill(nn.Module):
    """The mean against ½, with a gradient of the wrong sign: PGD flees what noise stumbles into."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        score = 2 * mean.detach() - mean - 0.5
        return torch.stack([-score, score, -9 + 0 * score, -9 + 0 * score], 1)


def test_noise_at_as_many_points_is_held_against_pgd():
    found = noise_against_pgd(case_of(Uphill(), 0.05, count=400))
    assert found.outcome == "masked" and found.numbers["noise"] > 2 * found.numbers["pgd"]
    honest = noise_against_pgd(case_of(Rugged(), 0.01))
    assert honest.outcome == "no" and honest.numbers["noise"] < honest.numbers["pgd"]


def test_running_statistics_are_not_blamed_for_what_other_attacks_in_eval_mode_find_too():
    class Normed(nn.Module):
        """Masked in eval alone: the gradient of its running statistics' branch is cut."""

        def __init__(self) -> None:
            super().__init__()
            self.norm, self.flat = nn.BatchNorm2d(1), nn.Flatten()
            self.weights = nn.Parameter(torch.randn(16, 4, generator=torch.Generator().manual_seed(3)))

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(x)
            return self.flat(x if self.norm.training else x.detach() + 0 * x) @ self.weights

    def outcome(other_attack: bool) -> str:
        case = case_of(Normed(), 0.05)
        if other_attack:
            case.pgd("another that finds as much", batch_norm="train")
        return batch_norm_mode(case).outcome

    assert outcome(other_attack=False) == "masked"
    assert outcome(other_attack=True) == "no"


def test_a_better_loss_blames_the_softmax_only_where_it_rounds_to_one(monkeypatch):
    monkeypatch.setattr(gains, "_gain", lambda *_: Finding("loss_gain", "", {"found": 9}, "", "masked", "the softmax"))
    for scale, outcome in ((1.0, "note"), (1000.0, "masked")):
        case = case_of(nn.Sequential(nn.Flatten(), nn.Unflatten(1, (4, 4)), Scaled(scale)), 0.05)
        found = loss_gain(case)
        assert found.outcome == outcome and ("softmax" in found.remark) == (outcome == "masked")
        assert (found.numbers["sure_share"] > 0.5) == (outcome == "masked")


def test_the_unbounded_ball_holds_the_smaller_ones():
    case = case_of(Rugged(), 0.02, effort=replace(EFFORT, eps_factors=(1.0, 4.0)), count=30)
    labels = ["PGD", "PGD at eps 0.08", "PGD at eps 1, unbounded"]
    case.fooled = {label: torch.arange(30) % 4 == place for place, label in enumerate(labels)}
    assert unbounded_eps(case).numbers["left"] == 7, "those that no ball of the three gave away"


def test_small_gains_of_several_gradients_count_together():
    def outcome(found_by_own: int, share: int = 3) -> str:
        case = case_of(Rugged(), 0.02, count=60)
        place, nobody = torch.arange(60), torch.zeros(60, dtype=torch.bool)
        case.fooled[OWN] = nobody.clone()
        case.other_gradients = ["a", "b", "c"]
        for number, label in enumerate(case.other_gradients):
            case.fooled[label] = (place >= number * share) & (place < (number + 1) * share)
        for number in (1, 2, 3):
            case.fooled[f"{OWN}, run {number} more"] = place < found_by_own
        assert gains_together(case).numbers["found"] == 3 * share
        return gains_together(case).outcome

    assert outcome(found_by_own=0) == "masked", "none of the three would count by itself"
    assert outcome(found_by_own=7) == "no" and outcome(found_by_own=0, share=1) == "no"
    lonely = case_of(Rugged(), 0.02)
    with pytest.raises(CouldNotDo, match="no two other gradients"):
        gains_together(lonely)


def test_a_code_that_repeats_one_frame_is_known_by_its_frames():
    class Front(nn.Module):
        def __init__(self, encoder: nn.Module) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Identity(), encoder)

        def forward(self, x: Tensor) -> Tensor:
            return self.encoder(x).mean(0).flatten(1)

    for encoder, repeats in ((DirectEncoder(4), True), (PhaseEncoder(4), False)):
        assert _repeats(case_of(Front(encoder), 0.01)) is repeats


def test_the_report_names_the_control():
    model = Rugged()
    case = case_of(model, 0.01)
    report = audit(model, case.images, case.labels, Budget(0.01), effort=EFFORT)
    found = report.finding("loss_gain")
    assert "as many further runs of its own" in found.rule and "found_by_as_many_own" in found.numbers
