"""Statistical pictures draw the numbers and intervals of their tables and nothing else."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from snnlib.companion.measure.rows import wilson_interval
from snnlib.companion.report.statistical import (
    ENDS_OF_SEEDS,
    RANGE_OF_SEEDS,
    bars,
    curves,
    distribution,
    heat_map,
    over_seeds,
)
from snnlib.companion.report.style import look, use_style
from snnlib.errors import InputError


@pytest.fixture
def ax():
    with plt.rc_context():
        use_style()
        fig, axes = plt.subplots()
        yield axes
        plt.close(fig)


def attacked() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "net": ["a", "a", "b"],
            "attack": ["fgsm", "pgd", "fgsm"],
            "left": [0.5, 0.2, 0.4],
            "low": [0.4, 0.1, 0.3],
            "high": [0.7, 0.3, 0.5],
        }
    )


def test_over_seeds_reaches_from_the_lowest_to_the_highest_end():
    table = pd.DataFrame({"net": "a", "seed": [0, 1], "y": [0.2, 0.4], "low": [0.1, 0.3], "high": [0.3, 0.5]})
    (line,) = over_seeds(table, ["net"], "y").to_dict("records")
    assert (line["y"], line["low"], line["high"]) == pytest.approx((0.3, 0.1, 0.5))
    assert line["interval"] == ENDS_OF_SEEDS


def test_over_seeds_takes_the_wilson_interval_of_each_seed_where_images_are_counted():
    table = pd.DataFrame({"net": "a", "seed": [0, 1], "y": [0.2, 0.4]})
    (line,) = over_seeds(table, ["net"], "y", images=50).to_dict("records")
    assert (line["low"], line["high"]) == (wilson_interval(10, 50)[0], wilson_interval(20, 50)[1])
    assert line["samples"] == 50
    by_column = over_seeds(table.assign(samples=[50, 10]), ["net"], "y")
    assert by_column.high.item() == wilson_interval(4, 10)[1]


def test_over_seeds_is_the_range_where_nothing_is_known_of_the_images():
    table = pd.DataFrame({"net": ["b", "a", "b"], "y": [3.0, 1.0, 5.0]})
    found = over_seeds(table, ["net"], "y")
    assert found.net.tolist() == ["b", "a"] and found.low.tolist() == [3, 1] and found.high.tolist() == [5, 1]
    assert set(found.interval) == {RANGE_OF_SEEDS}


def test_curves_wear_the_looks_of_their_labels_and_draw_unit_by_unit(ax):
    table = pd.DataFrame({"net": "pgd", "seed": [0, 0, 1, 1], "x": [1, 0, 0, 1], "y": [0.1, 0.2, 0.3, 0.4]})
    curves(ax, table, x="x", y="y", by="net", names={"pgd": "PGD"}, units="seed")
    assert [line.get_ydata().tolist() for line in ax.lines] == [pytest.approx([20, 10]), pytest.approx([30, 40])]
    assert {line.get_color() for line in ax.lines} == {look("pgd").colour}
    assert ax.get_legend_handles_labels()[1] == ["PGD"] and not ax.collections
    with pytest.raises(InputError, match="several rows share one x 0"):
        curves(ax, table, x="x", y="y", by="net")


def test_more_than_four_bands_become_whiskers(ax):
    table = pd.DataFrame({"net": list("abcde"), "x": 1, "y": 0.5, "low": 0.4, "high": 0.7})
    curves(ax, table, x="x", y="y", by="net")
    ends = [segment[:, 1].tolist() for drawn in ax.collections for segment in drawn.get_segments()]
    assert ends == [pytest.approx([40, 70])] * 5


def test_bars_have_their_lengths_places_and_whiskers(ax):
    bars(ax, attacked(), rows="net", value="left", by="attack", names={"a": "net a", "pgd": "PGD"}, why="not run")
    found = {(round(bar.get_y() + bar.get_height() / 2, 6), bar.get_width()) for bar in ax.patches if bar.get_width()}
    assert found == {(-0.2, 50.0), (0.2, 20.0), (0.8, 40.0)}
    whiskers = sorted((seg.tolist() for drawn in ax.collections for seg in drawn.get_segments()), key=lambda s: s[0][1])
    assert np.array(whiskers) == pytest.approx(
        np.array([[[40, -0.2], [70, -0.2]], [[10, 0.2], [30, 0.2]], [[30, 0.8], [50, 0.8]]])
    )
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("not run", pytest.approx(1.2))]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["net a", "b"]
    assert ax.get_legend_handles_labels()[1] == ["fgsm", "PGD"]
    assert ax.get_ylim() == (1.5, -0.5)


def test_bars_follow_a_given_order_and_show_single_seeds(ax):
    table = pd.DataFrame({"net": ["a", "b"], "left": [0.3, 0.6]})
    seeds = pd.DataFrame({"net": ["a", "a", "b"], "left": [0.2, 0.4, 0.6]})
    order = ["b", "c", "a"]
    bars(ax, table, rows="net", value="left", order=order, each=seeds, why=lambda row, _: f"no {row}")
    assert sorted((round(bar.get_y() + 0.4, 6), bar.get_width()) for bar in ax.patches) == [(0, 60.0), (2, 30.0)]
    dots = {y: sorted(line.get_xdata()) for line in ax.lines if line.get_marker() == "o" for y in line.get_ydata()}
    assert dots == {0: pytest.approx([60]), 2: pytest.approx([20, 40])}
    assert [text.get_text() for text in ax.texts] == ["no c"]


def test_dots_in_place_of_bars_are_hollow_for_attacks_without_a_gradient(ax):
    table = pd.DataFrame({"attack": ["square", "pgd"], "left": [0.3, 0.2], "low": 0.1, "high": 0.4})
    bars(ax, table, rows="attack", value="left", dots=True)
    square, pgd = (line for line in ax.lines if len(line.get_xdata()) and line.get_marker() in "sD")
    assert (square.get_markerfacecolor(), pgd.get_markerfacecolor()) == ("white", look("pgd").colour)
    assert not ax.patches


def test_bars_refuse_two_rows_for_one_bar(ax):
    with pytest.raises(InputError, match="several rows share one net a"):
        bars(ax, attacked(), rows="net", value="left")


def test_a_heat_map_writes_value_and_interval_and_leaves_missing_pairs_empty(ax):
    heat_map(ax, attacked(), rows="net", columns="attack", value="left", names={"pgd": "PGD"})
    assert [text.get_text() for text in ax.texts] == ["50\n(40–70)", "20\n(10–30)", "40\n(30–50)"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["fgsm", "PGD"]
    with pytest.raises(InputError, match="no columns"):
        heat_map(ax, attacked(), rows="net", columns="attack", value="right")


def test_a_distribution_counts_what_lies_beyond_its_bins_in_the_outermost(ax):
    table = pd.DataFrame({"x": [-5.0, 0.5, 1.5, 1.6, 9.0], "by": "a"})
    distribution(ax, table, x="x", by="by", bins=[0, 1, 2])
    assert max(ax.lines[0].get_ydata()) == 3
    assert ax.get_legend_handles_labels()[1] == ["a"]
