"""With a second, larger profile published, made up from quick's files, the pages show what is best known."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from snnlib.companion import paths
from snnlib.companion.measure.rows import read_table, write_table
from snnlib.companion.report import cards, evidence, front_page, gallery, ladder, size_words
from snnlib.errors import InputError

REPOSITORY = Path(__file__).parents[3]
QUICK = REPOSITORY / "figures" / "quick"
Edit = Callable[..., None]


@pytest.fixture
def edit(home: Path, monkeypatch: pytest.MonkeyPatch) -> Edit:
    """Published profiles quick and night, equal; a function that changes a table of one of them, by default of night.

    Claim L8 has no verdict.
    """
    monkeypatch.setattr(paths, "NOTEBOOKS", REPOSITORY / "notebooks")
    for profile in ("quick", "night"):
        shutil.copytree(QUICK, home / "figures" / profile)

    def change(name: str, how: Callable[[pd.DataFrame], pd.DataFrame], profile: str = "night") -> None:
        path = home / "figures" / profile / name
        how(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)

    for profile in ("quick", "night"):
        judge(change, "L8", profile, verdict="not run yet", estimate="")
    return change


def judge(edit: Edit, claim: str, profile: str = "night", **values: str) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[table.claim == claim, list(values)] = list(values.values())
        return table

    edit("claims.csv", change, profile)


def test_the_largest_profile_with_a_verdict_decides(edit: Edit) -> None:
    judge(edit, "L1", verdict="mixed", estimate="31.4", low="28", high="35")
    judge(edit, "L5", verdict="not run yet", estimate="", low="", high="")
    judge(edit, "L5", "quick", verdict="reproduced", estimate="2", low="1", high="3")
    rows = {line.split(":")[0][2:]: line for line in evidence.verdict_table_markdown().splitlines()[2:]}
    assert rows["L1"].endswith("| [**mixed**](figures/verdicts.md#l1)<br>31.4 [28, 35] %<br>`night` |")
    assert rows["L5"].endswith("| [**reproduced**](figures/verdicts.md#l5)<br>2 [1, 3] %<br>`quick` |")
    assert rows["L8"].endswith("| [**not run yet**](figures/verdicts.md#l8) |")
    judged = (pd.read_csv(paths.FIGURES / "quick" / "claims.csv").verdict != "not run yet").sum()
    assert evidence.tally().endswith(f" Judged: {judged - 1} at profile `night`, 1 at profile `quick`.")
    assert "1 mixed" in evidence.tally()


def test_the_evidence_of_both_profiles_is_shown_the_deciding_one_first(edit: Edit) -> None:
    judge(edit, "L1", verdict="mixed", estimate="31.4", samples="400", would_count="all")
    judge(edit, "L1", "quick", verdict="not reproduced", samples="50", would_count="all")
    judge(edit, "L5", verdict="not run yet")
    judge(edit, "L5", "quick", verdict="not reproduced")
    sections = {part.partition("\n")[0]: part for part in evidence.evidence_markdown().split("\n## ")}
    told = {claim: re.findall(r"Profile `(\w+)`: \*\*(.+?)\*\*", text) for claim, text in sections.items()}
    assert told["L1"] == [("night", "mixed"), ("quick", "not reproduced")]
    assert told["L5"] == [("quick", "not reproduced"), ("night", "not run yet")]
    assert told["L8"] == [("night", "not run yet"), ("quick", "not run yet")]
    assert ": **mixed**.\n" in sections["L1"]
    assert "400 images" in sections["L1"] and "50 images" in sections["L1"]
    assert sections["L1"].count("* would have counted: all\n") == 2


def test_what_was_found_is_said_of_the_larger_profile_in_its_numbers(edit: Edit) -> None:
    strongest = {"clean": 0.721, "robust": 0.6125, "attacks": "fgsm, random_noise"}
    edit("leaderboard.csv", lambda table: table.assign(**strongest))
    judge(edit, "L3", verdict="reproduced")
    text = " ".join(front_page.found().split())
    assert "at profile `night`:** an undefended SEW-ResNet-18 of width 16, trained on 50,000 images" in text
    assert "classifies 72.1 % of the images" in text and "61.3 % under every attack here (fgsm, random noise)" in text
    assert "(claim L3): **reproduced**, at profile `night`." in text
    assert "profile night" in front_page.picture() and "no attack 72.1 %" in front_page.picture()


@pytest.mark.parametrize("lacking", ["file", "threat model", "network"])
def test_the_ladder_is_quicks_where_the_larger_profile_lacks_a_step(edit: Edit, lacking: str) -> None:
    if lacking == "file":
        (paths.published_dir("night") / "12_ladder.csv").unlink()
    elif lacking == "threat model":
        edit("12_ladder.csv", lambda table: table[table.threat_model != "image"])
    else:
        edit("leaderboard.csv", lambda table: table[table.network != ladder.NETWORK])
    assert ladder.ladder_profile() == "quick"
    assert "at profile `quick`" in front_page.found()


def test_without_any_ladder_or_claims_one_line_says_what_to_publish(home: Path) -> None:
    with pytest.raises(InputError, match="notebook 12"):
        ladder.ladder_profile()
    with pytest.raises(InputError, match="--publish"):
        evidence.judged()


def test_every_bar_of_the_ladder_and_its_number_stay_inside_the_picture(edit: Edit) -> None:
    edit("leaderboard.csv", lambda table: table.assign(clean=0.97))
    ladder.style.use_style()
    drawn = []
    close, ladder.plt.close = ladder.plt.close, drawn.append
    try:
        ladder.draw_ladder(ladder.ladder_steps("night"))
    finally:
        ladder.plt.close = close
    (figure,) = drawn
    figure.canvas.draw()
    axes = figure.axes[0]
    right = max(text.get_window_extent().x1 for text in axes.texts)
    close(figure)
    assert right <= axes.get_window_extent().x1


def test_the_leaderboard_is_of_the_largest_profile_that_ranks_two_networks(edit: Edit) -> None:
    links = "[`night`](figures/night/leaderboard.csv), [`quick`](figures/quick/leaderboard.csv)."
    shares = {"network": list("abcde"), "clean": 0.66, "robust": 0.05, "low": 0.027, "high": 0.09}
    ranked = pd.DataFrame({"rank": ["1", "1", "2", "1", ""], "eps255": [2, 6, 6, 8, 6], **shares})
    edit("leaderboard.csv", lambda _: ranked)
    board = front_page.leaderboard()
    assert board.startswith("Profile `night`;") and links in board and "| eps 6/255 |" in board
    assert board.splitlines()[-2:] == ["| b | 66 % | 5.0 [2.7, 9.0] % |", "| c | 66 % | 5.0 [2.7, 9.0] % |"]
    edit("leaderboard.csv", lambda _: ranked[ranked["rank"] == "1"])
    assert front_page.leaderboard().startswith("Profile `quick`;") and links in front_page.leaderboard()


def test_sizes_machines_and_what_is_missing_are_told_of_each_profile(edit: Edit) -> None:
    folder = paths.published_dir("night")
    results = read_table(folder / "results.parquet")
    made = [json.dumps(json.loads(made) | {"device": "cuda: NVIDIA H200"}) for made in results.made[:100]]
    results.loc[: len(made) - 1, "made"] = made
    write_table(folder / "results.parquet", results)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["notebooks"] = {chapter.number: {"seconds": 1} for chapter in gallery.chapters()[2:]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    night, quick, rest = (" ".join(part.split()) for part in front_page.size().split("\n* ")[1:])
    assert "width 8 and 16, 2 seeds, trained on 50,000 images of CIFAR-10, attacked on 500 to 1,000 others" in night
    others = len(results) - 100
    assert f"a CPU ({others} of {len(results)}) and an NVIDIA H200 (100 of {len(results)})" in night
    assert night.endswith("Not published: notebooks 00, 01.")
    assert "trained on 3,000 or 5,000 images of CIFAR-10, attacked on 100 others" in quick
    assert rest.startswith("Built, and not run to the end yet: `paper`.")


def test_the_sizes_of_a_profile_that_takes_everything_are_told() -> None:
    told = size_words.size_line("paper")
    assert "width 64, 3 seeds, trained on 50,000 images of CIFAR-10, attacked on 10,000 others" in told


def test_a_card_has_the_rows_of_the_profile_in_its_networks_name(edit: Edit) -> None:
    edit("leaderboard.csv", lambda table: table.assign(robust=0.4321))
    card = cards.released_card(cards.released_names()[0])
    assert "43.2 [" in "\n".join(cards.card_lines(card, "any-name-night-0"))
    assert "43.2 [" not in "\n".join(cards.card_lines(card, "any-name-quick-0"))
    shutil.rmtree(paths.published_dir("night"))
    missing = cards.card_lines(card, "any-name-night-0")
    assert missing[-1] == "What attacks leave of it: not published yet at profile `night`."


def test_pictures_of_both_profiles_are_shown_the_larger_first(edit: Edit) -> None:
    for path in paths.published_dir("night").glob("*.png"):
        if path.stem != "12_accuracy_vs_eps":
            path.unlink()
    for path in paths.published_dir("quick").glob("[23]*.png"):
        path.unlink()
    gone = gallery.thumbnail_path("12_gone", "night")
    gone.parent.mkdir(parents=True)
    gone.write_bytes(b"old")
    gallery.write_thumbnails()
    shown = re.findall(r"\]\((\w+)/12_accuracy_vs_eps\.png\)", gallery.gallery_markdown())
    assert shown == ["night", "quick"]
    assert [path.stem for path in gone.parent.iterdir()] == ["12_accuracy_vs_eps"]
    sources = re.findall(r'src="([^"]+)"', front_page.notebooks())
    assert "figures/thumbnails/night/12_accuracy_vs_eps.webp" in sources
    assert "figures/thumbnails/quick/10_training_curves.webp" in sources
    assert all((paths.ROOT / source).is_file() for source in sources)
