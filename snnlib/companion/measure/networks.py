"""Train or load a network, attack it or load its rows: what is stored is never computed again."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from snnlib.attacks import ATTACKS
from snnlib.companion.measure.code_imports import imports_of
from snnlib.companion.measure.evaluation import AttackPlan, ThreatModel, attack_rows
from snnlib.companion.measure.store import Artifact, code_digest, load_or_make_rows
from snnlib.companion.profiles import Profile
from snnlib.data import ImageSet, ImageSplits, load_images
from snnlib.models import Model, build_model
from snnlib.runtime import default_device
from snnlib.training import History, Recipe, evaluate_accuracy, fit, load_weights

CURVE_COLUMNS = ("epoch", "loss", "train_accuracy", "validation_accuracy", "learning_rate")


@dataclass(frozen=True)
class Network:
    """A network to train: arguments of `build_model` and of `Recipe`, beside those that the profile sets."""

    label: str
    name: str
    model: dict = field(default_factory=dict)
    recipe: dict = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network at its best epoch on validation. run: the hash that names it in rows and on disk."""

    network: Network
    seed: int
    model: Model
    history: History
    run: str
    splits: ImageSplits
    device: str


def code_of(*modules: str, without: tuple[str, ...] = ()) -> str:
    """Digest of these modules and of all that they import, but for `without` and the registry of attacks.

    A registry leads to every attack: name the module of the one that counts.
    """
    return code_digest(*imports_of(*modules, without=("snnlib.attacks", *without)))


def training_code(attack: str | None = None) -> str:
    """Digest of the code that decides a trained network; of all attacks only the one that it trains on counts."""
    modules = ["snnlib.models.build", "snnlib.training.loop", "snnlib.data.images"]
    if attack is not None:
        modules.append(ATTACKS[attack].__module__)
    return code_of(*modules)


def attack_code(attack: str) -> str:
    """Digest of the code that decides the rows of an attack; an edit of another attack leaves it as it is."""
    return code_of(ATTACKS[attack].__module__, "snnlib.companion.measure.evaluation", "snnlib.data.images")


def inspection_code() -> str:
    """Digest of the code that reads gradients of a trained network."""
    return code_of("snnlib.sparsity", "snnlib.data.images")


@functools.lru_cache(maxsize=4)
def load_profile_images(profile: Profile, data_dir: str | None = None) -> ImageSplits:
    """CIFAR-10 at the size of the profile, loaded once per process."""
    return load_images(
        "cifar10",
        subset=profile.subset,
        data_dir=data_dir,
        train_per_class=profile.train_per_class,
        test_per_class=profile.test_per_class,
    )


def build_network(network: Network, profile: Profile, num_classes: int, seed: int) -> Model:
    """The untrained network, with weights drawn by `seed`."""
    options = {"time_steps": profile.time_steps, "width": profile.width, **network.model}
    return build_model(network.name, num_classes, seed=seed, **options)


def build_recipe(network: Network, profile: Profile, seed: int) -> Recipe:
    """The profile's recipe with the network's own changes."""
    options = {
        "epochs": profile.epochs,
        "batch_size": profile.batch_size,
        "learning_rate": profile.learning_rate,
        "weight_decay": profile.weight_decay,
        "schedule": profile.schedule,
        "augmentation": "flip",
        **network.recipe,
    }
    return Recipe(seed=seed, **options)


def trained(network: Network, profile: Profile, seed: int, data_dir: str | None = None) -> TrainedNetwork:
    """Train the network at the profile's size, or take it from the artifacts; killed runs go on where they stopped."""
    splits = load_profile_images(profile, data_dir)
    model = build_network(network, profile, splits.num_classes, seed)
    return fitted(network, model, build_recipe(network, profile, seed), splits, profile, seed)


def fitted(
    network: Network,
    model: Model,
    recipe: Recipe,
    splits: ImageSplits,
    profile: Profile,
    seed: int,
    origin: dict | None = None,
) -> TrainedNetwork:
    """Train `model` from the weights that it has, or take it from the artifacts. origin: what made those weights."""
    artifact, device = network_artifact(model, recipe, splits.name, profile, origin), default_device()
    history = fit(model, splits, recipe, directory=artifact.path(""), device=device)
    load_weights(history.best, model)
    model.eval()
    return TrainedNetwork(network, seed, model, history, artifact.hash, splits, device)


def network_artifact(
    model: Model, recipe: Recipe, dataset: str, profile: Profile, origin: dict | None = None
) -> Artifact:
    """Where `fitted` keeps the network that these make; asking for it writes nothing."""
    images = {"name": dataset, "subset": profile.subset, "train_per_class": profile.train_per_class}
    code = training_code(None if recipe.attack is None else recipe.attack["name"])
    config = {"model": model.config, "recipe": recipe.as_config(), "data": images, "code": code}
    if origin is not None:
        config["origin"] = origin
    return Artifact("networks", config)


def attacked_images(profile: Profile, splits: ImageSplits) -> ImageSet:
    """The test images that attacks run on: the first of each class."""
    if profile.attacked_per_class is None:
        return splits.test
    return splits.test.first_per_class(profile.attacked_per_class)


def row_options(item: TrainedNetwork, profile: Profile) -> dict:
    """What `attack_rows`, `ensemble_rows` and `adaptive_rows` are told about a trained network and how to run it."""
    return {
        "run": item.run,
        "model_name": item.network.label,
        "dataset": item.splits.name,
        "seed": item.seed,
        "batch_size": profile.attack_batch_size,
        "device": item.device,
    }


def attacked(
    trained_network: TrainedNetwork, profile: Profile, threat: ThreatModel, plans: Iterable[AttackPlan]
) -> pd.DataFrame:
    """Rows of every plan under one threat model; each plan is stored on its own as soon as it is done."""
    image_set = attacked_images(profile, trained_network.splits)

    def make(plan: AttackPlan) -> pd.DataFrame:
        return attack_rows(trained_network.model, image_set, threat, plan, **row_options(trained_network, profile))

    parts = []
    for plan in plans:
        config = {
            "network": trained_network.run,
            "label": trained_network.network.label,
            "threat": vars(threat),
            "plan": plan.as_config(),
            "images": len(image_set),
            "batch_size": profile.attack_batch_size,
            "code": attack_code(plan.attack),
        }
        parts.append(load_or_make_rows("rows", config, functools.partial(make, plan)))
    return pd.concat(parts, ignore_index=True)


def accuracy_rows(networks: Iterable[TrainedNetwork]) -> pd.DataFrame:
    """One row per trained network: best epoch, and accuracy on validation and on the whole test set."""
    rows = []
    for item in networks:
        best = item.history.epochs[item.history.best_epoch - 1]
        rows.append(
            {
                "model": item.network.label,
                "seed": item.seed,
                "run": item.run,
                "best_epoch": item.history.best_epoch,
                "validation_accuracy": best["validation_accuracy"],
                "test_accuracy": evaluate_accuracy(item.model, item.splits.test, device=item.device),
                "test_images": len(item.splits.test),
            }
        )
    return pd.DataFrame(rows)


def training_curves(networks: Iterable[TrainedNetwork]) -> pd.DataFrame:
    """One row per epoch of each network: loss, training and validation accuracy, learning rate.

    The columns are named one by one: a history that was read back from a checkpoint has its keys in another order.
    """
    return pd.DataFrame(
        [
            {"model": item.network.label, "seed": item.seed, **{name: epoch[name] for name in CURVE_COLUMNS}}
            for item in networks
            for epoch in item.history.epochs
        ]
    )
