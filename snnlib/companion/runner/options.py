"""Rebuild the figures and tables: run the numbered notebooks of a profile, where their result is out of date.

Exit code: 0 all is well, 1 a notebook failed, 2 an option is wrong, 130 interrupted. A run that was killed continues
where it stopped when it is started again. `run_all.sh test` checks everything instead.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from snnlib.commands import OneLineParser, exit_code
from snnlib.companion import paths
from snnlib.companion.runner.series import load_series

PROFILES = {
    "smoke": "shows that everything runs, minutes",
    "quick": "about an hour on 2 CPU cores",
    "night": "whole CIFAR-10, half an hour of a large GPU, about a day on 2 CPU cores",
    "paper": "the papers' own sizes, days of a GPU",
}
PROFILE_HELP = "; ".join(f"{name}: {meaning}" for name, meaning in PROFILES.items())


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="run_all.sh", description=__doc__, allow_abbrev=False)
    parser.add_argument("--profile", default="quick", metavar="|".join(PROFILES), help=PROFILE_HELP)
    parser.add_argument("--only", metavar="11,13", help="these notebooks")
    parser.add_argument("--force", action="store_true", help="run the chosen notebooks even if they are up to date")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change a notebook parameter")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="folder with data sets that are already here")
    parser.add_argument("--list", action="store_true", help="show the notebooks and their state, run nothing")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="copy figures and tables to figures/<profile>, and outputs of quick into the committed notebooks",
    )
    parser.add_argument(
        "--time-limit", metavar="100m", help="stop cleanly at the next step that would end later, and say what is left"
    )
    parser.add_argument(
        "--from-released",
        action="store_true",
        help="take published rows and tables, and train none of the networks of night and paper: they are the released "
        "ones, or, of notebooks 17, 31, 33 and 34, have no weights; other results are computed here",
    )
    parser.add_argument(
        "--jobs",
        metavar="local:N|slurm:N|ray:N",
        help="make networks and rows of the profile by N workers first, two threads each; `sweep --help` has more",
    )
    parser.add_argument(
        "--at-once",
        metavar="N",
        type=int,
        default=1,
        help="run N notebooks at the same time; run_all.sh takes 2 with a thread each for smoke and quick",
    )
    parser.add_argument(
        "--resources",
        metavar="KEY=VALUE,...",
        help="of a worker: cpus, gpus (a fraction shares one), memory (GB), time, partition, account; address (Ray)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what the profile would cost on this machine, run nothing"
    )
    parser.add_argument("--machines", metavar="8xH100", help="with --dry-run: on these, and the critical path")
    parser.add_argument(
        "--measure", action="store_true", help="with --dry-run: time every network here, minutes for paper on a CPU"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """`run_all.sh --help` and `--list` before anything is installed: this module imports no package but this one."""
    return exit_code(lambda: list_series(parse_arguments(arguments)))


def list_series(options: argparse.Namespace) -> int:
    """Print the title of every notebook, which begins with its number. Errors: InputError."""
    paths.check_profile(options.profile)
    for notebook in load_series(paths.NOTEBOOKS).values():
        print(notebook.title)
    print("not installed yet: `run_all.sh` installs once and runs them; then --list shows what is out of date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
