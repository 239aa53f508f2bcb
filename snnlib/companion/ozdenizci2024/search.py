"""The search for learning rates of the conversion chapter: the same effort for both sides, on validation images alone.

`python -m snnlib.companion.ozdenizci2024.search --profile night --data-dir DIR` trains every candidate of `RATES` once,
with a seed that no table uses, and prints what each reaches. What was chosen stands in `snnlib.companion.sizes`.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from snnlib.attacks import Budget, pgd
from snnlib.commands import OneLineParser, exit_code
from snnlib.companion.measure.networks import build_network, build_recipe
from snnlib.companion.ozdenizci2024 import networks as conversion
from snnlib.companion.sizes import ConversionSize, conversion_size
from snnlib.conversion import calibrate, copy_weights, scale_thresholds, set_trainable
from snnlib.data import ImageSplits
from snnlib.models import Model
from snnlib.runtime import default_device
from snnlib.training import fit, load_weights

SEED = 100
"""No table's seed."""
RATES = {"fine-tuning": (3e-4, 1e-3, 3e-3), "end to end": (1e-3, 4e-3, 1.2e-2)}
"""Three candidates a side. Fine-tuning starts from one TRADES network; end to end trains as many epochs."""
ROBUST_IMAGES = 500


def pretrained(size: ConversionSize, splits: ImageSplits, folder: Path, epochs: int) -> Model:
    """The TRADES network that all candidates of fine-tuning start from."""
    network = conversion.ann_network("trades", size)
    model = build_network(network, size.profile, splits.num_classes, SEED)
    recipe = replace(build_recipe(network, size.profile, SEED), epochs=epochs)
    load_weights(fit(model, splits, recipe, directory=folder, device=default_device()).best, model)
    return model


def candidate(
    side: str, rate: float, size: ConversionSize, splits: ImageSplits, folder: Path, ann: Model | None
) -> dict:
    """Train one candidate: its clean accuracy on the validation images, and that under PGD-10 on the first of them."""
    if side == "fine-tuning":
        model = copy_weights(ann.cpu(), time_steps=size.profile.time_steps, **conversion.SNN_OPTIONS)
        calibrate(model, splits.train, seed=SEED, **size.calibration)
        scale_thresholds(model, conversion.SCALE)
        set_trainable(model, thresholds=True)
        network = conversion.finetuned_network("trades", size, conversion.FineTuning(), model.config)
    else:
        network = conversion.end_to_end_network("equal steps", size)
        model = build_network(network, size.profile, splits.num_classes, SEED)
    recipe = replace(build_recipe(network, size.profile, SEED), learning_rate=rate)
    history = fit(model, splits, recipe, directory=folder, device=default_device())
    load_weights(history.best, model)
    best = max(epoch["validation_accuracy"] for epoch in history.epochs)
    robust = _robust_accuracy(model, splits)
    return {"side": side, "learning rate": rate, "validation accuracy": best, "validation, PGD-10 at 2/255": robust}


def _robust_accuracy(model: Model, splits: ImageSplits) -> float:
    device, chosen = next(model.parameters()).device, torch.arange(min(ROBUST_IMAGES, len(splits.validation)))
    images, labels = splits.validation.batch(chosen, device), splits.validation.labels[chosen].to(device)
    found = pgd(model.eval(), images, labels, Budget(conversion.TRAINING_EPS), steps=10)
    return 1 - found.success.float().mean().item()


def search(size: ConversionSize, splits: ImageSplits, folder: Path) -> pd.DataFrame:
    """One row per candidate of `RATES`."""
    ann = pretrained(size, splits, folder / "ann", size.profile.epochs)
    rows = []
    for side, rates in RATES.items():
        for rate in rates:
            rows.append(candidate(side, rate, size, splits, folder / f"{side} {rate}", ann))
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m snnlib.companion.ozdenizci2024.search", description=__doc__)
    parser.add_argument("--profile", default="night", help="whose sizes")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with whole CIFAR-10")

    def command() -> int:
        options = parser.parse_args(arguments)
        size = conversion_size(options.profile)
        with tempfile.TemporaryDirectory() as folder:
            print(search(size, conversion.images_of(size, options.data_dir), Path(folder)).to_string(index=False))
        return 0

    return exit_code(command)


if __name__ == "__main__":
    sys.exit(main())
