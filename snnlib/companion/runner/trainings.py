"""Train every network of a profile, one after the other, and nothing else: the long part of a night.

`python -m snnlib.companion.runner.trainings --profile night --data-dir DIR --time-limit 100m --release`. Finished
networks are skipped, a training that was cut short goes on. `--release` puts finished networks into the package.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator

from snnlib.commands import OneLineParser, exit_code
from snnlib.companion.luu2025 import networks as luu2025
from snnlib.companion.measure.networks import OutOfTime, TrainedNetwork, trained
from snnlib.companion.measure.release import release, released_keys
from snnlib.companion.ozdenizci2024 import networks as conversion
from snnlib.companion.runner.run import seconds_of
from snnlib.companion.sizes import conversion_size, get_profile


def trainings(profile_name: str, data_dir: str | None) -> Iterator[tuple[str, Callable[[], TrainedNetwork]]]:
    """Label and function of every network: seed by seed, the conversion chapter first, each after what it starts from.
    """
    profile, size = get_profile(profile_name), conversion_size(profile_name)
    for seed in size.profile.seeds:
        for objective in ("trades", "natural", "adversarial", "mart"):
            yield f"ANN, {objective}, {seed}", functools.partial(conversion.ann, objective, size, seed, data_dir)
            tune = functools.partial(conversion.finetuned, objective, size, seed, data_dir)
            yield f"SNN from {objective}, {seed}", tune
        for comparison in size.end_to_end_epochs:
            yield f"end to end, {seed}", functools.partial(conversion.end_to_end, comparison, size, seed, data_dir)
        for how in conversion.ABLATIONS.values():
            yield f"ablation, {seed}", functools.partial(conversion.finetuned, "trades", size, seed, data_dir, how)
    for seed in profile.seeds:
        for network in luu2025.NETWORKS.values():
            yield f"{network.label}, {seed}", functools.partial(trained, network, profile, seed, data_dir)


def main(arguments: list[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m snnlib.companion.runner.trainings", description=__doc__, allow_abbrev=False)
    parser.add_argument("--profile", default="night", help="whose networks")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with whole CIFAR-10")
    parser.add_argument("--time-limit", metavar="100m", help="stop cleanly when a further epoch would end later")
    parser.add_argument("--release", action="store_true", help="put finished networks into the package")

    def command() -> int:
        options = parser.parse_args(arguments)
        if options.time_limit:
            os.environ["SNNLIB_DEADLINE"] = str(time.time() + seconds_of(options.time_limit))
        return train_all(options.profile, options.data_dir, options.release)

    return exit_code(command, interrupted="interrupted; the next start continues here")


def train_all(profile_name: str, data_dir: str | None, releases: bool) -> int:
    """Train what is missing; 0 when all is done, 3 when the time limit came first."""
    work = list(trainings(profile_name, data_dir))
    for place, (label, train) in enumerate(work, start=1):
        try:
            item = train()
        except OutOfTime as stop:
            print(f"[{place}/{len(work)}] {stop}; {len(work) - place + 1} networks are left", flush=True)
            return 3
        best = item.history.epochs[item.history.best_epoch - 1]["validation_accuracy"]
        named = release(item, profile_name) if releases and item.key not in released_keys() else ""
        print(f"[{place}/{len(work)}] {label}: validation {best:.1%} {named}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
