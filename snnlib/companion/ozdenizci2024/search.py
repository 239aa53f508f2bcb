"""The search for learning rates of the conversion chapter: the same effort for both sides, on validation images alone.

`python -m snnlib.companion.ozdenizci2024.search --profile night --data-dir DIR` trains every candidate of `RATES` once,
with a seed that no table uses, and prints what each reaches. What was chosen stands in `snnlib.companion.sizes`.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import pandas as pd

from snnlib.attacks import Budget, pgd
from snnlib.commands import OneLineParser, exit_code
from snnlib.companion.measure.networks import TrainedNetwork
from snnlib.companion.ozdenizci2024 import networks as conversion
from snnlib.companion.sizes import ConversionSize, conversion_size

SEED = 100
"""No table's seed."""
RATES = {"fine-tuning": (3e-4, 1e-3, 3e-3), "end to end": (1e-3, 4e-3, 1.2e-2)}
"""Three candidates a side. Fine-tuning starts from one TRADES network; end to end trains as many epochs."""
ROBUST_IMAGES = 500


def candidate(side: str, rate: float, size: ConversionSize, data_dir: str | None) -> TrainedNetwork:
    """The chapter's network with another learning rate; stored as all networks are."""
    if side == "fine-tuning":
        other = replace(size, finetune={**size.finetune, "learning_rate": rate})
        return conversion.finetuned("trades", other, SEED, data_dir)
    other = replace(size, end_to_end={**size.end_to_end, "learning_rate": rate})
    return conversion.end_to_end("equal steps", other, SEED, data_dir)


def robust_accuracy(item: TrainedNetwork) -> float:
    """Under PGD-10 at the eps of training, on the first validation images."""
    images = item.splits.validation.take(slice(0, ROBUST_IMAGES))
    pixels, labels = images.batch(slice(None), item.device), images.labels.to(item.device)
    found = pgd(item.model, pixels, labels, Budget(conversion.TRAINING_EPS), steps=10)
    return 1 - found.success.float().mean().item()


def search(size: ConversionSize, data_dir: str | None) -> pd.DataFrame:
    """One row per candidate of `RATES`."""
    rows = []
    for side, rates in RATES.items():
        for rate in rates:
            item = candidate(side, rate, size, data_dir)
            best = max(epoch["validation_accuracy"] for epoch in item.history.epochs)
            row = {"side": side, "learning rate": rate, "validation accuracy": best}
            rows.append({**row, "validation, PGD-10 at 2/255": robust_accuracy(item)})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m snnlib.companion.ozdenizci2024.search", description=__doc__)
    parser.add_argument("--profile", default="night", help="whose sizes")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with whole CIFAR-10")

    def command() -> int:
        options = parser.parse_args(arguments)
        print(search(conversion_size(options.profile), options.data_dir).to_string(index=False))
        return 0

    return exit_code(command)


if __name__ == "__main__":
    sys.exit(main())
