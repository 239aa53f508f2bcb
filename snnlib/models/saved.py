"""Networks on disk: weights in the safetensors format and, beside them, the arguments of `build_model` as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from snnlib import checks
from snnlib.errors import InputError
from snnlib.files import user_path, write_atomic
from snnlib.models.build import Model, build_model
from snnlib.tensor_files import read_tensors, write_tensors

WEIGHTS, CONFIG = ".safetensors", ".json"
UNDER_MODEL = "model/"
"""Where a checkpoint of `snnlib.training` keeps the network's tensors, beside its optimiser's."""


def save(model: nn.Module, path: Path | str) -> Path:
    """Write `model` as PATH.safetensors and PATH.json; returns the path of the weights. `load` reads both.

    path: with or without one of the two endings. The weights are a plain state dict, contiguous, under the model's own
    names; the file knows its configuration and a digest of everything in it.
    Errors: InputError for a model that its configuration does not build, and where nothing can be written.

    >>> import tempfile
    >>> from snnlib import models
    >>> model = models.build_model("vgg11", num_classes=10, time_steps=2, width=4, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = models.save(model, f"{folder}/net")
    ...     again = models.load(path)
    >>> path.name, again.config == model.config
    ('net.safetensors', True)
    """
    if not isinstance(model, Model):
        raise InputError(
            f"the model is a {type(model).__name__}; expected one of build_model: only those can be built again from "
            "their configuration; keep the others as a Python file with a function that builds and loads them"
        )
    with torch.device("meta"):
        _check_fit(model.state_dict(), build_model(**model.config).state_dict(), "the model")
    stem = _stem(files_of(path)[0])
    weights = write_tensors(_with(stem, WEIGHTS), model.state_dict(), {"model": model.config})
    write_atomic(_with(stem, CONFIG), json.dumps(model.config, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return weights


def load(path: Path | str, config: Path | str | None = None) -> Model:
    """The network that `save` or `snnlib.training.fit` has written, on the default device and in eval mode.

    path: of the weights, or without the ending. config: a JSON file with the arguments of `build_model`; None takes
    what the weights' file knows, else the file of the same name that ends in .json. Nothing is unpickled.
    Errors: InputError for a file that is missing or damaged, weights that are not finite, and two that do not fit.
    """
    weights = files_of(path)[0]
    tensors, metadata = read_tensors(weights)
    model = build_model(**_arguments(weights, (metadata or {}).get("model"), config))
    if any(name.startswith(UNDER_MODEL) for name in tensors):
        start = len(UNDER_MODEL)
        tensors = {name[start:]: value for name, value in tensors.items() if name.startswith(UNDER_MODEL)}
    _check_fit(tensors, model.state_dict(), str(weights))
    check_finite(tensors, str(weights))
    model.load_state_dict(tensors)
    return model.eval()


def files_of(path: Path | str) -> tuple[Path, Path]:
    """The weights and the configuration that `load` reads for `path`, whether they exist or not."""
    weights = user_path(path)
    if not weights.name:
        raise InputError(f"the path of the weights is {checks.shown(str(path))}; expected a file's")
    if weights.suffix == CONFIG or not weights.is_file():
        weights = _with(_stem(path), WEIGHTS)
    return weights, _with(_stem(weights), CONFIG)


def _arguments(weights: Path, known: dict | None, config: Path | str | None) -> dict:
    """Of `build_model`: what the weights' file knows, and a JSON file that must not say otherwise."""
    beside = files_of(weights)[1]
    given = user_path(config) if config is not None else beside if beside.is_file() else None
    if given is None:
        if not known:
            raise InputError(f"{weights} does not say which network it is; expected {beside} with its configuration")
        return checks.arguments_of(build_model, known, str(weights))
    arguments = read_config(given)
    if known:
        with torch.device("meta"):
            built = build_model(**arguments).config
        for name in sorted(known.keys() - {"seed"}):  # decides nothing here: the weights are given
            if built.get(name) != known[name]:
                there, here = checks.shown(known[name]), checks.shown(built.get(name))
                raise InputError(f"{given}: {name} is {here}, but {there} in {weights}; correct it or remove {given}")
    return arguments


def read_config(path: Path) -> dict:
    """Arguments of `build_model`, their types checked. Errors: InputError for anything but a JSON object of them."""
    if not path.is_file():
        raise InputError(f"{path} is no file; expected a JSON file with the arguments of build_model")
    try:
        config = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise InputError(f"{path} is no JSON ({reason}); expected the arguments of build_model") from None
    return checks.arguments_of(build_model, config, str(path))


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Errors: InputError naming a tensor with NaN or infinity, which a spike would hide, or a negative variance."""
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{where}: {name} contains NaN or infinity; expected finite weights; train again")
        if name.endswith("running_var") and value.amin() < 0:
            raise InputError(f"{where}: {name} contains {value.amin():.3g}; expected variances of 0 or more")


def _check_fit(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], where: str) -> None:
    for name in sorted(theirs.keys() | ours.keys()):
        found, wanted = (list(each[name].shape) if name in each else "absent" for each in (theirs, ours))
        if found != wanted:
            raise InputError(
                f"{where}: {name} is {found}, expected {wanted} by its configuration; give the one that built it"
            )


def _stem(path: Path | str) -> Path:
    path = user_path(path)
    return path.with_suffix("") if path.suffix in (WEIGHTS, CONFIG) else path


def _with(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def _once(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
