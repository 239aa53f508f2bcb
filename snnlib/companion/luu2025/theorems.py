"""The theorems on trained networks: sizes, and the rows behind notebook 16.

Networks with phase coding are looked at on the encoded side, where the authors attack: the image enters through a step
that has no derivative. The defended network has direct coding and is looked at on images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from snnlib.companion.luu2025.networks import HEADLINE_EPS, NETWORKS, trained_networks
from snnlib.companion.measure.networks import TrainedNetwork, attacked_images, code_of
from snnlib.companion.measure.store import load_or_make_rows
from snnlib.companion.profiles import Profile
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


@dataclass(frozen=True)
class TheorySizes:
    """Sizes of the chapter. eps in 1/255.

    samples: images per network and eps in the vulnerability tables; ranked: images for rank correlations; draws: of
    noise; steps, restarts: of the attack, per attacker and direction; nodes: places along a segment; shares: of the
    coordinates that may move, smallest first; dosed: images for that. inspected: images for weight gradients. certified
    images with `selection` and `certificate_draws` draws each, at every sigma (pixel units), and for Poisson codes.
    """

    samples: int
    ranked: int
    draws: int
    steps: int
    restarts: int
    nodes: int
    relaxed_eps: tuple[float, ...]
    deployed_eps: tuple[float, ...]
    shares: tuple[float, ...]
    dosed: int
    inspected: int
    certified: int
    selection: int
    certificate_draws: int
    sigmas: tuple[float, ...]
    alpha: float = 0.001


SIZES = {
    "smoke": TheorySizes(
        samples=2,
        ranked=4,
        draws=8,
        steps=2,
        restarts=1,
        nodes=2,
        relaxed_eps=(0.25, 6),
        deployed_eps=(1e-4, 6),
        shares=(1 / 16, 1.0),
        dosed=2,
        inspected=2,
        certified=4,
        selection=8,
        certificate_draws=40,
        sigmas=(0.06,),
    ),
    "quick": TheorySizes(
        samples=6,
        ranked=30,
        draws=24,
        steps=4,
        restarts=2,
        nodes=3,
        relaxed_eps=(0.25, 1, 3, 8),
        deployed_eps=(1e-4, 0.25, 6),
        shares=(1 / 64, 1 / 16, 1 / 4, 1.0),
        dosed=6,
        inspected=10,
        certified=50,
        selection=20,
        certificate_draws=200,
        sigmas=(0.06, 0.12),
    ),
    "paper": TheorySizes(
        samples=100,
        ranked=1000,
        draws=256,
        steps=40,
        restarts=5,
        nodes=16,
        relaxed_eps=(0.05, 0.1, 0.25, 0.5, 1, 2, 4, 6, 8),
        deployed_eps=(1e-4, 0.05, 0.25, 0.5, 1, 2, 4, 6, 8),
        shares=(1 / 1024, 1 / 256, 1 / 64, 1 / 16, 1 / 4, 1.0),
        dosed=100,
        inspected=100,
        certified=500,
        selection=100,
        certificate_draws=10_000,
        sigmas=(0.06, 0.12, 0.25),
    ),
}


def sizes_of(profile: Profile) -> TheorySizes:
    """The chapter's sizes in a profile; those of "smoke" for one that is not in the list, as in tests."""
    return SIZES.get(profile.name, SIZES["smoke"])


def theory_networks(profile: Profile, data_dir: str | None = None) -> list[TrainedNetwork]:
    """The networks of `KEYS` for every seed of the profile, trained or loaded."""
    return trained_networks(profile, KEYS, data_dir)


def certified_network(networks: Sequence[TrainedNetwork]) -> TrainedNetwork:
    """The network that certificates are computed for, at its first seed."""
    return next(item for item in networks if item.network.label == NETWORKS[CERTIFIED].label)


def space_of(item: TrainedNetwork) -> str:
    """Where the network's input enters it without a step: "image" for direct coding, else "encoded"."""
    return "image" if "exact" in item.model.encoder.gradients else "encoded"


