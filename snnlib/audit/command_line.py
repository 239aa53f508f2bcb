"""Audit a saved network from the command line:

    python -m snnlib.audit --model FILE.safetensors --config FILE.json --data DIR --out report.html

The configuration holds the arguments of `snnlib.models.build_model` as JSON; nothing is unpickled.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from fractions import Fraction
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from snnlib.attacks import Budget
from snnlib.audit import EFFORTS, audit
from snnlib.commands import OneLineParser, exit_code
from snnlib.data import ImageSet, load_images
from snnlib.data.images import DATA_SETS
from snnlib.errors import InputError
from snnlib.files import write_atomic
from snnlib.models import Model, build_model
from snnlib.optional import needs
from snnlib.runtime import apply_process_settings, default_device

CHECKPOINT_PREFIX = "model/"
"""Under which `snnlib.training` keeps a network's tensors; files of bare names are read too."""


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m snnlib.audit", description="Look for gradient masking in a saved network.", allow_abbrev=False
    )
    parser.add_argument("--model", type=Path, required=True, help="weights, a safetensors file")
    parser.add_argument("--config", type=Path, required=True, help="arguments of build_model, a JSON file")
    parser.add_argument("--data", type=Path, help="folder with the whole data set; without it the embedded images")
    parser.add_argument("--dataset", default="cifar10", help=f"one of {', '.join(DATA_SETS)}")
    parser.add_argument("--out", type=Path, required=True, help="the page to write")
    parser.add_argument("--json", type=Path, help="write the report as JSON too")
    parser.add_argument("--images", type=int, default=200, help="test images, equally many of each class")
    parser.add_argument("--eps", default="8/255", help="radius in pixel units, such as 8/255 or 0.03")
    parser.add_argument("--norm", default="linf", help="linf or l2")
    parser.add_argument("--profile", default="quick", help=f"cost of the audit: {', '.join(EFFORTS)}")
    parser.add_argument("--seed", type=int, default=0, help="of all noise")
    parser.add_argument("--batch-size", type=int, default=100)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 for a written report, whatever its verdict; 2 for input that does not fit, in one line."""
    return exit_code(lambda: run_audit(parse_arguments(arguments)))


def run_audit(options: argparse.Namespace) -> int:
    """Load, audit, write. Raises InputError before anything is written."""
    needs("matplotlib", extra="report")
    from snnlib.audit.page import audit_page

    apply_process_settings()
    budget = Budget(read_eps(options.eps), norm=options.norm)
    device = default_device()
    model = load_model(options.model, options.config).to(device)
    chosen = choose_images(options.dataset, options.data, options.images)
    report = audit(
        model,
        chosen.batch(slice(None), device),
        chosen.labels.to(device),
        budget,
        effort=options.profile,
        generator=torch.Generator().manual_seed(options.seed),
        batch_size=options.batch_size,
    )
    write_atomic(options.out, audit_page(report, f"Audit of {options.model.name}"))
    if options.json is not None:
        write_atomic(options.json, report.to_json())
    print(report)
    return 0


def load_model(weights: Path, config: Path) -> Model:
    """The network of `config` with the tensors of `weights`, in eval mode.

    Errors: InputError for a file that is missing or damaged, an argument that `build_model` does not have, or tensors
    that do not fit.
    """
    model = build_model(**read_config(config))
    tensors = read_tensors(weights)
    expected = model.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        theirs, ours = (str(list(found[name].shape)) if name in found else "absent" for found in (tensors, expected))
        if theirs != ours:
            raise InputError(f"{weights}: {name} is {theirs}, expected {ours}; give the configuration that built it")
    model.load_state_dict(tensors)
    return model.eval()


def read_config(path: Path) -> dict:
    """Arguments of `build_model`. Errors: InputError for anything but a JSON object of them."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a JSON file with the arguments of build_model")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no JSON ({error}); expected the arguments of build_model") from None
    known = inspect.signature(build_model).parameters
    if not isinstance(config, dict):
        raise InputError(f"{path} holds a {type(config).__name__}; expected an object of build_model's arguments")
    unknown = sorted(set(config) - set(known))
    missing = [name for name, each in known.items() if each.default is each.empty and name not in config]
    if unknown or missing:
        raise InputError(f"{path} has the unknown arguments {unknown} and lacks {missing}; see build_model")
    return config


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by the model's names, from a checkpoint of `snnlib.training` or a plain state. Errors: InputError."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected weights as a safetensors file")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file ({error}); pickled weights are not read") from None
    if any(name.startswith(CHECKPOINT_PREFIX) for name in tensors):
        return {
            name.removeprefix(CHECKPOINT_PREFIX): value
            for name, value in tensors.items()
            if name.startswith(CHECKPOINT_PREFIX)
        }
    return tensors


def choose_images(dataset: str, folder: Path | None, count: int) -> ImageSet:
    """The first test images of each class, `count` in all or a little fewer. Errors: InputError."""
    splits = load_images(dataset, subset="embedded" if folder is None else "whole", data_dir=folder)
    if count < splits.num_classes:
        raise InputError(f"--images is {count}; expected at least {splits.num_classes}, one of each class")
    return splits.test.first_per_class(count // splits.num_classes)


def read_eps(text: str) -> float:
    """A radius as a number or a fraction. Errors: InputError."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise InputError(f"--eps is {text!r}; expected a number in pixel units such as 8/255") from None


if __name__ == "__main__":
    sys.exit(main())
