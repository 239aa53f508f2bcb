"""The 19 members, their order, who runs on whom, and that the worst case is a query over rows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from snnlib.attacks import Budget, fgsm, pgd
from snnlib.attacks.ensemble import MEMBERS, ensemble_attack, member_generator
from snnlib.attacks.gradients import backward_through_rate, bptt, parse_gradient, relu_proxy, straight_through
from snnlib.companion.measure import attacked as measure
from snnlib.companion.measure.attacked import ENCODED, IMAGE, Attack, attack_rows
from snnlib.companion.measure.networks import Network, TrainedNetwork
from snnlib.companion.measure.rows import check_rows, clean_accuracy, robust_accuracy
from snnlib.data import ImageSplits
from snnlib.errors import InputError
from snnlib.neurons import surrogates, use_kernel

EPS = 0.03
FEW = {
    "wide": bptt(surrogates.piecewise_linear(width=2.0)),
    "narrow": bptt(surrogates.rectangular(width=0.1)),
    "rate": backward_through_rate(),
    "proxy": relu_proxy(),
}


@pytest.fixture(autouse=True)
def plain_loops():
    with use_kernel("reference"):
        yield


@pytest.fixture(scope="module")
def case(small_spiking):
    return small_spiking


def attacked(case, **options):
    model, image_set = case
    images = image_set.batch(slice(None))
    return ensemble_attack(model, images, image_set.labels, Budget(EPS), **{"members": FEW, "steps": 3, **options})


def test_members_are_the_published_nineteen_in_their_order():
    members = list(MEMBERS.values())
    assert len(members) == 19 and [parse_gradient(name) for name in MEMBERS] == members
    u = torch.linspace(-3, 3, 998, dtype=torch.float64)
    expected = [(1 / g**2) * (g - u.abs()).clamp_min(0) for g in (1, 2, 3, 0.5, 0.25)]
    expected += [0.3 * torch.exp(-g * u.abs()) for g in (0.5, 1, 2)]
    expected += [torch.exp(-g * u.abs()) for g in (0.5, 1, 2)]
    expected += [(u.abs() < g / 2).double() / g for g in (0.25, 0.5, 1, 2, 4)]
    expected += [torch.ones_like(u)]
    for member, slope in zip(members, expected, strict=False):
        torch.testing.assert_close(member.surrogate(u), slope, msg=member.name)
    assert members[16:] == [straight_through(), backward_through_rate(), relu_proxy()]


def test_each_member_runs_whole_and_only_on_samples_still_standing(case):
    model, image_set = case
    outcome = attacked(case)
    standing = torch.arange(len(image_set))
    for number, (name, gradient) in enumerate(FEW.items()):
        part = outcome.by_member[name]
        assert torch.equal(part.index, standing)
        chosen = image_set.take(standing)
        generator = member_generator(None, number)
        options = {"steps": 3, "gradient": gradient, "generator": generator}
        expected = pgd(model, chosen.batch(slice(None)), chosen.labels, Budget(EPS), **options)
        assert torch.equal(part.result.adversarial, expected.adversarial)
        standing = standing[~part.result.success]
    assert 0 < len(standing) < len(image_set) - 5
    assert len({len(part.index) for part in outcome.by_member.values()}) > 2


def test_worst_case_takes_the_first_success_else_the_highest_loss(case):
    outcome, everyone = attacked(case), {}
    for name, part in outcome.by_member.items():
        for place, sample in enumerate(part.index.tolist()):
            everyone.setdefault(sample, []).append((name, place))
    for sample, visits in everyone.items():
        parts = [(outcome.by_member[name].result, place) for name, place in visits]
        won = [part for part in parts if part[0].success[part[1]]]
        source, place = won[0] if won else max(parts, key=lambda part: part[0].loss[part[1]].item())
        assert outcome.result.success[sample] == bool(won)
        assert torch.equal(outcome.result.adversarial[sample], source.adversarial[place])
        for name in ("loss", "linf", "l2", "first_successful_step"):
            assert getattr(outcome.result, name)[sample] == getattr(source, name)[place], name
        for name in ("forwards", "backwards"):
            assert getattr(outcome.result, name)[sample] == sum(getattr(part, name)[place] for part, place in parts)


def test_success_is_true_of_the_deployed_network(case):
    model, image_set = case
    result = attacked(case).result
    with torch.no_grad():
        assert torch.equal(model(result.adversarial).argmax(1) != image_set.labels, result.success)
    assert (result.linf <= EPS + 1e-6).all()


def test_passes_of_a_survivor_are_those_of_all_members(case):
    result = attacked(case).result
    survivors = ~result.success
    # PGD: 3 steps, the clean sample, the last point; the proxy scores and differentiates in separate passes.
    assert set(result.forwards[survivors].tolist()) == {4 * 5 + 3}
    assert set(result.backwards[survivors].tolist()) == {4 * 3}


def test_alone_runs_every_member_on_everybody_from_the_same_starts(case):
    shrinking, alone = attacked(case), attacked(case, alone=True)
    assert torch.equal(shrinking.result.success, alone.result.success)
    for name, part in shrinking.by_member.items():
        own = alone.by_member[name]
        assert torch.equal(own.index, torch.arange(30))
        assert torch.equal(own.result.success[part.index], part.result.success)
        torch.testing.assert_close(own.result.adversarial[part.index], part.result.adversarial)


def test_members_start_from_points_of_their_own(case):
    same = bptt(surrogates.atan())
    options = {"members": {"a": same, "b": same}, "alone": True, "early_stop": False, "steps": 1}
    outcome = attacked(case, **options)
    assert not torch.equal(outcome.by_member["a"].result.adversarial, outcome.by_member["b"].result.adversarial)
    again = attacked(case, **options)
    assert torch.equal(outcome.by_member["b"].result.adversarial, again.by_member["b"].result.adversarial)
    other = attacked(case, generator=torch.Generator().manual_seed(1), **options)
    assert not torch.equal(outcome.by_member["b"].result.adversarial, other.by_member["b"].result.adversarial)


def test_zero_gradient_means_that_every_member_was_blind(case):
    blind = bptt(surrogates.rectangular(width=1e-9))
    only_blind = attacked(case, members={"blind": blind, "too": blind})
    assert torch.equal(only_blind.result.zero_gradient, only_blind.result.backwards > 0)
    assert only_blind.result.zero_gradient.any()
    sees = attacked(case, members={"blind": blind, "wide": FEW["wide"]})
    assert not sees.result.zero_gradient[~only_blind.result.success].any()


@pytest.mark.parametrize("attack", ["fgsm", "r_fgsm", "apgd"])
def test_other_attacks_run_in_the_ensemble(attack, case):
    model, image_set = case
    images, options = image_set.batch(slice(None)), {"steps": 3} if attack == "apgd" else {}
    two = {name: FEW[name] for name in ("wide", "rate")}
    outcome = ensemble_attack(model, images, image_set.labels, Budget(EPS), attack=attack, members=two, **options)
    assert torch.equal(outcome.result.success[~outcome.by_member["wide"].result.success].nonzero().squeeze(1),
                       outcome.by_member["rate"].result.success.nonzero().squeeze(1))  # fmt: skip
    if attack == "fgsm":
        first = fgsm(model, images, image_set.labels, Budget(EPS), gradient=FEW["wide"])
        assert torch.equal(outcome.by_member["wide"].result.adversarial, first.adversarial)


def test_encoded_points_are_joined_along_the_samples(case):
    model, image_set = case
    images = image_set.batch(slice(None))
    outcome = ensemble_attack(
        model, images, image_set.labels, Budget(EPS, space="encoded"), members=FEW, steps=2
    )
    assert outcome.result.adversarial.shape == (3, 30, 3, 4, 4)
    with torch.no_grad():
        fooled = model.body(outcome.result.adversarial).argmax(1) != image_set.labels
    assert torch.equal(fooled, outcome.result.success)


def test_robust_accuracy_over_rows_is_the_worst_case(case, home, monkeypatch):
    monkeypatch.setattr(measure, "MEMBERS", FEW)
    model, image_set = case
    splits = ImageSplits("made-up", image_set, image_set, image_set, 3, ("a", "b", "c"))
    network = TrainedNetwork(Network("small", "small"), 0, model, None, "key", splits, "cpu")
    attack = Attack("pgd", EPS, members=tuple(FEW), options={"steps": 3})
    for threat in (IMAGE, ENCODED):
        rows = check_rows(attack_rows(network, replace(attack, threat=threat), image_set, batch_size=30))
        budget = Budget(EPS, space=threat.space)
        images = image_set.batch(slice(None))
        outcome = ensemble_attack(
            model, images, image_set.labels, budget, members=FEW, steps=3, generator=torch.Generator().manual_seed(0)
        )
        robust = 1 - outcome.result.success.double().mean().item()
        assert robust_accuracy(rows)["robust_accuracy"].item() == pytest.approx(robust)
        assert rows.groupby("sample")["forwards"].sum().tolist() == outcome.result.forwards.tolist()
        assert clean_accuracy(rows)["clean_accuracy"].item() == pytest.approx(25 / 30)
        assert list(rows["surrogate"].unique()) == list(FEW) and not rows.duplicated(["sample", "surrogate"]).any()
    alone = attack_rows(network, replace(attack, alone=True), image_set, batch_size=16)
    assert len(alone) == 4 * 30
    table = robust_accuracy(alone, by=["surrogate"])
    worst = robust_accuracy(alone)["robust_accuracy"].item()
    assert (table["samples"] == 30).all() and table["robust_accuracy"].min() > worst
    assert math.isnan(alone["step_size"].iloc[0]) and (alone["steps"] == 3).all()


def test_ensemble_refuses_what_does_not_fit(case):
    with pytest.raises(InputError, match="attack is 'pdg'; expected one of fgsm"):
        attacked(case, attack="pdg")
    with pytest.raises(InputError, match="the ensemble has no members; expected at least one"):
        attacked(case, members={})
    with pytest.raises(InputError, match="gradient is relu_proxy, but the model has no snnlib neuron"):
        ensemble_attack(nn.Flatten(), torch.rand(2, 3), torch.zeros(2).long(), Budget(0.1), members={"p": relu_proxy()})
