"""Audit a network from the command line:

    python -m snnlib.audit --model net.safetensors --out report.html

`snnlib.models.save` writes such weights, with the network's configuration beside them; those of others need --config, a
JSON file with the arguments of `snnlib.models.build_model`. `--model net.nir --time-steps 8` reads a graph of NIR.
`--model net.py:build` runs the Python file and audits the module that its function `build` returns.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from snnlib import checks, wrap
from snnlib.attacks import Budget
from snnlib.audit import EFFORTS, audit
from snnlib.audit.page import audit_page
from snnlib.commands import OneLineParser, exit_code
from snnlib.data import ImageSet, load_images
from snnlib.data.images import DATA_SETS
from snnlib.errors import InputError
from snnlib.files import check_target, user_path, write_atomic
from snnlib.models import load, released, released_names
from snnlib.models.saved import files_of
from snnlib.optional import needs
from snnlib.runtime import apply_process_settings, default_device

IMAGES, QUICK_IMAGES = 200, 100
QUICK = EFFORTS["brief"]
PYTHON_FUNCTION = re.compile(r"(.+\.py):(\w+)")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m snnlib.audit", description="Look for gradient masking in a network.", allow_abbrev=False
    )
    parser.add_argument(
        "--model",
        required=True,
        help="weights (safetensors); a graph (.nir, with --time-steps); FILE.py:FUNCTION, which RUNS THAT FILE and "
        f"takes what the function returns; or a released network: {', '.join(released_names()) or 'none yet'}",
    )
    parser.add_argument("--config", type=Path, help="arguments of build_model (JSON), for weights without their own")
    parser.add_argument("--time-steps", type=int, help="of a .nir graph: how often it sees the image")
    parser.add_argument("--dt", type=float, help="of a .nir graph: step in the unit of its time constants (1)")
    parser.add_argument("--data", type=Path, help="folder with the whole data set; without it the embedded images")
    parser.add_argument("--dataset", default="cifar10", help=f"one of {', '.join(DATA_SETS)}")
    parser.add_argument("--out", type=Path, help="the page to write")
    parser.add_argument("--json", type=Path, help="write the report as JSON")
    parser.add_argument(
        "--images", type=int, help=f"test images, equally many of each class: {IMAGES}, with --quick {QUICK_IMAGES}"
    )
    parser.add_argument("--eps", default="8/255", help="radius in pixel units, such as 8/255 or 0.03")
    parser.add_argument("--norm", default="linf", help="linf or l2")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--profile", default="quick", help=f"cost of the audit: {', '.join(EFFORTS)}")
    size.add_argument("--quick", action="store_true", help="a first look in a minute or two; says what it leaves out")
    parser.add_argument("--seed", type=int, default=0, help="of all noise")
    parser.add_argument("--batch-size", type=int, default=100)
    options = parser.parse_args(arguments)
    for name in ("config", "data", "out", "json"):
        if (path := getattr(options, name)) is not None:
            setattr(options, name, user_path(path))
    if options.images is None:
        options.images = QUICK_IMAGES if options.quick else IMAGES
    return options


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 for a report, whatever its verdict; 2 for input that does not fit, in one line."""
    return exit_code(lambda: run_audit(parse_arguments(arguments)), interrupted="interrupted; nothing was written")


def run_audit(options: argparse.Namespace) -> int:
    """Check everything, load, audit, write. Errors: InputError, before the first attack where it can be known then."""
    apply_process_settings()
    budget = Budget(read_eps(options.eps), norm=options.norm)
    seed = checks.seed("--seed", options.seed)
    batch_size = checks.whole("--batch-size", options.batch_size)
    effort = QUICK if options.quick else EFFORTS[checks.choice("--profile", options.profile, EFFORTS)]
    check_targets({"--out": options.out, "--json": options.json}, inputs_of(options.model, options.config))
    for module in ("jinja2", "matplotlib") if options.out else ():
        needs(module, extra="report")
    device = default_device()
    model = load_model(options.model, options.config, options.time_steps, options.dt).to(device)
    chosen = choose_images(options.dataset, options.data, options.images)
    images = chosen.batch(slice(None), device)
    ball = f"{options.norm} at eps {options.eps}"
    print(f"auditing on {len(images)} images, {ball}; the first pass may compile kernels", file=sys.stderr)
    check_first_pass(model, images)
    report = audit(
        model,
        images,
        chosen.labels.to(device),
        budget,
        effort=effort,
        generator=torch.Generator().manual_seed(seed),
        batch_size=min(batch_size, len(images)),
    )
    made = {options.json: report.to_json} if options.json else {}
    if options.out:
        made[options.out] = lambda: audit_page(report, f"Audit of {Path(options.model).name}")
    lost, written = [], []
    for path, content in made.items():
        try:
            written.append(write_atomic(path, content()))
        except InputError as error:  # the others, and the terminal, still get what took so long
            lost.append(str(error))
    print(report)
    if options.quick:
        print(left_out(len(images)))
    for path in written:
        print(f"written: {path}")
    if lost:
        raise InputError("; ".join(lost))
    return 0


