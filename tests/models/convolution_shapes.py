"""Run as a script: gradients of every convolution that `build_model` makes at widths 1 to 16, against float64."""

from __future__ import annotations

import copy
import sys

import torch
from torch import nn

from snnlib.models import MODEL_NAMES, build_model

NO_SHAPES_OF_THEIR_OWN = {"resnet32", "sew_resnet34", "wrn28_4", *(f"spiking_resnet{depth}" for depth in (18, 34, 50))}


def shapes_of(name: str, width: int) -> dict[tuple, nn.Conv2d]:
    """Convolutions by their class, description and input shape."""
    found = {}

    def see(layer: nn.Conv2d, inputs: tuple, output: torch.Tensor) -> None:
        found.setdefault((type(layer), str(layer), tuple(inputs[0].shape[1:])), layer)

    model = build_model(name, 2, 1, width=width, spiking=False, encoder="direct").eval()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(see)
    with torch.no_grad():
        model(torch.zeros(1, 3, *[64 if "tiny" in name else 32] * 2))
    return found


def is_suspect(layer: nn.Conv2d) -> bool:
    """Strided 1x1 kernels are the ones known to fail: on several threads differently from one."""
    return layer.kernel_size == (1, 1) and layer.stride != (1, 1)


def largest_error(layer: nn.Conv2d, shape: tuple) -> float:
    """Of output and both gradients, relative to the largest entry; memory breaks late, so suspects run more often."""
    samples, passes = (20, 3) if is_suspect(layer) else (1, 1)
    exact, worst = copy.deepcopy(layer).double(), 0.0
    for _ in range(passes):
        images = torch.randn(samples, *shape)
        images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
        copies = images.detach().double().requires_grad_()
        out, wanted = layer(images), exact(copies)
        upstream = torch.randn_like(out)
        ours = torch.autograd.grad(out, [images, layer.weight], upstream)
        theirs = torch.autograd.grad(wanted, [copies, exact.weight], upstream.double())
        for one, other in zip((out, *ours), (wanted, *theirs), strict=True):
            worst = max(worst, ((one.double() - other).abs().max() / other.abs().max()).item())
    return worst


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    seen = {}
    for width in range(1, 17):
        for name in sorted(set(MODEL_NAMES) - NO_SHAPES_OF_THEIR_OWN):
            seen |= {key: layer for key, layer in shapes_of(name, width).items() if key not in seen}
    suspects = {key: layer for key, layer in seen.items() if is_suspect(layer)}
    for threads, layers in ((1, seen), (2, suspects)):
        torch.set_num_threads(threads)
        for key, layer in layers.items():
            print(threads, *key[1:], flush=True)
            error = largest_error(layer, key[2])
            if not error < 1e-4:
                sys.exit(f"error {error:.1e}")
    print(f"{len(seen)} shapes")
