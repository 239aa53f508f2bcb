"""BatchNorm on the way from ANN to SNN: affine parameters stay, statistics are dropped and found anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snnlib.conversion.batches import shuffled_batches
from snnlib.data.image_set import ImageSet
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.models.layers import first_weight
from snnlib.training.accuracy import evaluating

MOMENTUM = 0.1
AVERAGES = ("cumulative", "momentum")


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Every BatchNorm layer, in registration order."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, eval mode and no gradients, and BatchNorm normalises by the batch at hand; all restored after.

    The statistics are pooled over batch, time and space, and the running ones are neither used nor touched. That is
    how Özdenizci & Legenstein 2024 calibrate (their code: running mean and variance None, in eval mode).
    """
    own = [(norm, norm.running_mean, norm.running_var) for norm in batch_norms(model)]
    try:
        for norm, _, _ in own:
            norm.running_mean = norm.running_var = None
        with evaluating(model):
            yield
    finally:
        for norm, mean, variance in own:
            norm.running_mean, norm.running_var = mean, variance


def reset_statistics(model: nn.Module) -> None:
    """Running mean 0, variance 1, momentum 0.1 in every BatchNorm, in place; affine parameters stay.

    Fine-tuning then finds the statistics anew; until about its tenth step the network in eval mode is not yet the
    trained one (momentum 0.1: 0.9²⁰ = 0.12 of the initial value is left after 20 batches).
    **Source:** Özdenizci & Legenstein 2024, their code (main_train.py).
    """
    for norm in batch_norms(model):
        norm.momentum = MOMENTUM
        norm.reset_running_stats()


def reestimate_statistics(
    model: Model,
    image_set: ImageSet | Tensor,
    *,
    batches: int = 10,
    batch_size: int = 64,
    seed: int = 0,
    average: str = "cumulative",
    augmentation: str = "crop-flip",
) -> None:
    """Estimate the running statistics from `image_set` by forward passes alone, in place; no weight changes.

    average: "cumulative" starts from nothing and takes the plain mean over the batches; "momentum" goes on from the
    statistics as they are, each batch moving them by the layer's momentum, as training does. BatchNorm is in train
    mode, everything else (dropout) in eval. Statistics are pooled over batch, time and space. Images are drawn as
    `shuffled_batches` says.

    **Source:** ours: the paper lets its robust fine-tuning do this. With it, accuracy and attacks mean something
    between the steps of a conversion.
    Errors: InputError for an unknown average, or batches that cannot be drawn.
    """
    if average not in AVERAGES:
        raise InputError(f"average is {average!r}; expected one of {', '.join(AVERAGES)}; choose one of these")
    images = shuffled_batches(
        image_set,
        "statistics",
        batches=batches,
        batch_size=batch_size,
        seed=seed,
        augmentation=augmentation,
        like=first_weight(model),
    )
    norms = batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    with evaluating(model):
        try:
            for norm in norms:
                norm.train()
                if average == "cumulative":
                    norm.reset_running_stats()
                    norm.momentum = None  # PyTorch's name for the plain mean
            for batch in images:
                model(batch)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