def load_model(
    model: str, config: Path | None = None, time_steps: int | None = None, dt: float | None = None
) -> nn.Module:
    """The network that `--model` and the options beside it name, in eval mode.

    Errors: InputError for a file that is missing or damaged, a configuration that does not fit, a Python file that
    fails, and an option that belongs to another kind of file.
    """
    named, is_graph = PYTHON_FUNCTION.fullmatch(model), model.endswith(".nir")
    if config is not None and (named or is_graph):
        raise InputError(f"--config with {model}; expected it beside weights alone; leave it out")
    if not is_graph and (time_steps, dt) != (None, None):
        raise InputError(f"--time-steps or --dt with {model}; expected them beside a .nir graph alone; leave them out")
    if is_graph:
        return read_graph(user_path(model), time_steps, 1.0 if dt is None else dt).eval()
    if named:
        return build_by_file(user_path(named[1]), named[2]).eval()
    if model.endswith(".py"):
        raise InputError(f"--model is {model}; expected FILE.py:FUNCTION; name the function that returns the network")
    if config is not None or any(path.exists() for path in files_of(model)):
        return load(model, config)
    if model not in released_names():
        names = ", ".join(released_names()) or "none yet"
        raise InputError(f"--model is {checks.shown(model)}; expected a file, or a released network: {names}")
    return released(model)


def read_graph(path: Path, time_steps: int | None, dt: float) -> nn.Module:
    """The network of a .nir file; a graph that takes vectors gets the image flattened. Errors: InputError."""
    if time_steps is None:
        raise InputError(f"--model is {path}; a graph does not say for how long it runs; add --time-steps, such as 8")
    network = wrap.nir(path, time_steps=time_steps, dt=dt)
    if len(network.net.input_shape or ()) == 1:
        network.preprocessing = nn.Flatten()
    return network


def build_by_file(path: Path, function: str) -> nn.Module:
    """Run the Python file and call `function` of it. Errors: InputError in one line, with the place of what failed."""
    if not path.is_file():
        raise InputError(f"{path} is no file; expected a Python file with the function {function}")
    print(f"running {path}: it may do whatever its author wrote", file=sys.stderr)
    spec = importlib.util.spec_from_file_location(f"audited_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    sys.path.insert(0, str(path.absolute().parent))
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, function, None)):
            raise InputError(f"{path} has no function {function}; expected one that returns a torch.nn.Module")
        built = getattr(module, function)()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}:{function} failed ({_one_line(error)}, in {_place(error)}); mend it") from error
    finally:
        sys.path.remove(str(path.absolute().parent))
    if not isinstance(built, nn.Module):
        raise InputError(f"{path}:{function} returned {checks.shown(built)}; expected a torch.nn.Module")
    return built


def inputs_of(model: str, config: Path | None) -> list[Path]:
    """Files that the audit may read, as far as they exist."""
    named = PYTHON_FUNCTION.fullmatch(model)
    files = [user_path(named[1])] if named else [*files_of(model)]
    return [path for path in (*files, *([config] if config else [])) if path.exists()]


def check_targets(targets: dict[str, Path | None], inputs: Sequence[Path]) -> None:
    """Errors: InputError for a target that is an input or another target, or that cannot be written."""
    seen: dict[Path, str] = {}
    for name, path in targets.items():
        if path is None:
            continue
        if path.exists() and any(path.samefile(each) for each in inputs):
            raise InputError(f"{name} is {path}, which is read; it would be overwritten; choose another file")
        if path.resolve() in seen:
            raise InputError(f"{name} is {path}, as {seen[path.resolve()]} is; expected two files; choose another one")
        seen[path.resolve()] = name
        check_target(path, name)


def check_first_pass(model: nn.Module, images: Tensor) -> None:
    """Errors: InputError in one line where the network does not take the images."""
    try:
        with torch.no_grad():
            model(images[:2])
    except InputError:
        raise
    except Exception as error:
        shape = list(images[:2].shape)
        raise InputError(
            f"the network fails on images {shape} ({_one_line(error)}, in {_place(error)}); expected logits; give the "
            "data set that it was trained on"
        ) from error


def choose_images(dataset: str, folder: Path | None, count: int) -> ImageSet:
    """The first test images of each class, `count` in all or a little fewer. Errors: InputError."""
    splits = load_images(dataset, subset="embedded" if folder is None else "whole", data_dir=folder)
    if count < splits.num_classes:
        raise InputError(f"--images is {count}; expected at least {splits.num_classes}, one of each class")
    return splits.test.first_per_class(count // splits.num_classes)


def read_eps(text: str) -> float:
    """A radius as a number or a fraction. Errors: InputError."""
    above, slash, below = text.partition("/")
    try:
        return float(checks.number("--eps", float(above) / float(below) if slash else float(above)))
    except (ValueError, ZeroDivisionError):
        raise InputError(f"--eps is {checks.shown(text)}; expected a number in pixel units such as 8/255") from None


def left_out(images: int) -> str:
    """What `--quick` leaves out of the whole audit, in a line."""
    whole = EFFORTS["quick"]
    return (
        f"--quick left out: {max(0, IMAGES - images)} of {IMAGES} images, {whole.steps - QUICK.steps} of {whole.steps} "
        f"steps of PGD, {whole.queries - QUICK.queries} of {whole.queries} queries of Square, "
        f"{len(whole.members) - len(QUICK.members)} of {len(whole.members)} surrogates, "
        f"{len(whole.eps_factors) - len(QUICK.eps_factors)} of {len(whole.eps_factors)} points of the curve over eps; "
        "run without it before you rely on the verdict"
    )


def _one_line(error: Exception) -> str:
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    return f"{last.filename}, line {last.lineno}"


if __name__ == "__main__":
    sys.exit(main())
