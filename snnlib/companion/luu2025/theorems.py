"""The theorems on trained networks: sizes, and the rows behind notebook 16.

Networks with phase coding are looked at on the encoded side, where the authors attack: the image enters through a step
that has no derivative. The defended network has direct coding and is looked at on images.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from snnlib.companion.luu2025.networks import HEADLINE_EPS, NETWORKS, trained_networks
from snnlib.companion.measure.networks import TrainedNetwork, attacked_images
from snnlib.companion.measure.store import stored
from snnlib.companion.sizes import Profile, theory_size
from snnlib.data import ImageSet
from snnlib.models.build import parse_surrogate
from snnlib.neurons import use_kernel
from snnlib.sparsity import l0, l1
from snnlib.theory.certificate import certified_accuracy, gaussian_certificate, poisson_certificate
from snnlib.theory.checks import check_circulation
from snnlib.theory.constancy import constancy_radius
from snnlib.theory.density import weight_gradient_density
from snnlib.theory.functions import Restricted, TrueClassProbability
from snnlib.theory.measured import vulnerability_table
from snnlib.theory.vulnerability import adversarial_vulnerability

KEYS = ("sew_max", "sew_avg", "defended")
"""Networks of notebook 10 that the theorems are put to."""
CERTIFIED = "defended"
OTHER_SURROGATE = "piecewise_linear(width=1)"
"""The attacker's second choice beside the training surrogate; the third is the gradient of the relaxation."""
FIRST_ORDER_EPS = 0.25 / 255
RELAXED, DEPLOYED = "relaxation", "deployed"


def theory_networks(profile: Profile, data_dir: str | None = None) -> list[TrainedNetwork]:
    """The networks of `KEYS` for every seed of the profile, trained or loaded."""
    return trained_networks(profile, KEYS, data_dir)


def certified_network(networks: Sequence[TrainedNetwork]) -> TrainedNetwork:
    """The network that certificates are computed for, at its first seed."""
    return next(item for item in networks if item.network.label == NETWORKS[CERTIFIED].label)


def space_of(item: TrainedNetwork) -> str:
    """Where the network's input enters it without a step: "image" for direct coding, else "encoded"."""
    return "image" if "exact" in item.model.encoder.gradients else "encoded"


def _eagerly(make: Callable[..., pd.DataFrame]) -> Callable[..., pd.DataFrame]:
    """Few passes by many variants of the neuron: on a CPU the compiler would take longer than they do."""

    @functools.wraps(make)
    def wrapped(item: TrainedNetwork, *arguments, **options) -> pd.DataFrame:
        with use_kernel("reference" if item.device == "cpu" else "auto"):
            return make(item, *arguments, **options)

    return wrapped


def _named(item: TrainedNetwork, table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(model=item.label, seed=item.seed)


def vulnerability_rows(item: TrainedNetwork, profile: Profile, which: str) -> pd.DataFrame:
    """`vulnerability_table` of the relaxation or of the deployed network, with eps255 and value = f_y(x).

    The deployed network is attacked by its training surrogate, by another one, and by the gradient of its relaxation.
    """
    size = theory_size(profile.name)
    levels = size.relaxed_eps if which == RELAXED else size.deployed_eps
    numbers = {"draws": size.draws, "steps": size.steps, "restarts": size.restarts, "nodes": size.nodes}
    return _named(item, _vulnerability(item, _first(item, profile, size.samples), which, levels, **numbers))


@stored("theory_vulnerability", version=2)
@_eagerly
def _vulnerability(item: TrainedNetwork, images: ImageSet, which: str, levels: tuple, **numbers: int) -> pd.DataFrame:
    function, attackers = _function(item, images, which)
    eps = [level / 255 for level in levels]
    table = vulnerability_table(function, eps, attackers=attackers, generator=_generator(item), **numbers)
    value = np.tile(function.value.cpu().numpy(), len(levels))
    return table.assign(eps255=255 * table.eps, value=value, network_is=which)


def ranking_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """ρ_adv of the deployed network at the headline eps beside the norms of its surrogate gradient, per sample.

    Climbed and descended from the corner of each attacker's own gradient; no random starts.
    """
    size = theory_size(profile.name)
    return _named(item, _ranking(item, _first(item, profile, size.ranked), size.steps))


@stored("theory_ranking")
@_eagerly
def _ranking(item: TrainedNetwork, images: ImageSet, steps: int) -> pd.DataFrame:
    function, attackers = _function(item, images, DEPLOYED)
    found = adversarial_vulnerability(function, HEADLINE_EPS, attackers=attackers, steps=steps)
    norms = {"l0": l0(function.gradient), "l1_squared": l1(function.gradient).square()}
    norms["l2_squared"] = function.gradient.flatten(1).square().sum(1)
    columns = {"value": function.value, "rho_adv": found.value, **norms}
    return pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})


def dose_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """ρ_adv when only a random share of the coordinates may move: ‖g‖₀ set by hand. Smaller sets lie in larger ones.

    At an eps where first order holds (on the relaxation), and at the headline eps (deployed).
    """
    size = theory_size(profile.name)
    return _named(item, _dose(item, _first(item, profile, size.dosed), size.shares, size.steps))


