"""What a reader sees first, made from the published numbers: blocks of README.md and the pages of `figures/`.

Each says what the largest profile says that was published with what it needs, and names that profile.

`python -m snnlib.companion.report.front_page` rewrites them; `run_all.sh --publish` does so too.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from snnlib.companion import paths
from snnlib.companion.report import cards, evidence, figures, gallery, ladder
from snnlib.companion.report.size_words import machines_line, not_run, size_line, training_images
from snnlib.companion.sizes import get_profile
from snnlib.errors import InputError
from snnlib.files import write_atomic

FIRST_PROFILE = "quick"
"""What `./run_all.sh` runs where no profile is named."""
ASKED = "L3"
BOARD, ERROR_RATES = "leaderboard.csv", "30_error_rates.csv"
PAGES: dict[str, Callable[[], str]] = {
    "README.md": gallery.gallery_markdown,
    evidence.PAGE: evidence.evidence_markdown,
    "networks.md": cards.networks_markdown,
}
"""Files of `figures/` and what makes them."""


def picture() -> str:
    """The ladder, beside the text that follows where there is room."""
    words = ladder.in_words(ladder.ladder_steps(ladder.ladder_profile()))
    return f'<img src="figures/{ladder.FILE}" align="right" width="400" alt="{words}">\n'


def found() -> str:
    """What was found, in numbers: the ladder's, and the verdict on the claim that the question is about."""
    profile = ladder.ladder_profile()
    steps, trained_as = ladder.ladder_steps(profile), get_profile(profile)
    clean, authors, *_, image, every = (f"{ladder.percent(share)} %" for share in steps.share)
    judged_at, claim = evidence.judged()[ASKED][0]
    place = "" if claim["verdict"] == evidence.NOT_RUN else f", at profile `{judged_at}`"
    return _wrapped(
        f"**Found, at profile `{profile}`:** an undefended SEW-ResNet-18 of width {trained_as.width}, trained on "
        f"{training_images(trained_as):,} images, classifies {clean} of the images correctly; at eps "
        f"{ladder.EPS255}/255 still {authors} under the first paper's protocol, {image} under PGD on images of the "
        f"deployed network, and {every} under every attack here ({steps.attacks[0]}). "
        f"That it is as robust as defended ones (claim {ASKED}): **{claim['verdict']}**{place}."
    )


def start() -> str:
    """The commands to begin with, and how long they took when the figures were published."""
    manifest = figures.read_manifest_in(paths.published_dir(FIRST_PROFILE), FIRST_PROFILE)
    shares = [entry["seconds"] / entry.get("at_once", 1) for entry in manifest["notebooks"].values()]
    first, whole = manifest["notebooks"]["01"]["seconds"], f"{sum(shares) / 60:.0f} minutes"
    return (
        "```bash\n"
        "git clone <this repository> && cd snnlib\n"
        f"# first pictures: {first:.0f} s, once installed (2 GB)\n"
        "./run_all.sh --only 01\n"
        f"# all figures and tables, profile {FIRST_PROFILE}: {whole}, 2 cores\n"
        "./run_all.sh\n"
        "```\n"
    )


def size() -> str:
    """At what size the numbers of each published profile are, where they were made, and what has not been run."""
    published = paths.published_with("claims.csv")
    lines = []
    for profile in published:
        told = "; ".join(filter(None, (size_line(profile), machines_line(profile))))
        waiting = f" Not published: notebooks {', '.join(not_run(profile))}." * bool(not_run(profile))
        lines.append(f"Profile `{profile}`: {told}.{waiting}")
    missing = {name: machines_line(name) for name in ("night", "paper") if name not in published}
    unseen = [f"`{name}` ({made})" if made else f"`{name}`" for name, made in missing.items()]
    unjudged = [claim for claim, ((_, line), *_) in evidence.judged().items() if line["verdict"] == evidence.NOT_RUN]
    left = [f"Built, and not run to the end yet: {' and '.join(unseen)}."] * bool(unseen)
    left += [f"No verdict at any profile yet: {', '.join(unjudged)}."] * bool(unjudged)
    lines += [" ".join(left)] * bool(left)
    return "\n" + "".join(_wrapped(f"* {line}", "  ") for line in lines)


def verdicts() -> str:
    """The tally of the verdicts and their table."""
    return f"{evidence.tally()}\n\n{evidence.verdict_table_markdown()}"


