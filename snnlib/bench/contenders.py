"""What `snnlib.bench` compares: the same layer and the same network, as each library builds it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from snnlib.data.torchvision_ops import import_torchvision
from snnlib.models import build_model
from snnlib.neurons import IF, use_kernel

Layer = Callable[[Tensor], Tensor]


def snnlib_layer() -> Layer:
    """IF, threshold 1, hard detached reset, atan(2), as all contenders but Norse."""
    return IF()


def reference_layer() -> Layer:
    layer = IF()

    def run(currents: Tensor) -> Tensor:
        with use_kernel("reference"):
            return layer(currents)

    return run


def spikingjelly_layer() -> Layer:
    # SpikingJelly registers Triton kernels on import; without Triton, PyTorch logs that for each of them.
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
    from spikingjelly.activation_based import functional, neuron, surrogate

    layer = neuron.IFNode(step_mode="m", detach_reset=True, surrogate_function=surrogate.ATan(alpha=2.0))

    def run(currents: Tensor) -> Tensor:
        functional.reset_net(layer)
        return layer(currents)

    return run


def snntorch_layer() -> Layer:
    import snntorch

    layer = snntorch.Leaky(
        beta=1.0, threshold=1.0, reset_mechanism="zero", spike_grad=snntorch.surrogate.atan(alpha=2.0)
    )

    def run(currents: Tensor) -> Tensor:
        layer.to(currents.device)
        membrane, spikes = torch.zeros_like(currents[0]), []
        for current in currents:
            spike, membrane = layer(current, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    return run


def norse_layer() -> Layer:
    """Norse's LIFBox, its neuron without synaptic filter: an Euler step with leak and its own surrogate."""
    from norse.torch.functional.lif_box import (
        LIFBoxFeedForwardState,
        LIFBoxParameters,
        lif_box_feed_forward_step,
    )

    def run(currents: Tensor) -> Tensor:
        parameters = LIFBoxParameters()
        state, spikes = LIFBoxFeedForwardState(v=torch.zeros_like(currents[0])), []
        for current in currents:
            spike, state = lif_box_feed_forward_step(current, state, parameters)
            spikes.append(spike)
        return torch.stack(spikes)

    return run


LIF_CONTENDERS: dict[str, Callable[[], Layer]] = {
    "snnlib": snnlib_layer,
    "snnlib, reference": reference_layer,
    "SpikingJelly": spikingjelly_layer,
    "snnTorch": snntorch_layer,
    "Norse": norse_layer,
}


def snnlib_network() -> nn.Module:
    return build_model("sew_resnet18", 10, time_steps=1, encoder="direct").body


class _SpikingJellyNetwork(nn.Module):
    """SpikingJelly's SEW-ResNet-18 in multi-step mode with the read-out that Luu et al. use: the mean over time."""

    def __init__(self) -> None:
        super().__init__()
        import_torchvision()
        from spikingjelly.activation_based import functional, neuron, surrogate
        from spikingjelly.activation_based.model import sew_resnet

        self.network = sew_resnet.sew_resnet18(
            cnf="ADD",
            spiking_neuron=neuron.IFNode,
            surrogate_function=surrogate.ATan(alpha=2.0),
            detach_reset=True,
            num_classes=10,
        )
        functional.set_step_mode(self.network, "m")
        self._reset = functional.reset_net

    def forward(self, encoded: Tensor) -> Tensor:
        self._reset(self.network)
        return self.network(encoded).mean(0)


STEP_CONTENDERS: dict[str, Callable[[], nn.Module]] = {
    "snnlib": snnlib_network,
    "SpikingJelly": _SpikingJellyNetwork,
}
