"""Small networks of three libraries for the planted set: trained honestly in seconds, and converted ones.

Each has a `front` of the images, in which some masks of `snnlib.companion.ours.planted_masks` find their place.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib import wrap
from snnlib.conversion import convert
from snnlib.data import ImageSet
from snnlib.encoding import DirectEncoder, Encoder
from snnlib.models.build import Model
from snnlib.models.layers import over_static_time
from snnlib.neurons import LIF, surrogates

LIBRARIES = ("snnlib", "snnTorch", "SpikingJelly")
STEPS, CONVERTED_STEPS = 4, 8
OWN_SURROGATE = surrogates.atan(alpha=2.0)
BATCH, LEARNING_RATE = 100, 5e-3


class SnnlibBody(nn.Module):
    """`layers` over `[T, N, ...]`; their mean over time."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, encoded: Tensor) -> Tensor:
        for layer in self.layers:
            encoded = layer(encoded) if isinstance(layer, LIF) else over_static_time(layer, encoded)
        return encoded.mean(0)


def trained(library: str, front: nn.Module, images: ImageSet, *, epochs: int, seed: int, eps: float = 0.0) -> nn.Module:
    """A network of the library, by Adam on cross-entropy; in eval mode, on the CPU.

    Two convolutions with BatchNorm and spikes, a linear layer, mean over time. front: an encoder of snnlib, which gives
    a frame per step, or a module from images to images, which every step gets. eps: of one step of adversarial training
    from a random start, if above 0.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.no_grad():
            seen = front(images.batch(slice(0, 1)))
        layers = _layers(_neuron(library), seen.shape[-3], int(images.labels.max()) + 1)
        return _fit(_assembled(library, front, layers), images, epochs, eps)


def converted(library: str, images: ImageSet, *, epochs: int, seed: int) -> nn.Module:
    """The same layers trained with ReLU, then as a spiking network of the library, by the library's own conversion
    where it has one; else thresholds at the 99.5 % quantile of the activations, and soft reset."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ann = _fit(nn.Sequential(*_layers(nn.ReLU, 3, int(images.labels.max()) + 1)), images, epochs, 0.0)
        sample = images.batch(slice(0, 256))
        if library == "snnlib":
            return convert(ann, sample, time_steps=CONVERTED_STEPS, seed=seed)[0].eval()
        if library == "snnTorch":
            return wrap.snntorch(_rescaled(ann, sample), time_steps=CONVERTED_STEPS, readout="mean").eval()
        from spikingjelly.activation_based import ann2snn

        recipe = ann2snn.RateCodingRecipe(dataloader=[(sample,)], mode="99.9%")
        with contextlib.redirect_stderr(io.StringIO()):  # a bar, which would stay in the notebook
            snn = ann2snn.Converter(recipe).convert(ann)
        return wrap.spikingjelly(snn, time_steps=CONVERTED_STEPS, readout="mean").eval()


def _fit(model: nn.Module, images: ImageSet, epochs: int, eps: float) -> nn.Module:
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=epochs * -(-len(images) // BATCH)
    )
    for _ in range(epochs):
        for index in torch.randperm(len(images)).split(BATCH):
            x, labels = images.batch(index), images.labels[index]
            if eps:
                x = _one_step(model, x, labels, eps)
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(model.train()(x), labels).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def _one_step(model: nn.Module, x: Tensor, labels: Tensor, eps: float) -> Tensor:
    start = (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1).requires_grad_(True)
    (slope,) = torch.autograd.grad(F.cross_entropy(model.eval()(start), labels), start)
    return torch.minimum(torch.maximum(start + 1.25 * eps * slope.sign(), x - eps), x + eps).clamp(0, 1).detach()


def _layers(neuron: Callable[[], nn.Module], channels: int, num_classes: int) -> list[nn.Module]:
    first, second = nn.Conv2d(channels, 16, 5, stride=4, padding=2), nn.Conv2d(16, 32, 3, stride=2, padding=1)
    head = [nn.Flatten(), nn.Linear(32 * 4 * 4, num_classes)]
    return [first, nn.BatchNorm2d(16), neuron(), second, nn.BatchNorm2d(32), neuron(), *head]


def _assembled(library: str, front: nn.Module, layers: list[nn.Module]) -> nn.Module:
    in_time = isinstance(front, Encoder)
    if library == "snnlib":
        encoder = front if in_time else nn.Sequential(front, DirectEncoder(STEPS))
        return Model(encoder, SnnlibBody(layers), {"name": "planted"})
    make = wrap.snntorch if library == "snnTorch" else wrap.spikingjelly
    steps = front.time_steps if in_time else STEPS
    return make(nn.Sequential(*layers), time_steps=steps, readout="mean", preprocessing=front)


def _neuron(library: str) -> Callable[[], nn.Module]:
    if library == "snnlib":
        return lambda: LIF(leak=0.5, surrogate=OWN_SURROGATE)
    if library == "snnTorch":
        import snntorch

        own = snntorch.surrogate.atan(alpha=2.0)
        return lambda: snntorch.Leaky(0.5, spike_grad=own, init_hidden=True, reset_mechanism="zero", reset_delay=False)
    # SpikingJelly registers Triton kernels on import; without Triton, PyTorch logs that for each of them.
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
    from spikingjelly.activation_based import neuron, surrogate

    options = {"tau": 2.0, "decay_input": False, "detach_reset": True}
    return lambda: neuron.LIFNode(**options, surrogate_function=surrogate.ATan(alpha=2.0))


def _rescaled(ann: nn.Sequential, sample: Tensor) -> nn.Sequential:
    """`ann` with spikes as high as the threshold in the place of ReLU."""
    import snntorch

    layers, x = [], sample
    with torch.no_grad():
        for layer in ann:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                threshold = float(x.flatten()[:: max(1, x.numel() // 10**6)].quantile(0.995))
                options = {"threshold": threshold, "graded_spikes_factor": threshold, "reset_delay": False}
                own = snntorch.surrogate.atan(alpha=2.0 / threshold)
                layer = snntorch.Leaky(1.0, spike_grad=own, init_hidden=True, **options)
            layers.append(copy.deepcopy(layer))
    return nn.Sequential(*layers)
