"""A training run that takes a moment: made-up images, a small network, and runs that are killed.

As a script, `tiny.py FOLDER` makes an uninterrupted run and four runs killed by SIGKILL at different places
and then resumed, each in a process of its own, forked after the imports and before any thread exists.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from snnlib.data.image_set import ImageSet, ImageSplits
from snnlib.encoding import PoissonEncoder
from snnlib.neurons import LIF, use_kernel
from snnlib.training import Recipe, epoch, fit, inner_attack, loop
from snnlib.training.log import EpochLog

RECIPE = Recipe(epochs=4, batch_size=16, learning_rate=0.01, augmentation="flip", seed=7)
ROBUST = replace(
    RECIPE,
    optimiser="sgd",
    weight_decay=1e-3,
    schedule="cosine-per-epoch",
    augmentation="crop-flip-cutout",
    objective="consistency",
    attack=inner_attack("consistency", eps=0.05),
    weight_retraction=1e-3,
)
"""Fine-tuning after conversion, with every piece that draws random numbers."""


class TinyNet(nn.Module):
    """Convolution, BatchNorm, ReLU, dropout, linear.

    If asked for, with the noise of a Poisson encoder in front, with a spiking layer of trainable threshold in the place
    of ReLU, and with a hidden layer so wide that SNN-RAT's retraction draws from its rows.
    """

    def __init__(
        self, num_classes: int = 3, noise: bool = False, spiking: bool = False, wide: bool = False
    ) -> None:
        super().__init__()
        self.encoder = PoissonEncoder(2) if noise else nn.Identity()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4, momentum=0.5)
        self.neuron = LIF(threshold=0.5, trainable_threshold=True) if spiking else nn.ReLU()
        self.dropout = nn.Dropout(0.2)
        self.hidden = nn.Linear(4 * 9, 200) if wide else nn.Identity()
        self.fc = nn.Linear(200 if wide else 4 * 9, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        encoded = self.encoder(images)
        frames = encoded if encoded.dim() == 4 else encoded.mean(0)
        currents = self.norm(self.conv(frames))
        active = self.neuron(currents.expand(2, *currents.shape)).mean(0)
        return self.fc(self.hidden(self.dropout(active.flatten(1))))


def make_model(seed: int = 0, **options) -> TinyNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyNet(**options)


def make_set(count: int, seed: int) -> ImageSet:
    """8x8 images of three classes that differ in brightness."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    noise = torch.randint(0, 120, (count, 3, 8, 8), generator=generator)
    return ImageSet((noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)


def make_splits(train: int = 50, validation: int = 20) -> ImageSplits:
    return ImageSplits(
        "made-up", make_set(train, 1), make_set(validation, 2), make_set(10, 3), 3, ("a", "b", "c")
    )


def train(folder: Path) -> None:
    with use_kernel("reference"):
        fit(make_model(noise=True, spiking=True, wide=True), make_splits(), ROBUST, directory=folder)


def _deadly(function: Callable, call: int, counts: Callable[..., bool] = lambda *_: True) -> Callable:
    """`function`, but the process dies by SIGKILL at the start of its `call`-th call that counts."""
    calls = 0

    def wrapped(*arguments):
        nonlocal calls
        calls += counts(*arguments)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)

    return wrapped


def _die_inside_the_second_epoch() -> None:
    epoch.EpochTotals.add = _deadly(epoch.EpochTotals.add, call=6)  # an epoch has 4 steps


def _die_between_best_and_last() -> None:
    loop.save_checkpoint = _deadly(
        loop.save_checkpoint, call=2, counts=lambda path, *_: path.name == loop.LAST
    )


def _die_between_last_and_log() -> None:
    EpochLog.write = _deadly(EpochLog.write, call=3)  # the first call writes the empty log at the start


DEATHS = {
    "inside-an-epoch": _die_inside_the_second_epoch,
    "between-best-and-last": _die_between_best_and_last,
    "between-last-and-log": _die_between_last_and_log,
}


def _in_a_fork(work: Callable[[], object]) -> int:
    """The process id of a child that does `work` and nothing else."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _killed_from_outside(folder: Path) -> int:
    child = _in_a_fork(lambda: train(folder))
    log = folder / loop.LOG
    while not (log.exists() and log.read_text().count("\n") >= 1):
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return _wait(child)


def _make_runs(root: Path) -> None:
    assert _wait(_in_a_fork(lambda: train(root / "uninterrupted"))) == 0
    for name, arrange in DEATHS.items():
        child = _in_a_fork(lambda arrange=arrange, name=name: (arrange(), train(root / name)))
        assert _wait(child) == -signal.SIGKILL, name
    assert _killed_from_outside(root / "from-outside") == -signal.SIGKILL
    for name in (*DEATHS, "from-outside"):
        shutil.copytree(root / name, root / "when-killed" / name)
        assert _wait(_in_a_fork(lambda name=name: train(root / name))) == 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # else every fork imports it at its first step
    _make_runs(Path(sys.argv[1]))
