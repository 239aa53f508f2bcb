"""Conversion without fine-tuning beside SpikingJelly's ann2snn: accuracy and seconds at few time steps.

Both get the same ANN in eval mode with BatchNorm by its running statistics, the same calibration images, direct coding
and soft reset. Ours chooses thresholds for the number of steps, starts at half of them, and pools rates, see
`snnlib.conversion.convert`; SpikingJelly's recipe scales by the largest activation ("Max") or a percentile, once for
all.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from snnlib import checks, wrap
from snnlib.conversion import convert
from snnlib.optional import needs
from snnlib.training.accuracy import evaluating

SPIKINGJELLY_MODES = ("Max", "99.9%")
BATCH = 64


def bench_conversion(
    ann: nn.Module,
    calibration_images: Tensor,
    images: Tensor,
    labels: Tensor,
    *,
    time_steps: Sequence[int] = (4, 8, 16, 32),
    batch_size: int = 250,
) -> pd.DataFrame:
    """One row per contender and number of steps: `accuracy` in 0..1 on `images`, `convert_s`; the ANN's own first.

    ann: a plain CNN that both can follow (SpikingJelly takes no arithmetic in the forward). images `[N, C, H, W]` in
    [0, 1] with labels `[N]`; calibration_images likewise, used in batches of 64.
    Errors: InputError without SpikingJelly, or for a network that ours does not take.
    """
    steps = [checks.whole("time_steps", each) for each in time_steps]
    jelly = needs("spikingjelly.activation_based.ann2snn", extra="bench")
    batches = [(batch,) for batch in calibration_images.split(BATCH)]

    def theirs(mode: str) -> Callable[[int], nn.Module]:
        def make(count: int) -> nn.Module:
            recipe = jelly.RateCodingRecipe(dataloader=batches, mode=mode)
            return wrap.spikingjelly(jelly.Converter(recipe).convert(copy.deepcopy(ann).eval()), time_steps=count)

        return make

    def ours(count: int) -> nn.Module:
        options = {"batch_size": min(BATCH, len(calibration_images)), "calibration": {"batches": len(batches)}}
        return convert(ann, calibration_images, time_steps=count, method="rate", **options)[0]

    contenders = {"snnlib": ours} | {f"SpikingJelly, {mode}": theirs(mode) for mode in SPIKINGJELLY_MODES}
    rows = [{"contender": "the ANN", "accuracy": _accuracy(ann, images, labels, batch_size)}]
    for count in steps:
        for name, make in contenders.items():
            started = time.perf_counter()
            snn = make(count)
            seconds = time.perf_counter() - started
            accuracy = _accuracy(snn, images, labels, batch_size)
            rows.append({"contender": name, "time_steps": count, "accuracy": accuracy, "convert_s": seconds})
    return pd.DataFrame(rows).astype({"time_steps": "Int64"})


def _accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> float:
    with evaluating(model):
        answers = torch.cat([model(batch).argmax(1) for batch in images.split(batch_size)])
    return (answers == labels).double().mean().item()
