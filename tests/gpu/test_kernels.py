"""The compiled neuron on a GPU: spikes equal the reference's bit for bit, gradients up to rounding."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from snnlib.neurons import compilations, kernels, lif_multi_step, surrogates, use_kernel

pytestmark = pytest.mark.gpu
WIDTH = 4096
HALF = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Relative rounding of a number, four times over."""


@pytest.fixture(autouse=True)
def compiled(cuda) -> Iterator[None]:
    """A kernel that fell back to the reference would agree with it."""
    assert kernels.compiler_missing("cuda") is None
    yield
    assert not kernels._failed, "torch.compile failed on the way"


def _currents(time_steps: int, dtype: torch.dtype = torch.float32, leak: float = 1.0) -> Tensor:
    """Random currents; in the first quarter multiples of 1/8, so that many membranes meet the threshold exactly."""
    generator = torch.Generator().manual_seed(time_steps)
    currents = 0.8 * torch.randn(time_steps, WIDTH, generator=generator)
    exact = currents[:, : WIDTH // 4]
    exact.copy_((8 * exact).round() / 8)
    return currents.to(dtype)


def _gradients(currents: Tensor, device: str, **options) -> tuple[Tensor, ...]:
    """Spikes, last membrane and the derivatives of currents, v0 and threshold, on the CPU."""
    currents = currents.to(device).requires_grad_()
    dtype = torch.float32 if currents.dtype in HALF else currents.dtype
    v0 = torch.linspace(-0.5, 0.5, WIDTH, dtype=dtype, device=device).requires_grad_()
    threshold = torch.tensor(1.0, dtype=dtype, device=device, requires_grad=True)
    spikes, v_last = lif_multi_step(currents, v0=v0, threshold=threshold, **options)
    weights = torch.linspace(-1, 1, spikes.numel(), dtype=dtype, device=device).view_as(spikes)
    loss = (spikes * weights).sum() + 0.3 * v_last.square().sum()
    gradients = torch.autograd.grad(loss, [currents, v0, threshold])
    return tuple(tensor.detach().cpu() for tensor in (spikes, v_last, *gradients))


def _assert_close(ours: tuple[Tensor, ...], wanted: tuple[Tensor, ...], tolerance: float) -> None:
    """Of currents, v0 and threshold; the last is a sum over all neurons, whose terms may cancel."""
    for one, other, least in zip(ours, wanted, (0, 0, WIDTH**0.5), strict=True):
        scale = max(float(other.abs().max()), least)
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize(
    "time_steps, leak, reset", list(itertools.product([1, 4, 10, 32], [1.0, 0.9, 0.5], ["hard", "soft"]))
)
def test_spikes_are_the_references_and_gradients_its_up_to_rounding(cuda, time_steps, leak, reset):
    currents = _currents(time_steps)
    options = {"leak": leak, "reset": reset, "detach_reset": reset == "hard"}
    spikes, v_last, *gradients = _gradients(currents, cuda, **options)
    with use_kernel("reference"):
        for device in (cuda, "cpu"):
            wanted = _gradients(currents, device, **options)
            assert torch.equal(spikes, wanted[0]), f"{(spikes != wanted[0]).sum()} spikes differ from {device}"
            assert torch.equal(v_last, wanted[1]), device
            _assert_close(gradients, wanted[2:], 2e-5)
    assert 0.02 < spikes.mean() < 0.9


@pytest.mark.parametrize("leak", [0.9, 0.7])
def test_no_spike_flips_where_a_contracted_multiply_add_would_flip_it(cuda, leak):
    """The second current takes the rounded leak · v to the threshold 1 exactly; unrounded, it falls short of it."""
    generator = torch.Generator().manual_seed(0)
    v = -(1.05 + 0.9 * torch.rand(200_000, generator=generator)) / leak
    factor = torch.tensor(leak)
    second = 1 - factor * v
    currents = torch.stack([v, second])
    rounded = factor * v + second
    contracted = (factor.double() * v.double() + second.double()).float()
    assert ((rounded >= 1) & (contracted < 1)).sum() > 1000, "these currents would show it"
    spikes, _ = lif_multi_step(currents.to(cuda), leak=leak)
    assert torch.equal(spikes[1].cpu(), (rounded >= 1).float())


@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("family", sorted(surrogates.FAMILIES))
def test_gradient_is_the_references_for_every_surrogate(cuda, family, detach_reset):
    options = {"leak": 0.9, "surrogate": surrogates.from_name(family), "detach_reset": detach_reset}
    ours = _gradients(_currents(4), cuda, **options)
    with use_kernel("reference"):
        wanted = _gradients(_currents(4), cuda, **options)
    assert torch.equal(ours[0], wanted[0])
    _assert_close(ours[2:], wanted[2:], 2e-5)


@pytest.mark.parametrize("dtype", sorted(HALF, key=str), ids=str)
@pytest.mark.parametrize("time_steps, leak", [(1, 0.9), (4, 1.0), (4, 0.9), (10, 0.5), (32, 0.9)])
def test_half_precision_keeps_a_membrane_in_float32(cuda, dtype, time_steps, leak):
    currents = _currents(time_steps, dtype)
    spikes, v_last, *gradients = _gradients(currents, cuda, leak=leak)
    with use_kernel("reference"):
        wanted = _gradients(currents, cuda, leak=leak)
    assert spikes.dtype == dtype and v_last.dtype == torch.float32
    assert torch.equal(spikes, wanted[0]) and torch.equal(v_last, wanted[1])
    _assert_close(gradients, wanted[2:], HALF[dtype])


def test_layouts_pass_through_and_a_shrinking_batch_compiles_nothing(cuda):
    def run(images: int) -> None:
        frames = torch.rand(4, images, 8, 6, 5, device=cuda)
        frames = frames.flatten(0, 1).to(memory_format=torch.channels_last).view(frames.shape).requires_grad_()
        spikes, _ = lif_multi_step(frames, leak=0.9, want_v_last=False)
        assert spikes.stride() == frames.stride()
        (gradient,) = torch.autograd.grad(spikes.sum(), frames)
        with use_kernel("reference"):
            wanted, _ = lif_multi_step(frames, leak=0.9)
            (other,) = torch.autograd.grad(wanted.sum(), frames)
        assert torch.equal(spikes, wanted)
        torch.testing.assert_close(gradient, other, rtol=2e-5, atol=1e-6)

    run(16)
    before = compilations()
    for images in (15, 9, 3, 2):
        run(images)
    assert compilations() == before


def test_more_neuron_steps_than_a_32_bit_index_counts(cuda):
    if torch.cuda.mem_get_info()[0] < 32 << 30:
        pytest.skip("needs 32 GiB of free memory on the device")
    width = (1 << 29) + 1024
    currents = torch.rand(4, width, dtype=torch.bfloat16, device=cuda)
    spikes, _ = lif_multi_step(currents, leak=0.9, want_v_last=False)
    for part in (slice(0, 4096), slice(width - 4096, width)):
        with use_kernel("reference"):
            wanted, _ = lif_multi_step(currents[:, part].clone(), leak=0.9)
        assert torch.equal(spikes[:, part], wanted)


@pytest.mark.parametrize("time_steps", [1, 4, 8, 10, 16, 32])
def test_every_byte_is_read_and_written_once(cuda, time_steps):
    """From the code that Inductor generates: T loads and T stores forward, 2 T loads and T stores backward.

    Leak, threshold and the surrogate's coefficients, numbers that every thread shares, come on top.
    """
    run = kernels.forward_kernel.__wrapped__(time_steps, "hard", torch.float32, cuda, False, False)
    frames = torch.rand(time_steps, 1 << 16, device=cuda)
    leak, threshold = (kernels.scalar(name, 0.9, torch.float32, frames.device) for name in ("leak", "threshold"))
    found = generated(run, frames, None, leak, threshold)
    assert (found["kernels"], found["stores"]) == (1, time_steps)
    assert time_steps <= found["loads"] <= time_steps + 2
    surrogate = surrogates.atan()
    run = kernels.backward_kernel.__wrapped__(
        time_steps, surrogate.formula, "hard", True, False, torch.float32, cuda, False, False
    )
    shared = kernels.coefficient_tensors(surrogate, torch.float32, frames.device)
    found = generated(run, torch.rand_like(frames), None, frames, None, leak, threshold, *shared)
    assert (found["kernels"], found["stores"]) == (1, time_steps)
    assert 2 * time_steps <= found["loads"] <= 2 * time_steps + 2 + len(shared)


def generated(run: Callable, *arguments: Tensor | None) -> dict[str, int]:
    """Kernels, loads and stores in the code that Inductor generates for a call."""
    from torch._inductor import config
    from torch._inductor.utils import run_and_get_code

    with config.patch(force_disable_caches=True):  # what comes from the cache is not shown
        _, sources = run_and_get_code(run, *arguments)
    text = "\n".join(sources)
    assert "'enable_fp_fusion': False" in text and "'enable_fp_fusion': True" not in text
    return {"kernels": text.count("def triton_"), "loads": text.count("tl.load("), "stores": text.count("tl.store(")}
