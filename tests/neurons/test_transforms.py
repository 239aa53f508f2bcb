"""Neurons under what PyTorch puts around them: checkpointing, `torch.func`, inference mode, other number types."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, func, nn
from torch.utils.checkpoint import checkpoint

from snnlib.conversion.qcfs import ShiftedIF
from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.neurons import LIF, lif_multi_step, use_kernel


@pytest.fixture(autouse=True, params=["auto", "reference"])
def kernel(request) -> Iterator[None]:
    with use_kernel(request.param):
        yield


@pytest.fixture
def currents() -> Tensor:
    return torch.rand(4, 3, 7, generator=torch.Generator().manual_seed(0))


def layer() -> LIF:
    return LIF(leak=0.8, threshold=0.6, reset="soft", detach_reset=False, trainable_threshold=True)


def loss(currents: Tensor) -> Tensor:
    spikes = layer()(currents)
    return (spikes * torch.linspace(-1, 1, spikes[0, 0].numel())).sum() + spikes.mean().square()


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradients_are_the_plain_ones_when_activations_are_checkpointed(currents, use_reentrant):
    gradients = []
    for through in (lambda run, x: run(x), partial(checkpoint, use_reentrant=use_reentrant)):
        neuron, x = layer(), currents.clone().requires_grad_()
        through(nn.Sequential(nn.Softplus(), neuron), x).square().mul(x).sum().backward()
        gradients.append((x.grad, neuron.threshold.grad))
    (plain, plain_threshold), (checkpointed, checkpointed_threshold) = gradients
    assert torch.equal(checkpointed, plain) and plain.abs().sum() > 0
    assert torch.equal(checkpointed_threshold, plain_threshold) and plain_threshold != 0


def test_a_whole_network_can_be_checkpointed_block_by_block():
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = build_model("sew_resnet18", 3, 4, width=4, seed=0)
    gradients = []
    for wrap in (False, True):
        for block in model.body.layer2 if wrap else ():
            block.forward = lambda x, plain=block.forward: checkpoint(plain, x, use_reentrant=False)
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert any(gradient.abs().sum() > 0 for gradient in gradients[0])


def test_functional_gradients_are_those_of_autograd(currents):
    x = currents.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(loss(x), x)
    assert wanted.abs().sum() > 0
    torch.testing.assert_close(func.grad(loss)(currents), wanted)
    jacobian = torch.autograd.functional.jacobian(layer(), currents)
    torch.testing.assert_close(func.jacrev(layer())(currents), jacobian)
    torch.testing.assert_close(func.jacfwd(layer())(currents), jacobian)
    torch.testing.assert_close(torch.autograd.functional.jacobian(layer(), currents, vectorize=True), jacobian)


def test_second_derivatives_agree_in_every_order_of_modes(currents):
    few = currents[:3, :1, :2]
    twice = func.jacrev(func.jacrev(loss))(few)
    assert twice.abs().sum() > 0
    torch.testing.assert_close(func.hessian(loss)(few), twice)
    torch.testing.assert_close(torch.autograd.functional.hessian(loss, few), twice)


def test_a_mapped_neuron_equals_one_call_per_entry(currents):
    many = torch.stack([currents, currents.flip(0), 2 * currents])
    assert torch.equal(func.vmap(layer())(many), torch.stack([layer()(each) for each in many]))
    gradients = func.vmap(func.grad(loss))(many)
    torch.testing.assert_close(gradients, torch.stack([func.grad(loss)(each) for each in many]))


def test_gradients_per_sample_of_a_network_are_those_of_single_samples():
    model = build_model("sew_resnet18", 3, 4, width=4, seed=0).eval()
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    weights = dict(model.named_parameters())

    def of_one(weights: dict, image: Tensor) -> Tensor:
        return nn.functional.cross_entropy(func.functional_call(model, weights, (image[None],)), torch.tensor([1]))

    mapped = func.vmap(func.grad(of_one), in_dims=(None, 0))(weights, images)
    for number, image in enumerate(images):
        model.zero_grad()
        of_one(weights, image).backward()
        for name, parameter in weights.items():
            torch.testing.assert_close(mapped[name][number], parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("neuron", [LIF(leak=0.5, threshold=1.5), ShiftedIF(1.5)], ids=["LIF", "ShiftedIF"])
def test_whole_numbers_give_the_spikes_of_the_same_floats(dtype, neuron):
    frames = torch.randint(0, 3, (6, 2, 5), generator=torch.Generator().manual_seed(0)).to(dtype)
    spikes = neuron(frames)
    assert spikes.dtype == torch.float32
    assert torch.equal(spikes, neuron(frames.float()))
    assert 0 < spikes.count_nonzero() < spikes.numel()


def test_a_rule_sees_floats_when_the_currents_are_whole_numbers():
    neuron, seen = LIF(), []
    neuron.rule = lambda layer, currents: seen.append(currents.dtype) or currents
    neuron(torch.ones(2, 3, dtype=torch.int32))
    assert seen == [torch.float32]


def test_complex_currents_are_refused_with_one_line():
    with pytest.raises(InputError, match="currents are torch.complex64; expected real numbers") as error:
        lif_multi_step(torch.ones(2, 3, dtype=torch.complex64))
    assert "\n" not in str(error.value)


def test_currents_of_inference_mode_give_the_same_spikes(currents):
    wanted = layer()(currents)
    with torch.inference_mode():
        assert torch.equal(layer()(currents.clone()), wanted)
