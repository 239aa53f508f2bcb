"""Where things live: notebooks, figures, artifacts.

`ROOT` is the environment variable `SNNLIB_HOME`, else the repository of an editable install, else the working
directory; `NOTEBOOKS`, `FIGURES` and `ARTIFACTS` lie in it. They are decided at first use and not while this module is
imported, so that a command can say in one line what is wrong with the variable. Write `paths.ARTIFACTS`, not
`from snnlib.companion.paths import ARTIFACTS`, so that a test can point it elsewhere.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from snnlib.errors import InputError

_places = sys.modules[__name__]
FOLDERS = ("NOTEBOOKS", "FIGURES", "ARTIFACTS")
PROFILE_NAMES = ("smoke", "quick", "night", "paper")


def __getattr__(name: str) -> Path:
    if name not in ("ROOT", *FOLDERS):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = _find_root() if name == "ROOT" else _places.ROOT / name.lower()
    setattr(_places, name, found)
    return found


def _find_root() -> Path:
    home = os.environ.get("SNNLIB_HOME")
    if home:
        from snnlib.files import user_path  # needs filelock; `run_all.sh --list` works before it is installed

        folder = user_path(home)
        if not folder.is_dir():
            raise InputError(f"SNNLIB_HOME is {home!r}; expected an existing folder; create it or unset the variable")
        return folder.resolve()
    repository = Path(__file__).resolve().parents[2]
    return repository if (repository / "notebooks").is_dir() else Path.cwd()


def check_profile(profile: str) -> str:
    """Return `profile`. Raises InputError unless it is one of `PROFILE_NAMES`."""
    if profile not in PROFILE_NAMES:
        raise InputError(f"unknown profile {profile!r}; expected one of: {', '.join(PROFILE_NAMES)}")
    return profile


def figures_dir(profile: str) -> Path:
    """Where notebooks of a profile put figures and tables: `artifacts/<profile>/figures`, which is not committed."""
    return runs_dir(profile) / "figures"


def published_dir(profile: str) -> Path:
    """Folder of a profile's committed figures and tables, written by `run_all.sh --publish`: `figures/<profile>`."""
    return _places.FIGURES / check_profile(profile)


def published_with(*names: str) -> list[str]:
    """Profiles, largest first, of which all these files are published."""
    return [each for each in reversed(PROFILE_NAMES) if all((published_dir(each) / name).is_file() for name in names)]


def runs_dir(profile: str) -> Path:
    """Folder of a profile's executed notebooks, stamps and timings: `artifacts/<profile>`."""
    return _places.ARTIFACTS / check_profile(profile)


def lock_path(name: str) -> Path:
    """Lock file for a shared file of the given name, for `snnlib.files.file_lock`."""
    return _places.ARTIFACTS / "locks" / f"{name}.lock"
