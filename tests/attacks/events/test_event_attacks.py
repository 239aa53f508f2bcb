"""Attacks on event rasters: known optima, every raster by brute force, and budgets that are never exceeded."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from snnlib.attacks import ATTACKS as ALL_ATTACKS
from snnlib.attacks import Budget, bit_flip, pgd, random_noise
from snnlib.attacks.events import PATTERNS, Retiming, changes, inject, retime
from snnlib.encoding import EventEncoder
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.sparsity import gradient_by_operation, input_gradient

T, SIDE = 4, 5
ATTACKS = {
    "random flips": (random_noise, Budget(6, "l0", "encoded"), {"draws": 2}),
    "random moves": (random_noise, Retiming(1, moves=3), {"draws": 2}),
    "greedy flips": (bit_flip, Budget(6, "l0", "encoded"), {"rounds": 6}),
    "retiming": (retime, Retiming(2, moves=4), {"rounds": 6}),
    "retiming of all": (retime, Retiming(1), {"rounds": 6}),
    **{name: (inject, Budget(7, "l0", "encoded"), {"pattern": name}) for name in PATTERNS},
}


class Reader(nn.Module):
    """Two classes, logits [0, w·x + bias], of events [T, N, 2, H, W]."""

    def __init__(self, weights, bias):
        super().__init__()
        self.weights, self.bias = nn.Parameter(weights), bias

    def forward(self, encoded):
        score = (encoded.transpose(0, 1) * self.weights).flatten(1).sum(1) + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)


def linear(weights, bias=1e3):
    """Answers 1 whatever happens, unless `bias` is small; the margin is linear in the events."""
    return Model(EventEncoder(len(weights)), Reader(weights.double(), bias), {})


def convolutional(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = nn.Sequential(
            nn.Flatten(0, 1), nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * SIDE * SIDE, 3)
        ).double()

    class OverTime(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = body

        def forward(self, encoded):
            return self.body(encoded).unflatten(0, encoded.shape[:2]).mean(0) * 5

    return Model(EventEncoder(T), OverTime(), {})


def rasters(count, seed=0, rate=0.3, shape=(T, 2, SIDE, SIDE)):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, *shape, generator=generator) < rate).double()


def weights_of(shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ones(events):
    return torch.ones(len(events), dtype=torch.int64)


def attacked(name, model, events, labels, **more):
    attack, budget, options = ATTACKS[name]
    return attack(model, events, labels, budget, **{**options, **more})


@pytest.mark.parametrize("k", [1, 5, 12])
def test_the_best_flips_of_a_linear_model_are_found(k):
    events, weights = rasters(4), weights_of((T, 2, SIDE, SIDE))
    found = bit_flip(linear(weights), events, ones(events), Budget(k, "l0", "encoded"), rounds=60)
    worth = (-weights * (1 - 2 * events)).flatten(1).sort(1, descending=True).values[:, :k].clamp(min=0).sum(1)
    after = found.adversarial.transpose(0, 1)
    assert torch.allclose(((events - after) * weights).flatten(1).sum(1), worth)
    assert (changes(events, after).changed <= k).all()


@pytest.mark.parametrize("jitter", [1, 2])
def test_single_events_go_to_the_best_bin_within_the_jitter(jitter):
    """One event per line: without a limit on moves the optimum is known line by line."""
    weights, generator = weights_of((6, 2, 3, 3)), torch.Generator().manual_seed(3)
    place = torch.randint(0, 6, (5, 1, 2, 3, 3), generator=generator)
    events = torch.zeros(5, 6, 2, 3, 3, dtype=torch.float64).scatter(1, place, 1.0)
    found = retime(linear(weights), events, ones(events), Retiming(jitter), rounds=60)
    reach = [weights[max(0, t - jitter) : t + jitter + 1].amin(0) for t in range(6)]
    best = torch.stack(reach).expand(5, -1, -1, -1, -1).gather(1, place).flatten(1).sum(1)
    assert torch.allclose((found.adversarial.transpose(0, 1) * weights).flatten(1).sum(1), best)


def test_few_moves_are_the_best_ones_of_a_linear_model():
    weights, generator = weights_of((6, 2, 3, 3)), torch.Generator().manual_seed(4)
    place = torch.randint(0, 6, (5, 1, 2, 3, 3), generator=generator)
    events = torch.zeros(5, 6, 2, 3, 3, dtype=torch.float64).scatter(1, place, 1.0)
    found = retime(linear(weights), events, ones(events), Retiming(5, moves=4), rounds=60, moves_per_round=4)
    gains = (weights.expand_as(events).gather(1, place) - weights.amin(0)).flatten(1).sort(1, descending=True).values
    before, after = ((x * weights).flatten(1).sum(1) for x in (events, found.adversarial.transpose(0, 1)))
    assert torch.allclose(before - after, gains[:, :4].sum(1))


def every_retiming(line, jitter):
    """All rasters of one line that a `Retiming` of this jitter allows, by the definition: k-th event, k-th time."""
    times = [t for t, value in enumerate(line) if value]
    for chosen in itertools.combinations(range(len(line)), len(times)):
        if all(abs(a - b) <= jitter for a, b in zip(times, chosen, strict=True)):
            yield [float(t in chosen) for t in range(len(line))]


@pytest.mark.parametrize("jitter", [1, 2])
def test_brute_force_on_three_by_three_by_three(jitter):
    """Lines of a linear model are independent: the optimum is the sum of each line's, over all its retimings."""
    shape = (3, 1, 3, 3)
    weights, events = weights_of(shape), rasters(20, seed=5, rate=0.5, shape=shape)
    model = Model(nn.Identity(), Reader(weights, 1e3), {})
    model.encoder.forward = lambda x: x.transpose(0, 1)
    found = retime(model, events, ones(events), Retiming(jitter), rounds=60, moves_per_round=1)
    after = found.adversarial.transpose(0, 1)
    for sample, moved in zip(events, after, strict=True):
        for row, column in itertools.product(range(3), range(3)):
            line, weight = sample[:, 0, row, column].tolist(), weights[:, 0, row, column]
            allowed = list(every_retiming(line, jitter))
            assert moved[:, 0, row, column].tolist() in allowed
            best = min((torch.tensor(one, dtype=torch.float64) * weight).sum() for one in allowed)
            reached = (moved[:, 0, row, column] * weight).sum()
            assert reached <= (sample[:, 0, row, column] * weight).sum() + 1e-12
            assert reached == pytest.approx(best)


