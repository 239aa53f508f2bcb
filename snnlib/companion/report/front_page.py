"""What a reader sees first, made from the published numbers: blocks of README.md and the pages of `figures/`.

`python -m snnlib.companion.report.front_page` rewrites them; `run_all.sh --publish` does so too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from snnlib.companion import paths
from snnlib.companion.report import cards, evidence, figures, gallery, ladder
from snnlib.companion.sizes import conversion_size, get_profile
from snnlib.errors import InputError
from snnlib.files import write_atomic

PROFILE = "quick"
BOARD_EPS255 = 2
PAGES: dict[str, Callable[[str], str]] = {
    "README.md": gallery.gallery_markdown,
    evidence.PAGE: evidence.evidence_markdown,
    "networks.md": cards.networks_markdown,
}
"""Files of `figures/` and what makes them."""


def picture(profile: str) -> str:
    """The ladder, beside the text that follows where there is room."""
    words = ladder.in_words(ladder.ladder_steps(profile))
    return f'<img src="figures/{ladder.FILE}" align="right" width="400" alt="{words}">\n'


def found(profile: str) -> str:
    """What was found, in one sentence."""
    steps = ladder.ladder_steps(profile)
    _, authors, *_, image, every = (f"{ladder.percent(share)} %" for share in steps.share)
    return (
        "**Found, at a small size:** nothing that speaks for it. An undefended network, always at the same eps of\n"
        f"{ladder.EPS255}/255, keeps {authors} of the images under the first paper's protocol, {image} under PGD on\n"
        f"images of the deployed network, and {every} under every attack here.\n"
    )


def start(profile: str) -> str:
    """The commands to begin with, and how long they took when the figures were published."""
    seconds = {number: entry["seconds"] for number, entry in _published_manifest(profile)["notebooks"].items()}
    whole = f"{sum(seconds.values()) / 60:.0f} minutes"
    return (
        "```bash\n"
        "git clone <this repository> && cd snnlib\n"
        f"# first pictures: {seconds['01']:.0f} s, once installed (2 GB)\n"
        "./run_all.sh --only 01\n"
        f"# all figures and tables: {whole}, 2 cores\n"
        "./run_all.sh\n"
        "```\n"
    )


def size(profile: str) -> str:
    """At what size the numbers are, and what has not been run."""
    first, second = get_profile(profile), conversion_size(profile).profile
    lines = evidence.judged(profile)
    waiting = [line["claim"] for line in lines if line["verdict"] == "not run yet"]
    profiles = [name for name in ("night", "paper") if not (paths.published_dir(name) / "claims.csv").is_file()]
    text = (
        f"All numbers here are of profile `{profile}`: networks of width {second.width} and {first.width},\n"
        f"{len(first.seeds)} seeds, trained on the 5,000 CIFAR-10 images that come with the package, or\n"
        f"{10 * second.train_per_class:,} of them, and attacked on {10 * second.attacked_per_class} to "
        f"{10 * first.attacked_per_class} others, on a CPU.\n"
    )
    if profiles:
        names = " and ".join(f"`{name}`" for name in profiles)
        text += f"Built, and not run to the end yet: {'profile' if len(profiles) == 1 else 'profiles'} {names}. "
    return text + (f"No verdict yet: {', '.join(waiting)}.\n" if waiting else "\n")


def verdicts(profile: str) -> str:
    """The tally of the verdicts and their table."""
    return f"{evidence.tally(profile)}\n\n{evidence.verdict_table_markdown(profile)}"


def leaderboard(profile: str) -> str:
    """The ranked networks at one eps, from `leaderboard.csv`."""
    board = pd.read_csv(paths.published_dir(profile) / "leaderboard.csv")
    ranked = board[(board.eps255 == BOARD_EPS255) & board["rank"].notna()]
    lines = [f"| eps {BOARD_EPS255}/255 | clean | left [95 %] |", "|---|---|---|"]
    for row in ranked.itertuples():
        low, high = ladder.percent(row.low), ladder.percent(row.high)
        left = f"{ladder.percent(row.robust)} [{low}, {high}] %"
        lines.append(f"| {row.network} | {ladder.percent(row.clean, 0)} % | {left} |")
    return "\n".join(lines) + "\n"


def error_rates(profile: str) -> str:
    """How often the audit errs on networks whose masks are known, from notebook 30."""
    path = paths.published_dir(profile) / "30_error_rates.csv"
    if not path.is_file():
        return "How often the audit itself errs is measured in notebook 30, and not published at this profile yet.\n"
    lines = ["How often the audit itself errs, on planted networks (notebook 30):", ""]
    lines += ["| group | networks | called masked or suspicious [95&nbsp;%] |", "|---|---|---|"]
    for row in pd.read_csv(path).query("kind == 'all'").itertuples():
        low, high = ladder.percent(row.low, 0), ladder.percent(row.high, 0)
        flagged = f"{row.flagged}, {ladder.percent(row.share, 0)} [{low}, {high}] %"
        lines.append(f"| {row.group} | {row.networks} | {flagged} |")
    return "\n".join(lines) + "\n"


def notebooks(profile: str) -> str:
    """A line per notebook: its first published picture, its number and title."""
    lines = ["| first&nbsp;picture | notebook |", "|---|---|"]
    for chapter in gallery.chapters():
        shown = [shot for shot in chapter.shots if gallery.thumbnail_path(shot.name).is_file()]
        place = f"figures/{gallery.THUMBNAILS}/"
        first = f'<img src="{place}{shown[0].name}.webp" width="100" alt="{shown[0].title}">' if shown else ""
        lines.append(f"| {first} | {chapter.number} [{chapter.title}](notebooks/{chapter.file}) |")
    return "\n".join(lines) + "\n"


BLOCKS: dict[str, Callable[[str], str]] = {
    block.__name__: block for block in (picture, found, start, size, verdicts, leaderboard, error_rates, notebooks)
}
"""Name of a pair of marks in the README, and what makes the text between them."""


def filled(text: str, profile: str = PROFILE) -> str:
    """A README with every block made anew. Errors: InputError unless each pair of marks is there once, in order."""
    for name, make in BLOCKS.items():
        opening, closing = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        if (text.count(opening), text.count(closing)) != (1, 1) or text.index(opening) > text.index(closing):
            raise InputError(
                f"expected the marks {opening} and {closing} once each, in this order; add them where they belong"
            )
        before, rest = text.split(opening)
        text = f"{before}{opening}\n{make(profile)}{closing}{rest.split(closing)[1]}"
    return text


def write(readme: Path, profile: str = PROFILE) -> None:
    """Rewrite the blocks of `readme`, the pages of `figures/`, the ladder and the thumbnails."""
    if not readme.is_file():
        raise InputError(f"{readme} does not exist; expected a Markdown file with the marks of {', '.join(BLOCKS)}")
    text = readme.read_text(encoding="utf-8")
    filled(text, profile)  # before anything is written
    ladder.write_ladder(profile)
    gallery.write_thumbnails(profile)
    for name, make in PAGES.items():
        write_atomic(paths.FIGURES / name, make(profile))
    write_atomic(readme, filled(text, profile))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m snnlib.companion.report.front_page", description=__doc__)
    parser.add_argument("--readme", type=Path, default=paths.ROOT / "README.md")
    parser.add_argument("--profile", default=PROFILE)
    options = parser.parse_args(arguments)
    try:
        write(options.readme, options.profile)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _published_manifest(profile: str) -> dict:
    return figures.read_manifest_in(paths.published_dir(profile), profile)


if __name__ == "__main__":
    sys.exit(main())
