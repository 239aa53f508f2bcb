"""The worst case in one call: what its turns are, what they may spend, and that no single attack does better."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.attacks import ATTACKS, SCHEDULE, Budget, Turn, parse_gradient, worst_case
from snnlib.attacks.ensemble import member_generator
from snnlib.attacks.worst_case import ADAPTIVE_WIDTH, FEWEST, NARROW, WIDE, planned, reaching
from snnlib.errors import InputError
from snnlib.neurons import use_kernel

EPS = 0.03
SHORT = (
    Turn("apgd", 24, ADAPTIVE_WIDTH, {"loss": "ce"}),
    Turn("apgd", 24, "own", {"loss": "margin"}),
    Turn("apgd_targeted", 33, NARROW, {"loss": "targeted_margin", "targets": 2}),
    Turn("square", 40),
    Turn("rays", 30),
)


@pytest.fixture(autouse=True)
def plain_loops():
    with use_kernel("reference"):
        yield


@pytest.fixture(scope="module")
def case(small_spiking):
    model, image_set = small_spiking
    return model, image_set.batch(slice(None)), image_set.labels


def run(case, eps=EPS, **options):
    model, images, labels = case
    return worst_case(model, images, labels, Budget(eps), **{"schedule": SHORT, "passes": 151, **options})


def spent(result):
    return result.forwards + result.backwards


def test_every_turn_runs_on_those_who_stand_with_its_own_seed(case):
    model, images, labels = case
    found, standing = run(case), torch.arange(len(images))
    assert len(found.by_member) == len(SHORT)
    for number, (turn, part) in enumerate(zip(SHORT, found.by_member.values(), strict=True)):
        assert torch.equal(part.index, standing)
        options = {**turn.arguments(turn.passes, 1), "generator": member_generator(None, number)}
        alone = ATTACKS[turn.attack](model, images[standing], labels[standing], Budget(EPS), **options)
        assert torch.equal(part.result.adversarial, alone.adversarial)
        standing = standing[~alone.success]
    assert 0 < len(standing) < 20


def test_the_answer_says_which_attack_broke_which_sample(case):
    found = run(case)
    table = found.table()
    for name, part in found.by_member.items():
        fell = part.index[part.result.success & (part.result.first_successful_step > 0)].tolist()
        assert table.index[table.fooled_by == name].tolist() == fell
    wrong = table.first_successful_step == 0
    assert wrong.sum() == 5 and (table.fooled_by[wrong | ~table.success] == "").all()
    assert len(set(table.fooled_by)) > 2, "the case does not tell the turns apart"


@pytest.mark.parametrize("passes", [12, 22, 47, 70, 122, 151, 400])
@pytest.mark.parametrize("eot", [1, 3])
def test_nobody_pays_more_than_the_passes(case, passes, eot):
    found = run(case, passes=passes, eot=eot, eps=1e-4)
    assert spent(found.result).max() <= passes
    if passes <= 151 and passes >= 22 * eot:
        survivors = spent(found.result)[~found.result.success]
        assert survivors.min() >= 0.8 * passes or "rays" in found.by_member


def test_passes_are_handed_to_the_turns_in_order_and_crumbs_to_the_last():
    lengths = [length for _, length in planned(SHORT, 24)]
    assert lengths == [24]
    assert [length for _, length in planned(SHORT, 24 + FEWEST - 1)] == [24 + FEWEST - 1]
    assert [length for _, length in planned(SHORT, 24 + FEWEST)] == [24, FEWEST]
    assert [length for _, length in planned(SHORT, 10_000)] == [24, 24, 33, 40, 30]
    assert [length for _, length in planned(SHORT, 1000, eot=2)] == [48, 48, 66, 40, 30]


def test_default_schedule_is_spent_to_the_last_gradient_free_query():
    assert [turn.attack for turn in SCHEDULE[-2:]] == ["square", "rays"]
    assert sum(turn.passes for turn in SCHEDULE) <= 8000
    assert {turn.gradient for turn in SCHEDULE} == {ADAPTIVE_WIDTH, "own", WIDE, NARROW}


def test_results_depend_neither_on_batch_size_nor_on_order(case):
    model, images, labels = case
    options = {"schedule": SHORT[:4], "passes": 121, "generator": torch.Generator().manual_seed(5)}
    whole = run(case, **options).result
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    parts = [worst_case(model, images[own], labels[own], Budget(EPS), **options).result for own in order.split(7)]
    for name in ("success", "forwards", "backwards", "first_successful_step"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)[order]), name


@pytest.mark.parametrize("passes", [24, 48, 81])
def test_no_single_attack_breaks_more_for_the_same_passes(case, passes):
    model, images, labels = case
    found = run(case, passes=passes).result.success
    for turn in SHORT[:3]:
        options = turn.arguments(passes, 1)
        alone = ATTACKS[turn.attack](model, images, labels, Budget(EPS), **options).success
        assert (found & ~alone).sum() >= (alone & ~found).sum(), turn.name
    assert 8 < found.sum() < 28


def test_a_network_without_neurons_gets_each_loss_once_by_its_own_gradient():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    turns = reaching(SCHEDULE, model, Budget(EPS))
    assert [turn.name for turn in turns] == [
        "apgd ce by own", "apgd margin by own", "sa_pgd ce by own", "apgd_targeted targeted_margin by own", "square",
        "rays",
    ]  # fmt: skip
    in_l2 = [turn.attack for turn in reaching(SCHEDULE, model, Budget(EPS, norm="l2"))]
    assert in_l2 == ["apgd", "apgd", "apgd_targeted", "square"]


def test_a_point_that_counts_as_broken_fools_the_network_inside_the_ball(case):
    model, images, labels = case
    result = run(case).result
    assert (result.adversarial - images).abs().max() <= EPS + 1e-6
    with torch.no_grad():
        assert torch.equal(model(result.adversarial).argmax(1) != labels, result.success)


def test_it_refuses_what_does_not_fit(case):
    with pytest.raises(InputError, match="passes is 0"):
        run(case, passes=0)
    with pytest.raises(InputError, match="batch_norm is 'train'"):
        run(case, batch_norm="train")
    with pytest.raises(InputError, match="passes is 11; expected at least 12, one step of 3 draws"):
        run(case, passes=11, eot=3)
    with pytest.raises(InputError, match="attack of a turn is 'pdg'; expected one of pgd"):
        run(case, schedule=(Turn("pdg", 10),))
    with pytest.raises(InputError, match="schedule has no turn"):
        run(case, schedule=())
    with pytest.raises(InputError, match="norm is 'l0'"):
        worst_case(*case, Budget(3, norm="l0", space="encoded"))
    with pytest.raises(InputError, match="gradient is 'atom'"):
        run(case, schedule=(Turn("apgd", 30, "atom"),))


def test_names_of_turns_are_read_back():
    assert all(parse_gradient(turn.gradient) or turn.gradient == "own" for turn in SCHEDULE)
    assert len({turn.name for turn in SCHEDULE}) == len(SCHEDULE)
