"""The ReLU proxy: the ANN of the same weights gives the gradient, the spiking network the verdict."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from snnlib.attacks import Budget, fgsm, pgd
from snnlib.attacks.gradients import relu_proxy
from snnlib.attacks.prepared import prepared
from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.neurons import surrogates, use_kernel


@pytest.fixture(autouse=True)
def plain_loops():
    with use_kernel("reference"):
        yield


def network(spiking=True, time_steps=4, encoder="direct"):
    model = build_model(
        "spiking_resnet18", 4, time_steps, encoder=encoder, pool="avg", width=4, spiking=spiking, threshold=0.3, seed=1
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        for name, buffer in sorted(model.named_buffers()):
            if name.endswith("running_var"):
                buffer.uniform_(0.3, 0.8)
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
    return model.eval()


def images_and_labels(model, count=6):
    images = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        return images, model(images).argmax(1)


def loss_gradient(model, images, labels):
    x = images.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), labels, reduction="sum"), x)[0]


def test_proxy_is_the_relu_network_of_the_same_weights():
    snn, ann = network(), network(spiking=False, time_steps=1)
    ann.load_state_dict(snn.state_dict())
    images, labels = images_and_labels(snn)
    with prepared(snn, gradient=relu_proxy()) as lent:
        assert not lent.same_forward
        with lent.differentiable():
            torch.testing.assert_close(snn(images), ann(images))
            found = loss_gradient(snn, images, labels)
    assert found.abs().sum() > 0
    torch.testing.assert_close(found, loss_gradient(ann, images, labels))


def test_deployed_network_is_there_outside_and_after():
    snn = network()
    images, labels = images_and_labels(snn)
    with torch.no_grad():
        expected = snn(images)
        with prepared(snn, gradient=relu_proxy()) as lent:
            assert torch.equal(snn(images), expected)
            with pytest.raises(ArithmeticError), lent.differentiable():
                assert not torch.equal(snn(images), expected)
                raise ArithmeticError
            assert torch.equal(snn(images), expected)
    assert torch.equal(snn(images), expected) and not snn.body._forward_pre_hooks


def test_success_is_judged_on_the_spiking_network_when_gradients_are_the_proxys():
    snn = network()
    images, labels = images_and_labels(snn)
    result = pgd(snn, images, labels, Budget(0.2), steps=5, gradient=relu_proxy())
    with torch.no_grad():
        fooled = snn(result.adversarial).argmax(1) != labels
    assert torch.equal(result.success, fooled) and fooled.sum() > 0


def test_one_step_goes_along_the_relu_networks_gradient():
    snn, ann = network(), network(spiking=False, time_steps=1)
    ann.load_state_dict(snn.state_dict())
    images, labels = images_and_labels(snn)
    expected = (images + 0.01 * loss_gradient(ann, images, labels).sign()).clamp(0, 1)
    agree = fgsm(snn, images, labels, Budget(0.01), gradient=relu_proxy()).adversarial == expected
    # The two networks sum in different orders: a pixel whose gradient is as good as 0 may step either way.
    assert agree.float().mean() > 0.999


def test_frames_share_the_gradient_of_their_mean_in_encoded_space():
    snn = network(time_steps=8, encoder="phase")
    images, labels = images_and_labels(snn, count=2)
    with torch.no_grad():
        encoded = snn.encoder(images)
    x = encoded.clone().requires_grad_()
    with relu_proxy().applied(snn):
        (found,) = torch.autograd.grad(F.cross_entropy(snn.body(x), labels), x)
    assert found.abs().sum() > 0 and torch.equal(found, found[:1].expand_as(found))


def test_differentiable_changes_nothing_when_the_forward_is_the_networks_own():
    snn = network()
    images, _ = images_and_labels(snn)
    for gradient in (None, surrogates.atan()):
        with torch.no_grad(), prepared(snn, gradient=gradient) as lent:
            outside = snn(images)
            with lent.differentiable():
                assert lent.same_forward and torch.equal(snn(images), outside)


def test_proxy_refuses_a_model_without_neurons(toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 2)
    with pytest.raises(InputError, match="gradient is relu_proxy, but the model has no snnlib neuron"):
        pgd(model, images, labels, Budget(0.1), gradient=relu_proxy())
