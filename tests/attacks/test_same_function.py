"""Other gradients of the same function: maxima stay bit for bit, gradients follow the definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib.attacks.same_function import POOL_GRADIENTS, SparseGradient, dense_pool_gradient
from snnlib.errors import InputError


def _gradient(layer: nn.Module, x: Tensor, upstream: Tensor | None = None) -> Tensor:
    x = x.clone().requires_grad_(True)
    out = layer(x)
    (slope,) = torch.autograd.grad(out, x, torch.ones_like(out) if upstream is None else upstream)
    return slope


def _map(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)[None, None]


@pytest.mark.parametrize("kind", POOL_GRADIENTS)
@pytest.mark.parametrize("kernel, stride, padding", [(3, 2, 1), (2, 2, 0), ((3, 2), (1, 2), (1, 0))])
def test_maxima_are_the_same_bit_for_bit_when_the_gradient_is_dense(kind, kernel, stride, padding):
    pool = nn.MaxPool2d(kernel, stride, padding)
    for values in (torch.randn(2, 3, 7, 8), (torch.rand(2, 3, 7, 8) < 0.3).float()):
        with dense_pool_gradient(pool, kind):
            assert torch.equal(pool(values.clone().requires_grad_(True)), F.max_pool2d(values, kernel, stride, padding))


def test_average_gradient_is_that_of_an_average_pool():
    x, upstream = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    pool = nn.MaxPool2d(3, 2, 1)
    with dense_pool_gradient(pool, "average"):
        dense = _gradient(pool, x, upstream)
    torch.testing.assert_close(dense, _gradient(nn.AvgPool2d(3, 2, 1, count_include_pad=False), x, upstream))
    assert (dense != 0).all()


def test_ties_share_the_gradient_of_their_window():
    pool, x = nn.MaxPool2d(2), _map([1, 0, 0, 0], [0, 1, 0, 0])
    assert _gradient(pool, x).tolist() == _map([1, 0, 1, 0], [0, 0, 0, 0]).tolist(), "PyTorch takes the first"
    with dense_pool_gradient(pool, "ties"):
        assert _gradient(pool, x).tolist() == _map([0.5, 0, 0.25, 0.25], [0, 0.5, 0.25, 0.25]).tolist()


def test_softmax_gradient_is_that_of_a_smooth_maximum():
    pool, x = nn.MaxPool2d(2), torch.randn(1, 2, 4, 6, dtype=torch.float64)
    smooth = F.unfold(x, 2, stride=2).unflatten(1, (2, 4))
    with dense_pool_gradient(pool, "softmax"):
        dense = _gradient(pool, x)
    expected = F.fold(smooth.softmax(2).flatten(1, 2), (4, 6), 2, stride=2)
    torch.testing.assert_close(dense, expected)


@pytest.mark.parametrize("kind", POOL_GRADIENTS)
def test_what_flows_back_is_neither_lost_nor_made_up(kind):
    pool, x = nn.MaxPool2d(3, 2, 1), torch.rand(2, 3, 9, 9, dtype=torch.float64)
    upstream = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    with dense_pool_gradient(pool, kind):
        torch.testing.assert_close(_gradient(pool, x, upstream).sum(), upstream.sum())


def test_time_folds_into_the_batch_and_the_pool_is_itself_again_after_an_error():
    pool, x = nn.MaxPool2d(2), torch.rand(3, 2, 1, 4, 4)
    with dense_pool_gradient(pool, "average"):
        together = pool(x)
    assert torch.equal(together[1], pool(x[1]))
    with pytest.raises(ArithmeticError), dense_pool_gradient(pool, "average"):
        raise ArithmeticError
    assert "forward" not in vars(pool)
    assert (_gradient(pool, torch.rand(1, 1, 4, 4)) == 0).any()


@pytest.mark.parametrize(
    "model, kind, named",
    [
        (nn.MaxPool2d(2), "mean", "'mean'"),
        (nn.AvgPool2d(2), "average", "no nn.MaxPool2d"),
        (nn.MaxPool2d(2, dilation=2), "average", "dilated"),
    ],
)
def test_a_pool_that_does_not_fit_is_refused(model, kind, named):
    with pytest.raises(InputError, match=named), dense_pool_gradient(model, kind):
        pass


@pytest.mark.parametrize("keep, nonzeros", [(0.0, 0), (0.25, 12), (0.5, 24), (1.0, 48)])
def test_a_sparse_gradient_keeps_the_logits_and_the_stated_number_of_entries(keep, nonzeros):
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), torch.rand(3, 3, 4, 4)
    sparse = SparseGradient(model, keep)
    assert torch.equal(sparse(x), model(x))
    slope, dense = _gradient(sparse, x, torch.eye(2)[[0, 1, 0]]), _gradient(model, x, torch.eye(2)[[0, 1, 0]])
    assert (slope != 0).flatten(1).sum(1).tolist() == [nonzeros] * 3
    assert torch.equal(slope[slope != 0], dense[slope != 0])


def test_a_larger_share_keeps_what_a_smaller_one_keeps():
    x = torch.rand(1, 3, 4, 4)
    masks = [SparseGradient(nn.Identity(), keep, seed=5).mask(x) for keep in (0.2, 0.6)]
    assert (masks[1] >= masks[0]).all()
    assert not torch.equal(masks[0], SparseGradient(nn.Identity(), 0.2, seed=6).mask(x))


def test_a_share_outside_0_to_1_is_refused():
    with pytest.raises(InputError, match="keep is 1.5"):
        SparseGradient(nn.Identity(), 1.5)
