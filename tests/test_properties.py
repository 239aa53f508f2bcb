"""Properties that hold for every input: causality of the neuron, attacks inside their budget, codes that invert."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from snnlib.attacks import Budget, pgd, random_noise
from snnlib.encoding import PhaseEncoder, decode_phase
from snnlib.neurons import lif_multi_step, use_kernel
from snnlib.sparsity import gini, hoyer, l0, l1, l2, zero_share

seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=40, deadline=None)


def _normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@few
@given(
    seed=seeds,
    time_steps=st.integers(2, 6),
    change_at=st.integers(0, 5),
    leak=st.floats(0, 1),
    reset=st.sampled_from(["hard", "soft"]),
)
def test_spikes_before_a_change_stay_when_a_later_current_changes(seed, time_steps, change_at, leak, reset):
    currents = _normal(seed, time_steps, 7)
    changed = currents.clone()
    changed[min(change_at, time_steps - 1) :] += 1.0
    with use_kernel("reference"):
        before, _ = lif_multi_step(currents, leak=leak, reset=reset)
        after, _ = lif_multi_step(changed, leak=leak, reset=reset)
    unchanged = min(change_at, time_steps - 1)
    assert torch.equal(before[:unchanged], after[:unchanged])


@few
@given(seed=seeds, leak=st.floats(0, 1), reset=st.sampled_from(["hard", "soft"]))
def test_membrane_after_reset_is_below_threshold_when_currents_are(seed, leak, reset):
    currents = _normal(seed, 5, 9).abs().clamp(max=1.0)
    with use_kernel("reference"):
        spikes, v_last = lif_multi_step(currents, leak=leak, reset=reset)
    assert ((spikes == 0) | (spikes == 1)).all()
    assert (v_last <= 1).all() and (v_last >= 0).all()


@few
@given(
    seed=seeds,
    eps=st.floats(0, 0.5),
    norm=st.sampled_from(["linf", "l2"]),
    attack=st.sampled_from([pgd, random_noise]),
)
def test_adversarial_lies_in_ball_and_box_whatever_the_budget(seed, eps, norm, attack):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images = torch.rand(4, 3, 2, 2)
    result = attack(model, images, torch.tensor([0, 1, 2, 0]), Budget(eps, norm=norm))
    change = (result.adversarial - images).flatten(1)
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert (size <= eps + 1e-6).all()
    assert result.adversarial.min() >= 0 and result.adversarial.max() <= 1


@few
@given(levels=st.lists(st.integers(0, 255), min_size=1, max_size=24), time_steps=st.integers(8, 17))
def test_phase_code_decodes_to_its_image_when_all_planes_are_shown(levels, time_steps):
    images = (torch.tensor(levels, dtype=torch.float32) / 255).view(1, 1, 1, -1)
    torch.testing.assert_close(decode_phase(PhaseEncoder(time_steps)(images)), images, rtol=0, atol=1e-6)


@few
@given(seed=seeds, zeros=st.integers(0, 19), scale=st.floats(1e-3, 1e3))
def test_measures_agree_with_each_other_and_ignore_scale(seed, zeros, scale):
    g = _normal(seed, 1, 20).double()
    g[0, :zeros] = 0
    assert l0(g).item() == 20 - zeros
    assert zero_share(g).item() == zeros / 20
    assert l2(g) <= l1(g) <= l0(g).sqrt() * l2(g) * (1 + 1e-12)
    for measure in (hoyer, gini, zero_share):
        torch.testing.assert_close(measure(g), measure(scale * g), rtol=1e-9, atol=1e-12)
        assert -1e-12 <= measure(g).item() <= 1
