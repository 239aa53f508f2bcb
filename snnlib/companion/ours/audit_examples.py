"""Bring your own network: small ones of snnTorch and SpikingJelly, trained in seconds, audited as they are.

What the audit asks of them is a `torch.nn.Module` from images [N, C, H, W] in [0, 1] to logits [N, classes] that starts
from fresh membranes at every call. Nothing of this project is inside them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib.attacks import Budget
from snnlib.audit import AuditReport, audit
from snnlib.companion.measure.store import stored
from snnlib.companion.ours.audit import REPORTS
from snnlib.companion.sizes import Profile, audit_size
from snnlib.data import ImageSet, ImageSplits

STEPS = 4
LEARNING_RATE = 2e-3
BATCH = 50


class SnnTorchNetwork(nn.Module):
    """Two spiking convolutions and a linear read-out, written as snnTorch's tutorials do: a loop with its membranes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        import snntorch

        self.first, self.second = nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.Conv2d(16, 32, 3, stride=2, padding=1)
        surrogate = snntorch.surrogate.fast_sigmoid(slope=25)
        self.spike_first = snntorch.Leaky(beta=0.9, spike_grad=surrogate)
        self.spike_second = snntorch.Leaky(beta=0.9, spike_grad=surrogate)
        self.readout = nn.Linear(32 * 8 * 8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        currents = self.first(images)
        membrane = torch.zeros_like(currents)
        second_membrane = images.new_zeros(len(images), 32, 8, 8)
        logits = 0
        for _ in range(STEPS):
            spikes, membrane = self.spike_first(currents, membrane)
            spikes, second_membrane = self.spike_second(self.second(spikes), second_membrane)
            logits = logits + self.readout(spikes.flatten(1))
        return logits / STEPS


class SpikingJellyNetwork(nn.Module):
    """The same layers in SpikingJelly's multi-step mode, with its LIF neurons and arctangent surrogate."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # SpikingJelly registers Triton kernels on import; without Triton, PyTorch logs that for each of them.
        logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
        from spikingjelly.activation_based import functional, neuron, surrogate

        def lif() -> nn.Module:
            return neuron.LIFNode(tau=2.0, decay_input=False, surrogate_function=surrogate.ATan(), step_mode="m")

        self.first, self.second = nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.spike_first, self.spike_second = lif(), lif()
        self.readout = nn.Linear(32 * 8 * 8, num_classes)
        self.functional = functional

    def forward(self, images: Tensor) -> Tensor:
        self.functional.reset_net(self)
        spikes = self.spike_first(self.first(images).expand(STEPS, -1, -1, -1, -1))
        currents = self.second(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])
        return self.readout(self.spike_second(currents).flatten(2)).mean(0)


EXAMPLES: dict[str, Callable[[int], nn.Module]] = {
    "snnTorch": SnnTorchNetwork,
    "SpikingJelly": SpikingJellyNetwork,
}


def is_installed(framework: str) -> bool:
    """Whether the framework of an example can be imported here."""
    return importlib.util.find_spec(framework.lower()) is not None


def example_report(framework: str, splits: ImageSplits, profile: Profile, seed: int = 0) -> AuditReport:
    """Train the example and audit it at the chapter's `alone_level`, on the first test images; stored as JSON."""
    size, chosen = audit_size(profile.name), splits.test
    if size.alone_per_class is not None:
        chosen = chosen.first_per_class(size.alone_per_class)
    train = splits.train.take(slice(0, size.example_images))
    release = importlib.metadata.version(framework.lower())
    return _audited_example(framework, release, train, size.example_epochs, chosen, size.alone_level, size.effort, seed)


@stored("example_audits", version=2, form=REPORTS)
def _audited_example(
    framework: str, release: str, train: ImageSet, epochs: int, chosen: ImageSet, level: int, effort: str, seed: int
) -> AuditReport:
    """release: of the framework, for the result's name."""
    model = trained_example(framework, train, epochs, seed)
    images, generator = chosen.batch(slice(None)), torch.Generator().manual_seed(seed)
    return audit(model, images, chosen.labels, Budget(level / 255), effort=effort, generator=generator)


def trained_example(framework: str, images: ImageSet, epochs: int, seed: int) -> nn.Module:
    """The example of a framework, trained by Adam on cross-entropy; in eval mode, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EXAMPLES[framework](int(images.labels.max()) + 1).train()
        optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        for _ in range(epochs):
            for index in torch.randperm(len(images)).split(BATCH):
                optimiser.zero_grad(set_to_none=True)
                F.cross_entropy(model(images.batch(index)), images.labels[index]).backward()
                optimiser.step()
    return model.eval()