def test_the_check_of_a_retiming_is_its_definition():
    """Against all pairs of lines of four bins."""
    lines = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64)
    for before in lines:
        for jitter, moves in ((1, None), (2, 1), (3, None)):
            allowed = [
                after for after in every_retiming(before.tolist(), jitter)
                if moves is None or sum(a > b for a, b in zip(before.tolist(), after, strict=True)) <= moves
            ]  # fmt: skip
            inside = Retiming(jitter, moves=moves).inside(lines, before.expand_as(lines))
            assert [line for line, fits in zip(lines.tolist(), inside, strict=True) if fits] == sorted(allowed)


@pytest.mark.parametrize("name", ATTACKS)
def test_budgets_are_never_exceeded(name):
    """125 rasters for each of eight attacks, from empty to full; every attack checks itself on exit, too."""
    model, (_, budget, _) = convolutional(), ATTACKS[name]
    events = torch.cat([rasters(25, seed, rate) for seed, rate in enumerate((0, 0.05, 0.3, 0.9, 1))])
    labels = model(events).argmax(1)
    result = attacked(name, model, events, labels)
    after = result.adversarial.transpose(0, 1)
    table = changes(events, after)
    assert set(after.unique().tolist()) <= {0.0, 1.0} and (table.fractional == 0).all()
    if isinstance(budget, Retiming):
        assert ((table.jitter >= 0) & (table.jitter <= budget.eps)).all()
        assert torch.equal(after.sum(1), events.sum(1))
        assert budget.moves is None or (table.removed <= budget.moves).all()
        assert (table.added == table.removed).all()
    else:
        assert (table.changed <= budget.eps).all()
    assert (table.changed == result.l2.square().round().int().numpy()).all()
    assert (table.changed > 0).any()
    assert torch.equal(model(after).argmax(1) != labels, result.success)


@pytest.mark.parametrize("name", ATTACKS)
def test_results_depend_on_neither_batch_size_nor_order(name):
    model, events = convolutional(1), rasters(12, seed=9)
    labels = model(events).argmax(1)
    whole = attacked(name, model, events, labels)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = attacked(name, model, events[order], labels[order])
    assert torch.equal(shuffled.adversarial, whole.adversarial[:, order])
    parts = [attacked(name, model, events[at], labels[at]).adversarial for at in torch.arange(12).split(5)]
    assert torch.equal(torch.cat(parts, 1), whole.adversarial)