def vulnerability_rows(item: TrainedNetwork, profile: Profile, which: str) -> pd.DataFrame:
    """`vulnerability_table` of the relaxation or of the deployed network, with eps255 and value = f_y(x).

    The deployed network is attacked by its training surrogate, by another one, and by the gradient of its relaxation.
    """
    size = sizes_of(profile)
    levels = size.relaxed_eps if which == RELAXED else size.deployed_eps

    def make() -> pd.DataFrame:
        images, labels = _first(item, profile, size.samples)
        function, attackers = _function(item, images, labels, which)
        table = vulnerability_table(
            function,
            [level / 255 for level in levels],
            attackers=attackers,
            draws=size.draws,
            steps=size.steps,
            restarts=size.restarts,
            nodes=size.nodes,
            generator=_generator(item),
        )
        value = np.tile(function.value.cpu().numpy(), len(levels))
        return table.assign(eps255=255 * table.eps, value=value, network_is=which)

    config = {"which": which, "levels": levels}
    return _stored("theory_vulnerability", item, profile, config, "snnlib.theory.measured", make)


def ranking_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """ρ_adv of the deployed network at the headline eps beside the norms of its surrogate gradient, per sample.

    Climbed and descended from the corner of each attacker's own gradient; no random starts.
    """
    size = sizes_of(profile)

    def make() -> pd.DataFrame:
        images, labels = _first(item, profile, size.ranked)
        function, attackers = _function(item, images, labels, DEPLOYED)
        found = adversarial_vulnerability(
            function,
            HEADLINE_EPS,
            attackers=attackers,
            steps=size.steps,
        )
        norms = {"l0": l0(function.gradient), "l1_squared": l1(function.gradient).square()}
        norms["l2_squared"] = function.gradient.flatten(1).square().sum(1)
        columns = {"value": function.value, "rho_adv": found.value, **norms}
        return pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})

    return _stored("theory_ranking", item, profile, {}, "snnlib.theory.vulnerability", make)


def dose_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """ρ_adv when only a random share of the coordinates may move: ‖g‖₀ set by hand. Smaller sets lie in larger ones.

    At an eps where first order holds (on the relaxation), and at the headline eps (deployed).
    """
    size = sizes_of(profile)

    def make() -> pd.DataFrame:
        images, labels = _first(item, profile, size.dosed)
        rows = []
        for which, eps in ((RELAXED, FIRST_ORDER_EPS), (DEPLOYED, HEADLINE_EPS)):
            function, _ = _function(item, images, labels, which)
            order = torch.rand(function.x.shape[1:], generator=torch.Generator().manual_seed(item.seed))
            order = order.flatten().argsort().argsort().view(1, *function.x.shape[1:]).to(function.x.device)
            worst = torch.zeros(len(function.x), dtype=torch.float64, device=function.x.device)
            for share in size.shares:
                part = Restricted(function, order < share * order.numel())
                # The sets are nested: what was found with fewer coordinates stays within reach.
                worst = torch.maximum(worst, adversarial_vulnerability(part, eps, steps=size.steps).value)
                values = {"nonzeros": l0(part.gradient), "l1": l1(part.gradient), "rho_adv": worst}
                table = pd.DataFrame({name: column.cpu().numpy() for name, column in values.items()})
                rows.append(table.assign(sample=range(len(table)), network_is=which, eps255=255 * eps, share=share))
        return pd.concat(rows, ignore_index=True)

    return _stored("theory_dose", item, profile, {}, "snnlib.theory.vulnerability", make)


def constancy_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """P4's radius, and O5's circulation for the deployed network and its relaxation at 1/255: one row per sample.

    gradient_cosine: between the deployed network's surrogate gradient and the gradient of its relaxation, which read
    the same surrogate at other membranes.
    """
    size = sizes_of(profile)

    def make() -> pd.DataFrame:
        images, labels = _first(item, profile, size.samples)
        radius = constancy_radius(item.model, images, labels, space=space_of(item))
        circulation, gradients = {}, []
        for which in (RELAXED, DEPLOYED):
            function, _ = _function(item, images, labels, which)
            result = check_circulation(function, 1 / 255, nodes=2 * size.nodes)
            circulation[f"circulation_{which}"] = result.table.circulation
            gradients.append(function.gradient.flatten(1))
        circulation["gradient_cosine"] = F.cosine_similarity(*gradients).cpu().numpy()
        return pd.DataFrame({"radius255": 255 * radius.cpu().numpy()}).assign(**circulation)

    return _stored("theory_constancy", item, profile, {}, "snnlib.theory.checks", make)


