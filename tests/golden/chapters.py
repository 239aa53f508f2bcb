"""What chapters store beside rows of attacks: the tables of the theorems, zeros at the max pool, an audit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd
from torch import Tensor

from snnlib.audit import AuditReport
from snnlib.audit.report import OUTCOMES
from snnlib.companion.luu2025 import theorems
from snnlib.companion.measure.networks import Network, TrainedNetwork
from snnlib.companion.ours import audit
from snnlib.data import ImageSet, ImageSplits, load_images
from snnlib.models import Model

LEVELS = (0.25, 6)


class Exact(ImageSet):
    """Images that come in float64."""

    def batch(self, index, device="cpu") -> Tensor:
        return super().batch(index, device).double()


def exact(images: ImageSet) -> ImageSet:
    return Exact(images.images, images.labels)


def cases(network: Callable[[str], Model], answers: Callable) -> dict[str, Callable[[], pd.DataFrame]]:
    """network: from an encoder to the model; answers: of a model on images, as labels."""

    def made(make: Callable, *arguments, encoder: str = "direct", **numbers) -> pd.DataFrame:
        model, source = network(encoder), load_images("cifar10").test.first_per_class(1)
        pixels = exact(source.take(slice(0, 3)))
        images = Exact(pixels.images, answers(model, pixels.batch(slice(None))))
        splits = ImageSplits("golden", images, images, images, 10, tuple("abcdefghij"))
        item = TrainedNetwork(Network("golden", "sew_resnet18"), 1, model, None, "golden", splits, "cpu")
        return make.__wrapped__(item, images, *arguments, **numbers)

    bounds = {"draws": 4, "steps": 2, "restarts": 1, "nodes": 2}
    certificate = {"selection": 8, "draws": 20, "alpha": 0.1}
    return {
        "theorem_relaxed": partial(made, theorems._vulnerability, theorems.RELAXED, LEVELS, **bounds),
        "theorem_deployed": partial(made, theorems._vulnerability, theorems.DEPLOYED, LEVELS, **bounds),
        "theorem_ranking": partial(made, theorems._ranking, 2),
        "theorem_dose": partial(made, theorems._dose, (0.25, 1.0), 2),
        "theorem_constancy": partial(made, theorems._constancy, 4),
        "theorem_density": partial(made, theorems._density),
        "theorem_certificates": partial(made, theorems._certificates, (0.01,), **certificate),
        "pool_zeros": partial(made, audit._pool_zeros, encoder="phase"),
        "audit": lambda: audited(made(audit._audited, 1 / 255, "smoke", 3)),
    }


def audited(report: AuditReport) -> pd.DataFrame:
    """Outcome (its place in `OUTCOMES`) and numbers of every finding, and what every attack left."""
    counts = ("tried", "fooled", "left", "forwards", "backwards")
    parts = [(each.name, {"outcome": OUTCOMES.index(each.outcome), **each.numbers}) for each in report.findings]
    parts += [(line.label, {count: getattr(line, count) for count in counts}) for line in report.attacks]
    rows = [(name, what, float(value)) for name, numbers in parts for what, value in numbers.items()]
    return pd.DataFrame(rows, columns=["name", "what", "value"])
