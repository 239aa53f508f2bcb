"""The device itself: it computes, and it refuses what CUDA refuses."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn


def test_autograd_and_optimisers_work_as_on_the_cpu(same_on_both):
    def trained(device: str) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        x, model = torch.rand(4, 2, 8, 8).to(device), copy.deepcopy(model.to(device))
        optimiser = torch.optim.Adam(model.parameters(), fused=True)
        for _ in range(3):
            optimiser.zero_grad()
            model(x).square().sum().backward()
            optimiser.step()
        x[1:3] += 1
        return model(x).detach()

    same_on_both(trained)


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there: there + here,
        lambda here, there: torch.stack([here, there]),
        lambda here, there: there.add_(here),
        lambda here, there: torch.where(there > 0, here, there),
        lambda here, there: here[there.long()],
        lambda here, there: nn.functional.linear(there[None], torch.ones(2, 3)),
        lambda here, there: there.index_select(0, torch.tensor([1])),
    ],
)
def test_tensors_of_two_devices_do_not_meet(other_device, mix):
    with other_device:
        here, there = torch.ones(3), torch.ones(3, device=other_device.name)
        with pytest.raises(RuntimeError, match="one device|indexed by"):
            mix(here, there)


def test_what_cuda_allows_is_allowed(other_device):
    with other_device:
        there = torch.arange(4.0, device=other_device.name)
        assert (there * torch.tensor(2.0))[torch.tensor([3, 1])].tolist() == [6, 2]
        there[torch.tensor([0])] = 5.0
        assert there.cpu().numpy().tolist() == [5, 1, 2, 3]


def test_numbers_of_the_device_are_not_drawn_from_a_generator_of_the_cpu(other_device):
    with other_device, pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, generator=torch.Generator(), device=other_device.name)


def test_the_host_waits_where_it_reads_and_sends(other_device):
    with other_device:
        there = torch.ones(3).to(other_device.name)
        there.to(other_device.name, torch.float64)
        _ = torch.ones(3).to(other_device.name, non_blocking=True), there.sum().item(), there[there > 0], bool(there[0])
        there[there > 0] = 0
        there.nonzero()
    assert sorted(what for what, _ in other_device.waits.elements()) == sorted(
        ["copy to the device", "item", "boolean index", "item", "nonzero"]
    )


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.cumsum(0),
        lambda x: x.kthvalue(2),
        lambda x: x.median(0),
        lambda x: x.histc(),
        lambda x: torch.bincount(torch.tensor([0, 1, 1]).to(x.device), x),
        lambda x: nn.AdaptiveAvgPool2d(2)(x.view(1, 1, 3).requires_grad_()).sum().backward(),
    ],
)
def test_operations_without_a_fixed_order_are_refused(other_device, operation):
    with other_device, pytest.raises(RuntimeError, match="deterministic"):
        operation(torch.ones(3, device=other_device.name))


def test_whole_numbers_are_summed_up(other_device):
    with other_device:
        assert torch.arange(3, device=other_device.name).cumsum(0).tolist() == [0, 1, 3]
