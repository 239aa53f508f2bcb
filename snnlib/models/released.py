"""Networks that come with the package, each with a card: profile `night`'s, trained on the whole CIFAR-10.

They are both seeds of every network that the papers' own claims (L1 to L7, C1 to C6) need, none chosen by its results,
and the one on events on which notebook 17 shows its attacks. Of those of further objectives and other defences only
what was measured is published. Weights are in half precision, and are what
was measured: they were rounded before any number of theirs was taken. Training saw no image of CIFAR-10's test set, to
which the embedded test images belong.
"""

from __future__ import annotations

import json
from pathlib import Path

from snnlib.errors import InputError
from snnlib.models.build import Model
from snnlib.models.saved import load

FOLDER = Path(__file__).parent / "weights"
CARD = ".card.json"


def released_names() -> list[str]:
    """Names that `released` takes, sorted."""
    return sorted(path.name.removesuffix(CARD) for path in FOLDER.glob(f"*{CARD}"))


def released(name: str) -> Model:
    """The released network of that name, in eval mode on the CPU: images [N, 3, 32, 32] in [0, 1] to logits [N, 10].

    Errors: InputError for an unknown name, damaged weights.

    >>> from snnlib import data, models
    >>> test = data.load_images("cifar10").test.first_per_class(2)
    >>> model = models.released("ann-trades-night-0")
    >>> model(test.batch(slice(None))).shape, test.labels.shape
    (torch.Size([20, 10]), torch.Size([20]))
    """
    released_card(name)
    return load(FOLDER / name)


def released_card(name: str) -> dict:
    """How a released network was made and what it is worth: key, recipe, data, seed, made, history, accuracies.

    Errors: InputError for an unknown name.
    """
    path = FOLDER / f"{name}{CARD}"
    if not path.is_file():
        raise InputError(f"released network {name!r}; expected one of: {', '.join(released_names()) or 'none yet'}")
    return json.loads(path.read_text(encoding="utf-8"))
