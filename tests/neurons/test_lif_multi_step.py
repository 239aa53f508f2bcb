"""The neuron's contract: hand-computed steps, compiled against reference, second order, layouts, recompilation."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch

from snnlib.errors import InputError
from snnlib.neurons import compilations, kernels, lif_multi_step, surrogates, use_kernel

needs_compiler = pytest.mark.skipif(
    kernels.compiler_missing("cpu") is not None, reason="no C++ compiler: only the reference path exists here"
)


def test_membrane_follows_the_equations_when_reset_is_hard():
    currents = torch.tensor([[0.6], [0.5], [0.9], [1.0]])
    spikes, v_last = lif_multi_step(currents, leak=0.5, threshold=1.0, reset="hard")
    # charge: 0.6, 0.8, 1.3 (fires, reset to 0), 1.0 (fires: at the threshold counts)
    assert spikes.flatten().tolist() == [0.0, 0.0, 1.0, 1.0]
    assert v_last.item() == 0.0


def test_membrane_keeps_the_excess_when_reset_is_soft():
    currents = torch.tensor([[1.5], [0.25], [0.25]])
    spikes, v_last = lif_multi_step(currents, leak=1.0, threshold=1.0, reset="soft")
    # charge: 1.5 (fires, 0.5 left), 0.75, 1.0 (fires, 0 left)
    assert spikes.flatten().tolist() == [1.0, 0.0, 1.0]
    assert v_last.item() == 0.0


def test_state_passes_through_the_call_when_the_sequence_is_split():
    torch.manual_seed(0)
    currents = torch.randn(8, 3, 5)
    whole, v_whole = lif_multi_step(currents, leak=0.8)
    first, v_between = lif_multi_step(currents[:3], leak=0.8)
    second, v_end = lif_multi_step(currents[3:], leak=0.8, v0=v_between)
    assert torch.equal(whole, torch.cat([first, second]))
    assert torch.equal(v_whole, v_end)


def test_two_calls_agree_when_nothing_is_passed_on():
    currents = torch.full((4, 7), 0.3)
    assert torch.equal(lif_multi_step(currents)[0], lif_multi_step(currents)[0])


def _gradients(currents, v0, threshold, *, create_graph=False, **options):
    currents, v0 = currents.clone().requires_grad_(), v0.clone().requires_grad_()
    threshold = torch.tensor(threshold, dtype=currents.dtype, requires_grad=True)
    spikes, v_last = lif_multi_step(currents, v0=v0, threshold=threshold, **options)
    weights = torch.linspace(-1, 1, spikes.numel(), dtype=spikes.dtype).view_as(spikes)
    loss = (spikes * weights).sum() + 0.3 * v_last.square().sum()
    first = torch.autograd.grad(loss, [currents, v0, threshold], create_graph=create_graph)
    if not create_graph:
        return spikes.detach(), v_last.detach(), first
    second = torch.autograd.grad(sum(g.square().sum() for g in first), [currents, threshold])
    return first, second


@needs_compiler
@pytest.mark.parametrize(
    "time_steps, reset, detach_reset, leak",
    list(itertools.product([1, 4, 7], ["hard", "soft"], [True, False], [1.0, 0.7])),
)
def test_compiled_equals_reference_when_options_vary(time_steps, reset, detach_reset, leak):
    torch.manual_seed(1)
    currents = torch.randn(time_steps, 5, 33) * 0.8
    currents[0, 0] = 0.9  # exactly at the threshold
    v0 = torch.rand(5, 33) * 0.3
    v0[0] = 0.0
    options = {"leak": leak, "reset": reset, "detach_reset": detach_reset}
    assert kernels.kernel_for(currents) == "compiled"
    spikes, v_last, compiled = _gradients(currents, v0, 0.9, **options)
    with use_kernel("reference"):
        reference_spikes, reference_v_last, reference = _gradients(currents, v0, 0.9, **options)
    assert torch.equal(spikes, reference_spikes)
    assert torch.equal(v_last, reference_v_last)
    assert spikes[0, 0].all(), "a membrane exactly at the threshold fires"
    for ours, wanted in zip(compiled, reference, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))


@needs_compiler
@pytest.mark.parametrize("family", sorted(surrogates.FAMILIES))
def test_compiled_gradient_equals_reference_when_surrogate_varies(family):
    torch.manual_seed(2)
    currents, v0 = torch.randn(4, 6, 16, dtype=torch.float64), torch.zeros(6, 16, dtype=torch.float64)
    options = {"leak": 0.9, "detach_reset": False, "surrogate": surrogates.from_name(family)}
    _, _, compiled = _gradients(currents, v0, 1.0, **options)
    with use_kernel("reference"):
        _, _, reference = _gradients(currents, v0, 1.0, **options)
    for ours, wanted in zip(compiled, reference, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


@needs_compiler
@pytest.mark.parametrize("reset, detach_reset", list(itertools.product(["hard", "soft"], [True, False])))
def test_second_order_equals_reference_when_graph_is_kept(reset, detach_reset):
    torch.manual_seed(3)
    currents, v0 = torch.randn(4, 3, 5, dtype=torch.float64), torch.rand(3, 5, dtype=torch.float64)
    options = {"leak": 0.8, "reset": reset, "detach_reset": detach_reset, "create_graph": True}
    first, second = _gradients(currents, v0, 1.0, **options)
    with use_kernel("reference"):
        reference_first, reference_second = _gradients(currents, v0, 1.0, **options)
    for ours, wanted in zip(first + second, reference_first + reference_second, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-14)
    assert all(g.abs().max() > 0 for g in second)


@needs_compiler
@pytest.mark.parametrize("memory", ["expanded", "strided"])
def test_second_order_exists_when_memory_is_not_dense(memory):
    torch.manual_seed(5)
    leaf = torch.randn(6, 3, 5, dtype=torch.float64, requires_grad=True)

    def second_order():
        currents = leaf[:1].expand(4, 3, 5) if memory == "expanded" else leaf[::2]
        spikes, _ = lif_multi_step(currents, leak=0.8)
        (first,) = torch.autograd.grad(spikes.square().sum() + spikes.sum(), leaf, create_graph=True)
        return torch.autograd.grad(first.square().sum(), leaf)[0]

    ours = second_order()
    with use_kernel("reference"):
        torch.testing.assert_close(ours, second_order(), rtol=1e-12, atol=1e-14)
    assert ours.abs().max() > 0


@needs_compiler
def test_gradient_comes_from_the_reference_when_the_backward_cannot_be_compiled(monkeypatch):
    currents = torch.randn(4, 3, 5, requires_grad=True)
    (wanted,) = torch.autograd.grad(lif_multi_step(currents)[0].sum(), currents)

    def broken(*arguments):
        raise torch._dynamo.exc.TorchDynamoException("made to fail")

    monkeypatch.setattr(kernels, "backward_kernel", lambda *key: broken)
    monkeypatch.setattr(kernels, "_failed", False)
    with pytest.warns(UserWarning, match="made to fail"):
        (ours,) = torch.autograd.grad(lif_multi_step(currents)[0].sum(), currents)
    torch.testing.assert_close(ours, wanted)


@needs_compiler
def test_layout_and_values_survive_when_input_is_channels_last():
    torch.manual_seed(4)
    contiguous = torch.randn(4, 2, 3, 5, 6)
    frames = contiguous.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    channels_last = frames.unflatten(0, (4, 2)).requires_grad_()
    spikes, _ = lif_multi_step(channels_last)
    assert spikes.stride() == channels_last.stride()
    assert torch.equal(spikes, lif_multi_step(contiguous)[0])
    weights = torch.randn(4, 2, 3, 5, 6)  # a contiguous gradient meets a channels-last tensor
    (ours,) = torch.autograd.grad((spikes * weights).sum(), channels_last)
    plain = contiguous.clone().requires_grad_()
    (wanted,) = torch.autograd.grad((lif_multi_step(plain)[0] * weights).sum(), plain)
    assert torch.equal(ours, wanted)


@needs_compiler
@pytest.mark.parametrize(
    "currents",
    [
        torch.randn(3, 8).t().unsqueeze(0).expand(4, 8, 3),
        torch.randn(4, 8, 6)[..., ::2],
        torch.randn(8, 4, 3).transpose(0, 1),
    ],
    ids=["expanded over time", "strided", "time not outermost"],
)
def test_values_are_right_when_memory_is_not_dense(currents):
    with use_kernel("reference"):
        wanted, _ = lif_multi_step(currents)
    assert torch.equal(lif_multi_step(currents)[0], wanted)


@needs_compiler
def test_nothing_recompiles_when_batches_shrink():
    def run(batch):
        currents = torch.randn(3, batch, 4, requires_grad=True)
        lif_multi_step(currents, surrogate=surrogates.gaussian(0.3))[0].sum().backward()

    run(64)
    before = compilations()
    for batch in (63, 40, 17, 8, 5, 1):
        run(batch)
    assert compilations() == before


@needs_compiler
def test_nothing_recompiles_when_constants_change():
    def run(width, leak, threshold):
        currents = torch.randn(3, 50, requires_grad=True)
        options = {"leak": leak, "threshold": threshold, "surrogate": surrogates.piecewise_linear(width)}
        lif_multi_step(currents, **options)[0].sum().backward()

    run(1.0, 1.0, 1.0)
    before = compilations()
    for width, leak, threshold in ((0.5, 0.9, 1.0), (2.0, 1.0, 0.4), (0.25, 0.25, 0.25)):
        run(width, leak, threshold)
    assert compilations() == before


@needs_compiler
def test_memory_saved_is_one_input_when_gradients_are_needed():
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    currents = torch.randn(4, 16, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        lif_multi_step(currents)
    scalars = 2 * 8
    assert sum(saved.values()) <= currents.numel() * 4 + scalars


def test_membrane_is_float32_when_currents_are_bfloat16():
    spikes, v_last = lif_multi_step(torch.rand(4, 9).bfloat16())
    assert (spikes.dtype, v_last.dtype) == (torch.bfloat16, torch.float32)


def test_nothing_is_compiled_where_the_environment_says_so(monkeypatch):
    currents = torch.randn(4, 11)
    monkeypatch.setenv(kernels.KERNEL, "reference")
    assert kernels.kernel_name() == kernels.kernel_for(currents) == "reference"
    with use_kernel("auto"):  # code that asks for one by name gets it
        assert kernels.kernel_for(currents) == "compiled"
    monkeypatch.setenv(kernels.KERNEL, "fast")
    with pytest.raises(InputError, match="SNNLIB_KERNEL is 'fast'; expected 'auto' or 'reference'"):
        lif_multi_step(currents)


def test_result_is_the_same_when_no_compiler_is_found(monkeypatch):
    currents = torch.randn(4, 10)
    wanted, _ = lif_multi_step(currents)
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    kernels.compiler_missing.cache_clear()
    try:
        with pytest.warns(UserWarning, match="no C\\+\\+ compiler"):
            assert torch.equal(lif_multi_step(currents)[0], wanted)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the second call warns no more
            lif_multi_step(currents)
        assert kernels.kernel_name() == "reference"
    finally:
        monkeypatch.undo()
        kernels.compiler_missing.cache_clear()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"leak": 1.2}, r"leak is 1\.2; expected a number in \[0, 1\]"),
        ({"leak": float("nan")}, "leak is nan"),
        ({"threshold": 0.0}, r"threshold is 0\.0; expected a finite number above 0"),
        ({"reset": "none"}, "reset is 'none'; expected 'hard' or 'soft'"),
        ({"v0": torch.zeros(2)}, r"v0 has shape \[2\]; expected \[3\]"),
        ({"threshold": torch.ones(3)}, r"threshold has shape \[3\]"),
    ],
)
def test_one_clear_line_when_input_is_bad(options, message):
    with pytest.raises(InputError, match=message) as caught:
        lif_multi_step(torch.zeros(4, 3), **options)
    assert "\n" not in str(caught.value)


def test_one_clear_line_when_time_axis_is_empty():
    with pytest.raises(InputError, match=r"currents have shape \[0, 3\]"):
        lif_multi_step(torch.zeros(0, 3))