def leaderboard() -> str:
    """The ranked networks of the largest profile that has two or more at one eps; the smallest such eps of the most.

    A rank is worth nothing alone, and a network that was attacked too little has none.
    """
    boards = {name: pd.read_csv(paths.published_dir(name) / BOARD) for name in paths.published_with(BOARD)}
    links = ", ".join(f"[`{name}`](figures/{name}/{BOARD})" for name in boards)
    ranked = {name: board[board["rank"].notna()] for name, board in boards.items()}
    profile = next((name for name, table in ranked.items() if table.eps255.duplicated().any()), None)
    if profile is None:
        return f"No two networks were attacked enough for a rank. All networks, with what they lack: {links}.\n"
    shown = ranked[profile]
    eps = shown.groupby("eps255").size().idxmax()
    lines = [f"Profile `{profile}`; all networks, with what those without a rank lack: {links}.", ""]
    lines += [f"| eps {eps}/255 | clean | left [95 %] |", "|---|---|---|"]
    for row in shown[shown.eps255 == eps].itertuples():
        low, high = ladder.percent(row.low), ladder.percent(row.high)
        left = f"{ladder.percent(row.robust)} [{low}, {high}] %"
        lines.append(f"| {row.network} | {ladder.percent(row.clean, 0)} % | {left} |")
    return "\n".join(lines) + "\n"


def error_rates() -> str:
    """How often the audit errs on networks whose masks are known, from notebook 30."""
    profile = next(iter(paths.published_with(ERROR_RATES)), None)
    if profile is None:
        return "How often the audit itself errs is measured in notebook 30, and not published yet.\n"
    lines = [f"How often the audit itself errs, on planted networks (notebook 30, profile `{profile}`):", ""]
    lines += ["| group | networks | called masked or suspicious [95&nbsp;%] |", "|---|---|---|"]
    for row in pd.read_csv(paths.published_dir(profile) / ERROR_RATES).query("kind == 'all'").itertuples():
        low, high = ladder.percent(row.low, 0), ladder.percent(row.high, 0)
        flagged = f"{row.flagged}, {ladder.percent(row.share, 0)} [{low}, {high}] %"
        lines.append(f"| {row.group} | {row.networks} | {flagged} |")
    return "\n".join(lines) + "\n"


def notebooks() -> str:
    """A line per notebook: its first published picture, of the largest profile that has it, its number and title."""
    lines = ["| first&nbsp;picture | notebook |", "|---|---|"]
    for chapter in gallery.chapters():
        shot = next((shot for shot in chapter.shots if gallery.profiles_with(shot.name)), None)
        first = ""
        if shot:
            place = f"figures/{gallery.THUMBNAILS}/{gallery.profiles_with(shot.name)[0]}/{shot.name}.webp"
            first = f'<img src="{place}" width="100" alt="{shot.title}">'
        lines.append(f"| {first} | {chapter.number} [{chapter.title}](notebooks/{chapter.file}) |")
    return "\n".join(lines) + "\n"


BLOCKS: dict[str, Callable[[], str]] = {
    block.__name__: block for block in (picture, found, start, size, verdicts, leaderboard, error_rates, notebooks)
}
"""Name of a pair of marks in the README, and what makes the text between them."""


def filled(text: str) -> str:
    """A README with every block made anew. Errors: InputError unless each pair of marks is there once, in order."""
    for name, make in BLOCKS.items():
        opening, closing = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        if (text.count(opening), text.count(closing)) != (1, 1) or text.index(opening) > text.index(closing):
            raise InputError(
                f"expected the marks {opening} and {closing} once each, in this order; add them where they belong"
            )
        before, rest = text.split(opening)
        text = f"{before}{opening}\n{make()}{closing}{rest.split(closing)[1]}"
    return text


def write(readme: Path) -> None:
    """Rewrite the blocks of `readme`, the pages of `figures/`, the ladder and the thumbnails."""
    if not readme.is_file():
        raise InputError(f"{readme} does not exist; expected a Markdown file with the marks of {', '.join(BLOCKS)}")
    text = readme.read_text(encoding="utf-8")
    filled(text)  # before anything is written
    ladder.write_ladder()
    gallery.write_thumbnails()
    for name, make in PAGES.items():
        write_atomic(paths.FIGURES / name, make())
    write_atomic(readme, filled(text))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m snnlib.companion.report.front_page", description=__doc__)
    parser.add_argument("--readme", type=Path, default=paths.ROOT / "README.md")
    options = parser.parse_args(arguments)
    try:
        write(options.readme)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _wrapped(text: str, indent: str = "") -> str:
    """In lines of a width that is easy to compare; a link or a word stays whole."""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
