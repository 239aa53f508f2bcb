"""What `snnlib.attacks` saves: PGD against the plain loop of published codes, in one run, from the same starts.

The plain loop keeps the batch as it is, so that samples long fooled are attacked on, repeats a static input for each of
the T time steps before the first layer, and calls `backward()` with weight gradients on. Neuron kernels are the same.
Ours judges every point on the way and the plain loop the last one, so ours finds at least as many failures.
"""

from __future__ import annotations

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib.attacks import AttackResult, Budget, concatenate, pgd
from snnlib.attacks.inputs import check_count, check_inputs
from snnlib.attacks.keyed_noise import KeyedNoise
from snnlib.bench.speed import milliseconds
from snnlib.errors import InputError
from snnlib.training.accuracy import evaluating

PIXEL = 1 / 255


def bench_pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 * PIXEL,
    steps: int = 20,
    batch_size: int = 100,
    rounds: int = 3,
    warm_up: int = 1,
) -> pd.DataFrame:
    """PGD with random start and step 2.5 · eps / steps over a whole set of images: ours and the plain loop.

    model: of `build_model`. images: [N, C, H, W] in [0, 1] on the model's device. labels: [N] class numbers.
    One row per contender: `best_ms` and `median_ms` of `rounds` rounds taken in turns, `times_snnlib` = ratio of the
    best to ours, `robust_accuracy` in percent, mean `forwards` and `backwards` per sample. The plain loop's starting
    points are drawn before its clock runs. The model comes back as it was, `.grad` included.
    Errors: InputError for inputs that do not fit.
    """
    budget = Budget(eps)
    check_inputs(model, images, labels, budget, None)
    for name, value in (("steps", steps), ("batch_size", batch_size), ("rounds", rounds)):
        check_count(name, value)
    if not (hasattr(model, "encoder") and hasattr(model, "body")):
        raise InputError(f"{type(model).__name__} has no .encoder and .body; expected a model of build_model")
    batches = torch.arange(len(images), device=images.device).split(batch_size)
    starts = [random_starts(images[index], budget) for index in batches]
    outcomes: dict[str, dict[str, float]] = {}

    def ours() -> None:
        parts = [pgd(model, images[index], labels[index], budget, steps=steps) for index in batches]
        outcomes["snnlib"] = _measured(concatenate(parts))

    def plain() -> None:
        right = 0
        for index, start in zip(batches, starts, strict=True):
            last = plain_pgd(model, images[index], labels[index], start, budget, steps)
            with evaluating(model):
                right += int((model(last).argmax(1) == labels[index]).sum())
        outcomes["plain loop"] = {
            "robust_accuracy": 100 * right / len(images), "forwards": steps + 1.0, "backwards": float(steps)
        }  # fmt: skip

    times = milliseconds({"snnlib": ours, "plain loop": plain}, rounds, images.device.type, warm_up=warm_up)
    best_of_ours = min(times["snnlib"])
    rows = [
        {
            "contender": name,
            "best_ms": min(values),
            "median_ms": sorted(values)[len(values) // 2],
            "times_snnlib": min(values) / best_of_ours,
            **outcomes[name],
        }
        for name, values in times.items()
    ]
    work = f"PGD-{steps} at {eps / PIXEL:g}/255"
    return pd.DataFrame(rows).assign(work=work, samples=len(images), batch=batch_size, rounds=rounds)


def _measured(result: AttackResult) -> dict[str, float]:
    values = {"robust_accuracy": ~result.success, "forwards": result.forwards, "backwards": result.backwards}
    mean = {name: value.double().mean().item() for name, value in values.items()}
    return mean | {"robust_accuracy": 100 * mean["robust_accuracy"]}


def random_starts(images: Tensor, budget: Budget) -> Tensor:
    """The starting points that `pgd` draws for these images without a generator."""
    generators = KeyedNoise(images, None).generators(range(len(images)), draw=0)
    return budget.random_start(images, generators)


def plain_pgd(
    model: nn.Module, images: Tensor, labels: Tensor, start: Tensor, budget: Budget, steps: int
) -> Tensor:
    """[N, C, H, W] the last point of an L∞ PGD as it is commonly written, from `start`."""
    kept = {weight: weight.grad for weight in model.parameters()}
    x, step_size = start, 2.5 * budget.eps / steps
    try:
        with evaluating(model), torch.enable_grad():
            for _ in range(steps):
                model.zero_grad(set_to_none=True)
                x = x.detach().requires_grad_(True)
                every_frame = model.encoder(x).contiguous()
                F.cross_entropy(model.body(every_frame), labels).backward()
                x = budget.project(x.detach() + step_size * x.grad.sign(), images)
    finally:
        for weight, gradient in kept.items():
            weight.grad = gradient
    return x
