"""Monte-Carlo certificates: what a smoothed classifier cannot be made to change its mind about.

A certificate speaks of the *smoothed* classifier, "the class that the network names most often under this noise", not
of the network on the clean image, and holds with the stated confidence per image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.inputs import check_count, check_inputs
from snnlib.attacks.keyed_noise import KeyedNoise
from snnlib.errors import InputError
from snnlib.optional import needs
from snnlib.theory.bounds import poisson_distance, poisson_l1_radius
from snnlib.training.accuracy import evaluating

ABSTAIN = -1
BISECTIONS = 40


def clopper_pearson_low(successes: np.ndarray, draws: int, alpha: float) -> np.ndarray:
    """One-sided lower bound of a binomial share: the true share lies below it with probability at most `alpha`.

    **Source:** Clopper & Pearson 1934; the use here: Cohen et al. 2019, section 3.2.2.
    """
    successes = np.asarray(successes)
    inner = needs("scipy.stats", extra="theory").beta.ppf(alpha, np.maximum(successes, 1), draws - successes + 1)
    return np.where(successes == 0, 0.0, inner)


def gaussian_certificate(
    model: nn.Module,
    images: Tensor,
    *,
    sigma: float,
    selection: int = 32,
    draws: int = 256,
    alpha: float = 0.001,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> pd.DataFrame:
    """Randomised smoothing with N(0, sigma²) on the images [N, C, H, W], sigma in pixel units; no clipping.

    `selection` draws choose the class, `draws` further ones bound its probability from below at confidence 1 − alpha.
    Columns: sample, predicted (−1: abstains), count (of that class), draws, alpha, p_low, radius (L2, pixel units; NaN
    where it abstains). Noise is keyed by sample.
    Errors: InputError for numbers that do not fit.
    **Source:** Cohen et al. 2019, theorem 1 and procedure CERTIFY.
    """
    if not (isinstance(sigma, int | float) and math.isfinite(sigma) and sigma > 0):
        raise InputError(f"sigma is {sigma!r}; expected a finite number above 0, in pixel units; e.g. 0.12")

    def noisy(image: Tensor, generators: list[torch.Generator]) -> Tensor:
        return torch.stack([image + sigma * torch.randn(image.shape, generator=own) for own in generators])

    table = _certificate(model, images, noisy, model, selection, draws, alpha, generator, batch_size)
    radius = [sigma * NormalDist().inv_cdf(p) if p > 0.5 else math.nan for p in table.p_low]
    return table.assign(radius=radius)


def poisson_certificate(
    model: nn.Module,
    images: Tensor,
    *,
    time_steps: int,
    selection: int = 32,
    draws: int = 256,
    alpha: float = 0.001,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> pd.DataFrame:
    """Poisson coding as smoothing: `model.body` on spikes that fall with probability x at each of `time_steps` steps.

    The classifier certified is "the class that the body names most often over the draws of the code", at confidence
    1 − alpha per image. Columns as in `gaussian_certificate`; radius is an L1 radius (sum over pixels of the change, in
    pixel units), linf the largest eps for which every image within eps is certified, both from O6.
    Errors: InputError for a model without body, or numbers that do not fit.
    **Source:** ours (O6).
    """
    check_count("time_steps", time_steps)
    if not hasattr(model, "body"):
        raise InputError(f"{type(model).__name__} has no .body; expected a model whose encoder can be replaced")

    def encoded(image: Tensor, generators: list[torch.Generator]) -> Tensor:
        thresholds = [torch.rand((time_steps, *image.shape), generator=own) for own in generators]
        return (torch.stack(thresholds) < image).to(image.dtype)

    def body(spikes: Tensor) -> Tensor:
        return model.body(spikes.transpose(0, 1).contiguous())

    table = _certificate(model, images, encoded, body, selection, draws, alpha, generator, batch_size)
    p_low = torch.tensor(table.p_low.to_list(), dtype=torch.float64)
    radius = poisson_l1_radius(p_low, time_steps).numpy()
    return table.assign(radius=radius, linf=_linf_radius(images.cpu(), p_low, time_steps).numpy())


def certified_accuracy(table: pd.DataFrame, labels: Tensor, radii: list[float], column: str = "radius") -> pd.DataFrame:
    """Share of the images that are predicted correctly *and* certified at each radius: one row per radius.

    Columns: radius, certified (share), images.
    """
    right = table.predicted.to_numpy() == labels.cpu().numpy()
    rows = [
        {"radius": radius, "certified": float((right & (table[column] >= radius)).mean()), "images": len(table)}
        for radius in radii
    ]
    return pd.DataFrame(rows)


def _certificate(
    model: nn.Module,
    images: Tensor,
    noisy: Callable[[Tensor, list[torch.Generator]], Tensor],
    classify: Callable[[Tensor], Tensor],
    selection: int,
    draws: int,
    alpha: float,
    generator: torch.Generator | None,
    batch_size: int,
) -> pd.DataFrame:
    check_inputs(model, images, torch.zeros(len(images), dtype=torch.int64), Budget(0), generator)
    for name, value in (("selection", selection), ("draws", draws), ("batch_size", batch_size)):
        check_count(name, value)
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha!r}; expected a risk between 0 and 1; use 0.001")
    keyed = KeyedNoise(images.float(), generator)
    predicted, counts = [], []
    with evaluating(model):
        for number, image in enumerate(images):
            votes = []
            for start in range(0, selection + draws, batch_size):
                rows = range(start, min(start + batch_size, selection + draws))
                own = [keyed.generators([number], row)[0] for row in rows]
                votes.append(classify(noisy(image.cpu(), own).to(images.device)).argmax(1).cpu())
            votes = torch.cat(votes)
            chosen = int(votes[:selection].bincount().argmax())
            predicted.append(chosen)
            counts.append(int((votes[selection:] == chosen).sum()))
    p_low = clopper_pearson_low(np.array(counts), draws, alpha)
    kept = np.where(p_low > 0.5, predicted, ABSTAIN)
    columns = {"sample": range(len(images)), "predicted": kept, "count": counts, "draws": draws}
    return pd.DataFrame({**columns, "alpha": alpha, "p_low": p_low})


def _linf_radius(images: Tensor, p_low: Tensor, time_steps: int) -> Tensor:
    """Largest eps at which the worst image of the L∞ ball in the box stays certified: bisection, from below; [N].

    Per pixel both distances grow with |x' − x| on either side, so the worst x' takes x ± eps, clipped; which side is
    the worse one for the Bhattacharyya coefficient is looked up pixel by pixel.
    """
    low, high = torch.zeros(len(images), dtype=torch.float64), torch.ones(len(images), dtype=torch.float64)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        certified = _worst_distance(images.double(), middle, time_steps) < p_low - 0.5
        low, high = torch.where(certified, middle, low), torch.where(certified, high, middle)
    return torch.where(p_low > 0.5, low, torch.nan)


def _worst_distance(x: Tensor, eps: Tensor, time_steps: int) -> Tensor:
    """The smaller of the two bounds of `poisson_distance` at its own worst corner of the ball: [N]."""
    eps = eps.view(-1, *[1] * (x.dim() - 1))
    down, up = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    farther = torch.where(up - x >= x - down, up, down)
    overlaps = [(x * other).sqrt() + ((1 - x) * (1 - other)).sqrt() for other in (down, up)]
    duller = torch.where(overlaps[0] <= overlaps[1], down, up)
    return torch.minimum(poisson_distance(x, farther, time_steps)[0], poisson_distance(x, duller, time_steps)[1])
