"""BatchNorm statistics: dropped, borrowed from a batch, estimated anew; each in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.conversion import batch_statistics, copy_weights, reestimate_statistics, reset_statistics
from snnlib.conversion.batches import shuffled_batches
from snnlib.conversion.statistics import batch_norms
from snnlib.errors import InputError
from snnlib.models.convertible import OverTime
from snnlib.neurons import IF

DRAW = {"batches": 3, "batch_size": 4, "seed": 2, "augmentation": "none"}


@pytest.fixture
def norm() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(3, momentum=0.3)
    norm.running_mean.fill_(5.0), norm.running_var.fill_(9.0), norm.num_batches_tracked.fill_(7)
    norm.weight.data.fill_(1.5)
    return norm


def _batch_values(image_set, time_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and unbiased variance of each batch; direct coding repeats every value."""
    batches = [batch.repeat(time_steps, 1, 1, 1) for batch in shuffled_batches(image_set, "statistics", **DRAW)]
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
    return means, torch.stack([batch.var((0, 2, 3)) for batch in batches])


def test_cumulative_average_is_the_mean_over_batches(norm, chain, make_images):
    snn = chain(OverTime(norm), IF()).eval()
    reestimate_statistics(snn, make_images(), **DRAW)
    means, variances = _batch_values(make_images(), 4)
    torch.testing.assert_close(norm.running_mean, means.mean(0))
    torch.testing.assert_close(norm.running_var, variances.mean(0))
    assert norm.momentum == 0.3 and norm.num_batches_tracked == 3
    assert norm.weight.eq(1.5).all() and not norm.training


def test_momentum_average_goes_on_from_the_statistics(norm, chain, make_images):
    reestimate_statistics(chain(OverTime(norm), IF()), make_images(), **DRAW, average="momentum")
    mean, variance = torch.full((3,), 5.0), torch.full((3,), 9.0)
    for batch_mean, batch_variance in zip(*_batch_values(make_images(), 4), strict=True):
        mean, variance = 0.7 * mean + 0.3 * batch_mean, 0.7 * variance + 0.3 * batch_variance
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)


@pytest.mark.parametrize("training", [False, True])
def test_reestimating_changes_statistics_and_nothing_else(training, make_ann, make_images):
    snn = copy_weights(make_ann(dropout=0.9)).train(training)
    before = {name: value.clone() for name, value in snn.state_dict().items()}
    state = torch.get_rng_state()
    reestimate_statistics(snn, make_images(), batches=2, batch_size=3)
    assert torch.equal(torch.get_rng_state(), state), "no dropout"
    changed = {name for name, value in snn.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert all(module.training is training for module in snn.modules())
    assert all(parameter.grad is None for parameter in snn.parameters())


def test_reset_drops_statistics_and_keeps_the_affine_map(norm):
    reset_statistics(nn.Sequential(norm))
    assert norm.running_mean.eq(0).all() and norm.running_var.eq(1).all() and norm.num_batches_tracked == 0
    assert norm.momentum == 0.1 and norm.weight.eq(1.5).all()


def test_batch_statistics_pool_and_are_given_back_after_an_error(norm):
    frames = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    own = (norm.running_mean, norm.running_var)
    norm.train()
    with pytest.raises(ZeroDivisionError), batch_statistics(nn.Sequential(norm)):
        assert not norm.training and not torch.is_grad_enabled()
        out = norm(frames)
        torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
        torch.testing.assert_close(out.var((0, 2, 3), correction=0), torch.full((3,), 2.25), atol=1e-3, rtol=0)
        1 / 0  # noqa: B018
    assert norm.training and norm.running_mean is own[0] and norm.running_var is own[1]
    assert own[0].eq(5).all() and norm.num_batches_tracked == 7


def test_unknown_average_is_refused(norm, chain, make_images):
    with pytest.raises(InputError, match="average is 'median'; expected one of cumulative, momentum"):
        reestimate_statistics(chain(OverTime(norm), IF()), make_images(), average="median")
    assert norm.running_mean.eq(5).all() and batch_norms(nn.Sequential(norm)) == [norm]
