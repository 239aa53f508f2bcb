"""The cards of the released networks in words: what each is, how it was made, what it is worth, how to load it."""

from __future__ import annotations

import pandas as pd

from snnlib.companion import paths
from snnlib.companion.measure.release import profile_of
from snnlib.companion.report.ladder import percent
from snnlib.models import released_card, released_names


def networks_markdown() -> str:
    """The page `figures/networks.md`: a section per released network, with its place in its profile's leaderboard."""
    lines = [
        "# The released networks",
        "",
        "They come with the package: both seeds of every network of profile `night` that the papers' own claims (L1 to",
        "L7, C1 to C6) need, none chosen by its results, in half precision. They were measured after rounding, and the",
        "accuracies below are on all test images of CIFAR-10. Each of their published rows can be made again",
        "from the network and compared: `python -m snnlib.companion.reproduce NAME`. Another device than the one that",
        "made a row rounds differently, and some images then fall otherwise.",
    ]
    for name in released_names():
        lines += ["", f"## {name}", "", *card_lines(released_card(name), name)]
    return "\n".join(lines) + "\n"


def card_lines(card: dict, name: str) -> list[str]:
    """One network's card as lines of Markdown."""
    arguments, made = card["arguments"], card["made"]
    model, data, recipe = (dict(arguments[part]) for part in ("model", "data", "recipe"))
    images = f"{data['train_per_class']} images of each class" if data["train_per_class"] else "all training images"
    clean = percent(card["test_accuracy"])
    lines = [
        f"{card['label']}, seed {card['seed']}: {clean} % of {card['test_images']} test images.",
        "",
        "```python",
        "from snnlib import models",
        "",
        f'model = models.released("{name}")',
        "```",
        "",
        f"* architecture: {model.pop('name')}, {_listed(model)}",
        f"* trained on: {data['name']}, {images} of the {data['subset']} set",
        f"* recipe: {_listed(recipe)}; last of {len(card['history'])} epochs: {_listed(_last(card))}",
        f"* made on {made['device']}, torch {made['torch']}; key `{card['key']}`, code `{made['code']}`",
    ]
    if arguments["origin"]:
        lines.insert(-1, f"* starts from: {_listed(arguments['origin'])}")
    return [*lines, "", *worst_cases(card["label"], profile_of(name))]


def worst_cases(label: str, profile: str) -> list[str]:
    """A table of what every stored attack leaves of the networks with this label, all seeds, from the leaderboard."""
    path = paths.published_dir(profile) / "leaderboard.csv"
    board = pd.read_csv(path).query("network == @label") if path.is_file() else pd.DataFrame()
    if board.empty:
        return [f"What attacks leave of it: not published yet at profile `{profile}`."]
    lines = ["| eps | left, all seeds [95 %] | attacks | not tried |", "|---|---|---|---|"]
    for row in board.fillna({"lacks": ""}).itertuples():
        left = f"{percent(row.robust)} [{percent(row.low)}, {percent(row.high)}] %"
        lines.append(f"| {row.eps255}/255 | {left} | {row.attacks} | {row.lacks} |")
    return lines


def _last(card: dict) -> dict:
    return {name: card["history"][-1][name] for name in ("train_accuracy", "validation_accuracy")}


def _listed(values: dict) -> str:
    """Names and values in one line; what is nested follows its name in brackets."""
    told = []
    for name, value in values.items():
        if value is not None and value != {}:
            nested = f"({_listed(value)})" if isinstance(value, dict) else _plain(value)
            told.append(f"{name.replace('_', ' ')} {nested}")
    return ", ".join(told)


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