def test_a_gradient_finds_more_than_chance_and_more_budget_finds_more():
    model, events = convolutional(), rasters(60, seed=2)
    labels = model(events).argmax(1)
    chance = random_noise(model, events, labels, Budget(6, "l0", "encoded"), draws=2).success.sum()
    few, many = (bit_flip(model, events, labels, Budget(k, "l0", "encoded")).success.sum() for k in (2, 6))
    moved, far = (retime(model, events, labels, Retiming(2, moves=k)).success.sum() for k in (2, 12))
    assert chance < many and few <= many and moved <= far


def test_dash_corner_and_frame_add_and_never_remove():
    model, events = linear(weights_of((T, 2, SIDE, SIDE))), rasters(6)
    for pattern in PATTERNS:
        result = inject(model, events, ones(events), Budget(11, "l0", "encoded"), pattern=pattern)
        table = changes(events, result.adversarial.transpose(0, 1))
        assert (table.removed == 0).all() and set(table.added) <= {0, 11} and 11 in set(table.added), pattern


def test_corners_grow_from_the_four_corners_and_the_frame_from_the_border():
    firsts = set()
    for number in range(4):
        row, column = PATTERNS["corner"](number, T, SIDE, SIDE + 2, None)
        firsts.add((int(row[0, 0]), int(column[0, 0])))
        assert len({*zip(row[:, 0].tolist(), column[:, 0].tolist(), strict=True)}) == SIDE * (SIDE + 2)
    assert firsts == {(0, 0), (0, SIDE + 1), (SIDE - 1, 0), (SIDE - 1, SIDE + 1)}
    row, column = (place[: 4 * SIDE - 4, 0] for place in PATTERNS["frame"](0, T, SIDE, SIDE, None))
    assert ((row % (SIDE - 1) == 0) | (column % (SIDE - 1) == 0)).all()


def test_float_frames_are_no_recording_any_more():
    model, events = convolutional(), rasters(5)
    labels = model(events).argmax(1)
    after = pgd(model, events, labels, Budget(8 / 255), steps=2).adversarial
    assert (changes(events, after).fractional > 0).any()


@pytest.mark.parametrize("name", sorted(set(ALL_ATTACKS) - {"apgd_targeted"}))
def test_attacks_on_images_take_recordings_as_float_frames(name, brief):
    model, events = convolutional(), rasters(3)
    labels = model(events).argmax(1)
    result = brief(ALL_ATTACKS[name])(model, events, labels, Budget(8 / 255))
    assert result.adversarial.shape == events.shape and (result.linf <= 8 / 255 + 1e-6).all()


@pytest.mark.parametrize("space", ["image", "encoded"])
def test_probes_take_recordings(space):
    model, events = convolutional(), rasters(3)
    labels = model(events).argmax(1)
    gradient = input_gradient(model, events, labels, space=space)
    assert gradient.shape == events.shape and gradient.abs().sum() > 0
    assert len(gradient_by_operation(model, events, labels, space=space)) > 0


def test_changes_tell_added_removed_and_shifted():
    before = torch.tensor([[1.0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    after = torch.tensor([[0.0, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]])
    table = changes(before, after)
    assert table.events.tolist() == [2, 2, 0] and table.changed.tolist() == [2, 1, 0]
    assert table.added.tolist() == [1, 0, 0] and table.removed.tolist() == [1, 1, 0]
    assert table.jitter.tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Retiming(1.5), "eps is 1.5; expected a whole number"),
        (lambda: Retiming(1, moves=-1), "moves is -1"),
        (lambda: Retiming(1, space="image"), "leave both out"),
        (lambda: retime(convolutional(), rasters(1), ones(rasters(1)), Budget(1)), "retime got Budget"),
        (lambda: retime(convolutional(), rasters(1) / 2, ones(rasters(1)), Retiming(1)), "not all 0 or 1"),
        (lambda: pgd(convolutional(), rasters(1), ones(rasters(1)), Retiming(1)), "no small steps"),
        (lambda: inject(convolutional(), rasters(1), ones(rasters(1)), Budget(0.1)), "inject got norm 'linf'"),
        (lambda: inject(convolutional(), rasters(1), ones(rasters(1)), Budget(1), pattern="x"), "pattern is 'x'"),
        (lambda: pgd(convolutional(), 3 * rasters(1), ones(rasters(1)), Budget(0.1)), "bin with binary=True"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(call, said):
    with pytest.raises(InputError, match=said) as error:
        call()
    assert "\n" not in str(error.value)