@stored("theory_dose")
@_eagerly
def _dose(item: TrainedNetwork, images: ImageSet, shares: tuple, steps: int) -> pd.DataFrame:
    rows = []
    for which, eps in ((RELAXED, FIRST_ORDER_EPS), (DEPLOYED, HEADLINE_EPS)):
        function, _ = _function(item, images, which)
        order = torch.rand(function.x.shape[1:], generator=_generator(item))
        order = order.flatten().argsort().argsort().view(1, *function.x.shape[1:]).to(function.x.device)
        worst = torch.zeros(len(function.x), dtype=torch.float64, device=function.x.device)
        for share in shares:
            part = Restricted(function, order < share * order.numel())
            # The sets are nested: what was found with fewer coordinates stays within reach.
            worst = torch.maximum(worst, adversarial_vulnerability(part, eps, steps=steps).value)
            values = {"nonzeros": l0(part.gradient), "l1": l1(part.gradient), "rho_adv": worst}
            table = pd.DataFrame({name: column.cpu().numpy() for name, column in values.items()})
            rows.append(table.assign(sample=range(len(table)), network_is=which, eps255=255 * eps, share=share))
    return pd.concat(rows, ignore_index=True)


def constancy_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """P4's radius, and O5's circulation for the deployed network and its relaxation at 1/255: one row per sample.

    gradient_cosine: between the deployed network's surrogate gradient and the gradient of its relaxation, which read
    the same surrogate at other membranes.
    """
    size = theory_size(profile.name)
    return _named(item, _constancy(item, _first(item, profile, size.samples), 2 * size.nodes))


@stored("theory_constancy")
@_eagerly
def _constancy(item: TrainedNetwork, images: ImageSet, nodes: int) -> pd.DataFrame:
    radius = constancy_radius(item.model, *_on_device(item, images), space=space_of(item))
    circulation, gradients = {}, []
    for which in (RELAXED, DEPLOYED):
        function, _ = _function(item, images, which)
        circulation[f"circulation_{which}"] = check_circulation(function, 1 / 255, nodes=nodes).table.circulation
        gradients.append(function.gradient.flatten(1))
    circulation["gradient_cosine"] = F.cosine_similarity(*gradients).cpu().numpy()
    return pd.DataFrame({"radius255": 255 * radius.cpu().numpy()}).assign(**circulation)


def density_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """`weight_gradient_density` per sample (BatchNorm in eval) and for the batch in eval and in train mode."""
    return _named(item, _density(item, _first(item, profile, theory_size(profile.name).inspected)))


@stored("theory_density")
@_eagerly
def _density(item: TrainedNetwork, images: ImageSet) -> pd.DataFrame:
    parts = []
    for per, mode in (("sample", "eval"), ("batch", "eval"), ("batch", "train")):
        table = weight_gradient_density(item.model, *_on_device(item, images), per=per, batch_norm=mode)
        parts.append(table.assign(per=per, batch_norm=mode))
    return pd.concat(parts, ignore_index=True)


def certificate_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Certificates of the first test images: Gaussian smoothing at every sigma, and Poisson coding of the body.

    Columns of `gaussian_certificate`, with label, smoothing ("gaussian", "poisson"), sigma (0 for Poisson), linf.
    """
    size = theory_size(profile.name)
    numbers = {"selection": size.selection, "draws": size.certificate_draws, "alpha": size.alpha}
    return _named(item, _certificates(item, _first(item, profile, size.certified), size.sigmas, **numbers))


@stored("theory_certificates")
@_eagerly
def _certificates(item: TrainedNetwork, images: ImageSet, sigmas: tuple, **numbers: float) -> pd.DataFrame:
    pixels, labels = _on_device(item, images)
    common = {**numbers, "generator": _generator(item)}
    parts = [
        gaussian_certificate(item.model, pixels, sigma=sigma, **common).assign(smoothing="gaussian", sigma=sigma)
        for sigma in sigmas
    ]
    poisson = poisson_certificate(item.model, pixels, time_steps=item.model.encoder.time_steps, **common)
    parts.append(poisson.assign(smoothing="poisson", sigma=0.0))
    return pd.concat([part.assign(label=labels.cpu().numpy()) for part in parts], ignore_index=True)


def certified_curve(rows: pd.DataFrame, radii: Sequence[float]) -> pd.DataFrame:
    """Share of the images predicted correctly and certified at each radius; `rows` of one smoothing."""
    return certified_accuracy(rows, torch.tensor(rows.label.to_list()), list(radii))


def _function(
    item: TrainedNetwork, images: ImageSet, which: str
) -> tuple[TrueClassProbability, list[TrueClassProbability]]:
    """f_y of the relaxation or the deployed network, and whose gradients lead the attack on it."""
    space, point = space_of(item), _on_device(item, images)
    smooth = TrueClassProbability(item.model, *point, space=space, relax=True)
    if which == RELAXED:
        return smooth, [smooth]
    deployed = TrueClassProbability(item.model, *point, space=space)
    other = TrueClassProbability(item.model, *point, space=space, surrogate=parse_surrogate(OTHER_SURROGATE))
    return deployed, [deployed, other, smooth]


def _first(item: TrainedNetwork, profile: Profile, count: int) -> ImageSet:
    """The first `count` attacked test images, classes in turn."""
    return attacked_images(profile, item.splits).take(slice(0, count))


def _on_device(item: TrainedNetwork, images: ImageSet) -> tuple[Tensor, Tensor]:
    return images.batch(slice(None), item.device), images.labels.to(item.device)


def _generator(item: TrainedNetwork) -> torch.Generator:
    return torch.Generator().manual_seed(item.seed)
