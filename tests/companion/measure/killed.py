"""Run as a script: train and attack a small network, killed at random moments, until it is done; twice, and compare.

Prints one line per difference between the files of a run that was killed again and again and one that was not.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch._dynamo  # the first optimiser would import it, in every process anew

from snnlib.companion import paths
from snnlib.companion.measure import networks
from snnlib.companion.measure.attacked import IMAGE, Attack, attacked
from snnlib.companion.sizes import get_profile
from snnlib.data import ImageSet, ImageSplits
from snnlib.neurons import use_kernel

MEMBERS = ("piecewise_linear(width=1, height=1)", "straight_through(height=1)")
RESULTS = (".parquet", ".safetensors")


def images(count: int, seed: int) -> ImageSet:
    """16x16 images of three classes that differ in brightness."""
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 120, (count, 3, 16, 16), generator=torch.Generator().manual_seed(seed))
    return ImageSet((noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)


def work() -> None:
    """Two networks and their rows, stored under `paths.ARTIFACTS`."""
    splits = ImageSplits("made-up", images(36, 1), images(9, 2), images(12, 3), 3, ("dark", "grey", "bright"))
    networks.load_profile_images = lambda profile, data_dir=None: splits
    toy = {"width": 8, "time_steps": 2, "epochs": 3, "batch_size": 12, "attack_batch_size": 4}
    profile = replace(get_profile("smoke"), **toy)
    options = {"options": {"steps": 3}}
    attacks = [Attack("fgsm", 8 / 255), Attack("pgd", 8 / 255, **options)]
    attacks += [Attack("pgd", 8 / 255, IMAGE, members=MEMBERS, **options)]
    with use_kernel("reference"):
        for seed in (0, 1):
            item = networks.trained(networks.Network("SEW", "sew_resnet18"), profile, seed)
            attacked(item, attacks, networks.attacked_images(profile, splits), profile.attack_batch_size)


def started(folder: Path) -> int:
    """The number of a process that works on `folder`; forked, so that the libraries are loaded once."""
    process = os.fork()
    if process == 0:
        try:
            paths.ARTIFACTS = folder
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    return process


def results(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.suffix in RESULTS}


def main(kills: int) -> int:
    torch.set_num_threads(1)
    gc.freeze()  # no collection in a child copies what it shares
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name, "whole"), Path(name, "killed")
        begin = time.monotonic()
        _, status = os.waitpid(started(whole), 0)
        seconds, died = time.monotonic() - begin, 0
        for _ in range(kills):
            process = started(killed)
            # Most moments early: every start skips what an earlier one has finished.
            time.sleep(draw.uniform(0.05, seconds / 3))
            os.kill(process, signal.SIGKILL)
            died += os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
        _, last = os.waitpid(started(killed), 0)
        one, other = results(whole), results(killed)
        differing = [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
        leftovers = [path.name for path in killed.rglob("*.part")]
    print(f"{died} of {kills} died in mid-work; {len(one)} files; differing: {differing}; left over: {len(leftovers)}")
    return 1 if status or last or differing or not one or not died else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
