"""Networks against SpikingJelly 2.0's own definitions: our weights, loaded there by name, give the same numbers.

In float64, so that a rounding difference cannot tip a membrane over the threshold: every spike must agree.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from snnlib.data.torchvision_ops import import_torchvision
from snnlib.models import build_model, parameter_count
from snnlib.neurons import use_kernel

import_torchvision()
sj_neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")
sj_surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")
sj_functional = pytest.importorskip("spikingjelly.activation_based.functional")
sew_resnet = pytest.importorskip("spikingjelly.activation_based.model.sew_resnet")
spiking_resnet = pytest.importorskip("spikingjelly.activation_based.model.spiking_resnet")

# SpikingJelly scripts a module where torch has deprecated that.
pytestmark = pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")

TOLERANCE = 1e-9
CASES = [
    ("sew_resnet18", "ADD"),
    ("sew_resnet18", "IAND"),
    ("spiking_resnet18", None),
    pytest.param("sew_resnet50", "ADD", marks=pytest.mark.slow),
]
"""Their bottleneck swaps the two paths of IAND against the table of Fang et al., so it has no case here."""


class _SpikingJelly(nn.Module):
    """Their network in multi-step mode, IF neurons, atan(2), reset as the authors leave it; mean over time."""

    def __init__(self, name: str, connection: str | None) -> None:
        super().__init__()
        options = {} if connection is None else {"cnf": connection}
        self.network = getattr(spiking_resnet if connection is None else sew_resnet, name)(
            spiking_neuron=sj_neuron.IFNode,
            surrogate_function=sj_surrogate.ATan(alpha=2.0),
            detach_reset=connection is not None,
            num_classes=10,
            **options,
        )
        sj_functional.set_step_mode(self.network, "m")

    def forward(self, encoded: Tensor) -> Tensor:
        sj_functional.reset_net(self.network)
        return self.network(encoded).mean(0)


def _bit_planes(time_steps: int = 4, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator) / 255
    return build_model("sew_resnet18", 10, time_steps, width=1).encoder(images).double()


def _wake(body: nn.Module, encoded: Tensor) -> None:
    """Affine maps and running statistics under which every stage fires in eval mode."""
    generator = torch.Generator().manual_seed(2)
    norms = [module for module in body.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.data.uniform_(0.7, 1.5, generator=generator)
        norm.bias.data.uniform_(0.0, 0.6, generator=generator)
        norm.momentum = 1.0
    with torch.no_grad():
        body.train()(encoded)
    for norm in norms:
        norm.momentum = 0.1


def _pair(name: str, connection: str | None, encoded: Tensor) -> tuple[nn.Module, _SpikingJelly]:
    options = {} if connection is None else {"connection": connection}
    ours = build_model(name, 10, len(encoded), seed=0, **options).body.double()
    _wake(ours, encoded)
    theirs = _SpikingJelly(name, connection).double()
    theirs.network.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def _logits_and_gradients(model: nn.Module, encoded: Tensor) -> tuple[Tensor, list[Tensor]]:
    encoded = encoded.clone().requires_grad_()
    logits = model(encoded)
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
    return logits.detach(), list(torch.autograd.grad((logits * weights).sum(), [encoded, *model.parameters()]))


def _agree(ours: nn.Module, theirs: _SpikingJelly, encoded: Tensor) -> None:
    logits, gradients = _logits_and_gradients(ours, encoded)
    wanted, wanted_gradients = _logits_and_gradients(theirs, encoded)
    assert wanted.std(0).min() > 1e-4, "a network whose logits depend on the image"
    assert (logits - wanted).norm() <= TOLERANCE * wanted.norm()
    names = ["input", *(name for name, _ in ours.named_parameters())]
    for name, found, expected in zip(names, gradients, wanted_gradients, strict=True):
        error, scale = (found - expected).norm(), max(expected.norm().item(), 1e-6)
        assert error <= TOLERANCE * scale, f"gradient of {name}"
    assert gradients[0].norm() > 0


@pytest.mark.parametrize("name, connection", CASES)
def test_logits_gradients_and_statistics_agree(name, connection):
    encoded = _bit_planes()
    ours, theirs = _pair(name, connection, encoded)
    with use_kernel("reference"):
        _agree(ours.eval(), theirs.eval(), encoded)
        _agree(ours.train(), theirs.train(), encoded)
    for key, value in theirs.network.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-9, atol=1e-12, msg=f"{key} after training")


def test_they_agree_when_neurons_run_as_compiled_kernels():
    encoded = _bit_planes()
    ours, theirs = _pair("sew_resnet18", "ADD", encoded)
    _agree(ours.eval(), theirs.eval(), encoded)


def test_parameter_counts_are_equal():
    theirs = _SpikingJelly("sew_resnet18", "ADD")
    assert parameter_count(build_model("sew_resnet18", 10, 4).body) == parameter_count(theirs) == 11_181_642
