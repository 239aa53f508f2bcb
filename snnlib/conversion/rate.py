"""Rates for activations: an ANN as it was trained, its ReLUs exchanged for neurons that need no fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from snnlib.conversion.qcfs import ShiftedIF, replace_modules
from snnlib.encoding import DirectEncoder
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.models.layers import first_weight
from snnlib.training.accuracy import evaluating
from snnlib.training.randomness import generator_at

SAMPLE = 2**17
"""Activations per layer and batch that are looked at, drawn at random."""
CANDIDATES = 100
"""Thresholds that are tried: these many even shares of the largest activation."""


def rate_thresholds(ann: Model, batches: Iterable[Tensor], *, time_steps: int, seed: int) -> dict[str, float]:
    """For every ReLU, by name in forward order, the threshold that loses least of its activations in T steps.

    A `ShiftedIF` with a constant current x gives θ · clip(⌊T·x/θ + ½⌋, 0, T) / T on average over T steps; of 100 values
    of θ up to the largest activation, the one with the smallest mean square of what that differs from ReLU(x). The ANN
    is in eval mode, BatchNorm by its running statistics.

    **Source:** Li et al. 2021 (ICML), the threshold of the smallest mean square error; here with the shift of Bu et al.
    2022 and on a fixed grid. Errors: InputError, naming the layer, for a ReLU that is 0 everywhere.
    """
    names = {module: name for name, module in ann.named_modules() if isinstance(module, nn.ReLU)}
    largest: dict[str, float] = {}
    losses: dict[str, Tensor] = {}
    batches = list(batches)
    shares = torch.arange(1, CANDIDATES + 1, dtype=torch.float64) / CANDIDATES
    with evaluating(ann):
        for name, x in _currents(ann, names, batches, seed):
            largest[name] = max(largest.get(name, 0.0), float(x.amax()))
        for name, x in _currents(ann, names, batches, seed):
            if not largest[name] > 0:
                raise InputError(f"{name} is dead: its ReLU is 0 on all images; train longer, or pass more images")
            lost = torch.stack([_lost(x.relu(), share * largest[name], time_steps) for share in shares.tolist()])
            losses[name] = losses.get(name, 0) + lost.double().cpu()
    return {name: float(shares[loss.argmin()]) * largest[name] for name, loss in losses.items()}


def with_rates(ann: Model, thresholds: dict[str, float], time_steps: int) -> Model:
    """A copy with `ShiftedIF` of these trainable thresholds in the place of every ReLU, weights and statistics kept.

    Errors: InputError for another coding than the direct one.
    """
    if not isinstance(ann.encoder, DirectEncoder):
        raise InputError(f"the encoder is {type(ann.encoder).__name__}; expected direct coding")
    snn, like = copy.deepcopy(ann), first_weight(ann)
    heights = {snn.get_submodule(name): threshold for name, threshold in thresholds.items()}
    replace_modules(snn, nn.ReLU, lambda relu: ShiftedIF(nn.Parameter(torch.tensor(heights[relu]).to(like))))
    snn.encoder.time_steps = time_steps
    return snn


def _lost(x: Tensor, threshold: float, time_steps: int) -> Tensor:
    rate = (x * (time_steps / threshold) + 0.5).floor_().clamp_(max=time_steps)
    return (x - rate * (threshold / time_steps)).square_().mean()


def _currents(
    ann: Model, names: dict[nn.Module, str], batches: list[Tensor], seed: int
) -> Iterator[tuple[str, Tensor]]:
    """What reaches each ReLU, layer by layer and batch by batch, as flat samples."""
    for number, batch in enumerate(batches):
        seen: list[tuple[str, Tensor]] = []
        with _watching(names, seen, number, seed):
            ann(batch)
        yield from seen


@contextmanager
def _watching(names: dict[nn.Module, str], seen: list, number: int, seed: int) -> Iterator[None]:
    def see(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        values = arguments[0].detach().flatten()
        generator = generator_at(f"rate calibration, {names[module]}", seed, number)
        chosen = torch.randint(0, values.numel(), (SAMPLE,), generator=generator)
        seen.append((names[module], values if values.numel() <= SAMPLE else values[chosen.to(values.device)]))

    hooks = [module.register_forward_pre_hook(see) for module in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