def density_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """`weight_gradient_density` per sample (BatchNorm in eval) and for the batch in eval and in train mode."""
    size = sizes_of(profile)

    def make() -> pd.DataFrame:
        images, labels = _first(item, profile, size.inspected)
        cases = (("sample", "eval"), ("batch", "eval"), ("batch", "train"))
        parts = []
        for per, mode in cases:
            table = weight_gradient_density(item.model, images, labels, per=per, batch_norm=mode)
            parts.append(table.assign(per=per, batch_norm=mode))
        return pd.concat(parts, ignore_index=True)

    return _stored("theory_density", item, profile, {}, "snnlib.theory.density", make)


def certificate_rows(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """Certificates of the first test images: Gaussian smoothing at every sigma, and Poisson coding of the body.

    Columns of `gaussian_certificate`, with label, smoothing ("gaussian", "poisson"), sigma (0 for Poisson), linf.
    """
    size = sizes_of(profile)

    def make() -> pd.DataFrame:
        images, labels = _first(item, profile, size.certified)
        common = {"selection": size.selection, "draws": size.certificate_draws, "alpha": size.alpha}
        common["generator"] = _generator(item)
        parts = [
            gaussian_certificate(item.model, images, sigma=sigma, **common).assign(smoothing="gaussian", sigma=sigma)
            for sigma in size.sigmas
        ]
        steps = item.model.encoder.time_steps
        poisson = poisson_certificate(item.model, images, time_steps=steps, **common)
        parts.append(poisson.assign(smoothing="poisson", sigma=0.0))
        return pd.concat([part.assign(label=labels.cpu().numpy()) for part in parts], ignore_index=True)

    return _stored("theory_certificates", item, profile, {}, "snnlib.theory.certificate", make)


def certified_curve(rows: pd.DataFrame, radii: Sequence[float]) -> pd.DataFrame:
    """Share of the images predicted correctly and certified at each radius; `rows` of one smoothing."""
    return certified_accuracy(rows, torch.tensor(rows.label.to_list()), list(radii))


def _function(
    item: TrainedNetwork, images: Tensor, labels: Tensor, which: str
) -> tuple[TrueClassProbability, list[TrueClassProbability]]:
    """f_y of the relaxation or the deployed network, and whose gradients lead the attack on it."""
    space = space_of(item)
    smooth = TrueClassProbability(item.model, images, labels, space=space, relax=True)
    if which == RELAXED:
        return smooth, [smooth]
    deployed = TrueClassProbability(item.model, images, labels, space=space)
    other = TrueClassProbability(item.model, images, labels, space=space, surrogate=parse_surrogate(OTHER_SURROGATE))
    return deployed, [deployed, other, smooth]


def _first(item: TrainedNetwork, profile: Profile, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` attacked test images, classes in turn, with labels, on the network's device."""
    chosen = attacked_images(profile, item.splits)
    index = torch.arange(min(count, len(chosen)))
    return chosen.batch(index, item.device), chosen.labels[index].to(item.device)


def _generator(item: TrainedNetwork) -> torch.Generator:
    return torch.Generator().manual_seed(item.seed)


def _stored(
    kind: str, item: TrainedNetwork, profile: Profile, config: dict, module: str, make: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """A table of one network, stored; with its label and seed."""
    modules = (module, "snnlib.models.build", "snnlib.data.images", "snnlib.companion.luu2025.theorems")
    config = {
        "network": item.run,
        "label": item.network.label,
        "sizes": asdict(sizes_of(profile)),
        "attacked_per_class": profile.attacked_per_class,
        "code": code_of(*modules, without=("snnlib.companion.luu2025.networks",)),
        **config,
    }

    def make_with_names() -> pd.DataFrame:
        # Few passes by many variants of the neuron: on a CPU the compiler would take longer than they do.
        with use_kernel("reference" if item.device == "cpu" else "auto"):
            return make().assign(model=item.network.label, seed=item.seed)

    return load_or_make_rows(kind, config, make_with_names)
