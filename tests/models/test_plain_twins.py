"""The ReLU twins against the same networks written down a second time, function by function, in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from snnlib.models import build_model


class Weights:
    """A state dict, read as functions: `w.conv("layer1.0.conv1", x)`."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), stride, padding=weight.shape[-1] // 2)

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            self.state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def mix(self, name: str, shortcut: Tensor, residual: Tensor) -> Tensor:
        first, second = self.state[f"{name}.mix.weight"]
        return first * shortcut + second * residual


LAYERS = {
    "vgg11": "c p c c p c c c p c c",
    "vgg16": "c c p c c p c c c p c c c p c c c p",
    "vgg11_tinyimagenet": "c p c p c c p c c p c c",
}


def _vgg(name: str, w: Weights, x: Tensor) -> Tensor:
    for number, kind in enumerate(LAYERS[name].split()):
        layer = f"features.{number}"
        x = F.avg_pool2d(x, 2) if kind == "p" else F.relu(w.norm(f"{layer}.bn", w.conv(f"{layer}.conv", x)))
    if name == "vgg11_tinyimagenet":
        x = F.relu(w.linear("hidden.0.fc", x.mean((2, 3))))
    else:
        x = F.relu(w.linear("hidden.1.fc", F.relu(w.linear("hidden.0.fc", x.reshape(len(x), -1)))))
    return w.linear("fc", x)


def _resnet20(name: str, w: Weights, x: Tensor) -> Tensor:
    x = F.relu(w.norm("bn1", w.conv("conv1", x)))
    for stage in (1, 2, 3):
        for number in range(3):
            block, stride = f"layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1
            out = F.relu(w.norm(f"{block}.bn1", w.conv(f"{block}.conv1", x, stride)))
            out = w.norm(f"{block}.bn2", w.conv(f"{block}.conv2", out))
            if stride == 2:
                x = w.norm(f"{block}.downsample.1", w.conv(f"{block}.downsample.0", x, 2))
            x = F.relu(w.mix(block, x, out))
    return w.linear("fc", x.mean((2, 3)))


def _wrn16(name: str, w: Weights, x: Tensor) -> Tensor:
    x = w.conv("conv1", x)
    for stage in (1, 2, 3):
        for number in range(2):
            block, stride = f"layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1
            active = F.relu(w.norm(f"{block}.bn1", x))
            out = F.relu(w.norm(f"{block}.bn2", w.conv(f"{block}.conv1", active, stride)))
            shortcut = w.conv(f"{block}.downsample", active, stride) if number == 0 else x
            x = w.mix(block, shortcut, w.conv(f"{block}.conv2", out))
    return w.linear("fc", F.avg_pool2d(F.relu(w.norm("bn", x)), 8).flatten(1))


PLAIN = {"vgg11": _vgg, "vgg16": _vgg, "vgg11_tinyimagenet": _vgg, "resnet20": _resnet20, "wrn16_4": _wrn16}


def _with_mixes_apart(body: torch.nn.Module) -> None:
    for name, value in body.named_parameters():
        if name.endswith("mix.weight"):
            value.data = torch.tensor([0.3, 0.9], dtype=value.dtype)


@pytest.mark.parametrize("name", PLAIN)
def test_ann_equals_the_plain_network(awake, name):
    images = torch.rand(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    options = {"image_size": 32} if name.startswith("vgg") else {}
    model = build_model(name, 5, 1, width=3, spiking=False, bias=True, seed=0, **options).double()
    _with_mixes_apart(model.body)
    awake(model, images)
    for parameter in model.body.parameters():
        if parameter.dim() == 1 and parameter.numel() != 2:
            parameter.data += 0.01 * torch.arange(parameter.numel()) / parameter.numel()
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    found, wanted = model(ours), PLAIN[name](name, Weights(model.body.state_dict()), theirs)
    assert wanted.std(0).min() > 1e-6, "a network that sees its input"
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
    direction = torch.linspace(-1, 1, 5, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((found * direction).sum(), ours)
    (wanted_gradient,) = torch.autograd.grad((wanted * direction).sum(), theirs)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-7, atol=1e-12)
