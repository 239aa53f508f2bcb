"""At what size and on which machines published numbers were made, in words."""

from __future__ import annotations

import json
from collections import Counter

from snnlib.companion import paths
from snnlib.companion.measure.archive import read_published
from snnlib.companion.measure.release import profile_of
from snnlib.companion.report import gallery
from snnlib.companion.report.figures import read_manifest_in
from snnlib.companion.sizes import Profile, conversion_size, get_profile
from snnlib.models import released_card, released_names

TRAINING_IMAGES = {"embedded": 5_000, "whole": 50_000}
TEST_IMAGES = {"embedded": 1_000, "whole": 10_000}
CLASSES = 10


def training_images(size: Profile) -> int:
    """CIFAR-10 images that networks of this size are trained on, those for validation included."""
    return CLASSES * size.train_per_class if size.train_per_class else TRAINING_IMAGES[size.subset]


def attacked_images(size: Profile) -> int:
    """Test images of CIFAR-10 that attacks run on."""
    return CLASSES * size.attacked_per_class if size.attacked_per_class else TEST_IMAGES[size.subset]


def size_line(profile: str) -> str:
    """Widths, seeds, images trained on and attacked: of the first paper's networks and the second's."""
    first, second = get_profile(profile), conversion_size(profile).profile
    widths, seeds = {first.width, second.width}, {len(first.seeds), len(second.seeds)}
    trained, attacked = ({images(first), images(second)} for images in (training_images, attacked_images))
    word = "seed" if seeds == {1} else "seeds"
    return (
        f"networks of width {_listed(widths, ' and ')}, {_listed(seeds, ' to ')} {word}, trained on "
        f"{_listed(trained, ' or ')} images of CIFAR-10, attacked on {_listed(attacked, ' to ')} others"
    )


def machines_line(profile: str) -> str:
    """Where the released networks were trained, and the published rows of attacks measured."""
    cards = [released_card(name) for name in released_names() if profile_of(name) == profile]
    trained = Counter(_machine(card["made"]["device"]) for card in cards)
    attacked = Counter(_machine(json.loads(made)["device"]) for made in read_published(profile)[0].made)
    parts = ((f"{len(cards)} released networks trained on", trained), ("attacks run on", attacked))
    return ", ".join(f"{what} {_shares(counts)}" for what, counts in parts if counts)


def not_run(profile: str) -> list[str]:
    """Numbers of the notebooks that are not published at this profile."""
    published = read_manifest_in(paths.published_dir(profile), profile)["notebooks"]
    return [chapter.number for chapter in gallery.chapters() if chapter.number not in published]


def _machine(device: str) -> str:
    """"cuda: NVIDIA H200" -> "an NVIDIA H200"; any CPU is "a CPU"."""
    return "a CPU" if device.startswith("cpu") else f"an {device.rpartition(': ')[2]}"


def _shares(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return " and ".join(f"{name} ({count} of {counts.total()})" for name, count in counts.most_common())


def _listed(numbers: set[int], joint: str) -> str:
    return joint.join(f"{number:,}" for number in sorted(numbers))
