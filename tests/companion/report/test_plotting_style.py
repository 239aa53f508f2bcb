"""Looks and captions: one colour and marker per thing, everywhere, and a picture that says what it shows."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from snnlib.companion.report import plotting, style
from snnlib.errors import InputError


@pytest.fixture(autouse=True)
def house_style():
    with plt.rc_context():
        style.use_style()
        yield
        plt.close("all")


@pytest.mark.parametrize("family", [style.NETWORKS, style.ATTACKS, style.THREATS, style.GRADIENTS])
def test_no_two_of_a_family_look_alike(family):
    assert len(set(family.values())) == len(family)


def test_no_colour_stands_for_a_network_and_for_an_attack():
    colours = [{each.colour for each in family.values()} for family in (style.NETWORKS, style.ATTACKS, style.THREATS)]
    assert not (colours[0] & colours[1] or colours[0] & colours[2] or colours[1] & colours[2])


def test_a_network_looks_the_same_whatever_stands_beside_it():
    alone = style.looks(["SEW-ResNet-18, max pool"])["SEW-ResNet-18, max pool"]
    beside = style.looks(["something new", "SEW-ResNet-18, average pool", "SEW-ResNet-18, max pool"])
    assert beside["SEW-ResNet-18, max pool"] == alone == style.look("SEW-ResNet-18, max pool")


def test_unknown_labels_are_stable_and_differ_within_a_picture():
    names = [f"network {number}" for number in range(8)]
    found = style.looks(names)
    assert len({each.colour for each in found.values()}) == len({each.marker for each in found.values()}) == 8
    assert style.looks(reversed(names)) == found
    assert style.look("network 3") == style.Look("#0173b2", "*", (4, 1.5, 1, 1.5))


def test_numbers_take_shades_in_their_order():
    assert style.looks([8, 0.25, 1]) == style.looks([0.25, 1, 8])
    assert style.looks([8, 0.25, 1])[0.25].colour == "#440154"


def points() -> pd.DataFrame:
    return pd.DataFrame({"model": "net", "seed": [0, 1], "samples": 50, "eps255": [0, 6.0], "interval": "95 %"})


def test_the_caption_reads_network_images_seeds_eps_and_interval_from_the_table():
    fig, _ = style.figure()
    style.caption(fig, points())
    assert fig.get_supxlabel() == "net · 50 images · seeds 0, 1 · eps 6 (1/255) · 95 %"


def test_the_caption_leaves_several_networks_to_the_legend_and_takes_what_is_given():
    fig, _ = style.figure()
    several = pd.concat([points(), points().assign(model="other", samples=70)])
    style.caption(fig, several, seeds=[3], eps="2 to 4", marks="one line per seed")
    assert fig.get_supxlabel() == "50 to 70 images · seed 3 · eps 2 to 4 (1/255) · one line per seed"
    with pytest.raises(InputError, match="the caption is empty"):
        style.caption(fig)


@pytest.mark.parametrize("legend_first", [True, False])
def test_caption_and_legend_do_not_cover_each_other_or_the_axes(legend_first):
    fig, axes = style.figure(columns=2)
    for ax in axes.ravel():
        ax.plot([0, 1], [0, 1], label="a line")
        ax.set_xlabel("x")
    steps = [lambda: style.legend_below(fig, axes[0, 0]), lambda: style.caption(fig, points(), marks="word " * 40)]
    for step in steps if legend_first else reversed(steps):
        step()
    fig.canvas.draw()
    caption, legend = fig.legends[0].get_title().get_window_extent(), fig.legends[0].get_texts()[0].get_window_extent()
    labels = [ax.xaxis.label.get_window_extent() for ax in axes.ravel()]
    assert fig.legends[0].get_title().get_text().startswith("net · 50 images") and not fig.get_supxlabel()
    assert legend.y0 >= 0 and legend.y1 <= caption.y0 and all(caption.y1 <= label.y0 for label in labels)
    assert caption.x0 >= 0 and caption.x1 <= fig.bbox.x1


def test_a_row_without_a_bar_says_why():
    _, axes = style.figure()
    style.missing(axes[0, 0], 2, "does not apply")
    (text,) = axes[0, 0].texts
    assert text.get_text() == "does not apply" and text.get_position()[1] == 2


def test_the_same_table_gives_the_same_bytes():
    def drawn() -> bytes:
        table = pd.DataFrame({"model": list("aabb"), "eps255": [0, 1] * 2, "y": [0.1, 0.2, 0.3, 0.4]})
        table = table.assign(low=table.y - 0.05, high=table.y + 0.05)
        fig, axes = style.figure(columns=3)
        plotting.curves(axes[0, 0], table, x="eps255", y="y", by="model")
        plotting.bars(axes[0, 1], table, rows="model", value="y", by="eps255")
        plotting.heat_map(axes[0, 2], table, rows="model", columns="eps255", value="y")
        buffer = io.BytesIO()
        fig.savefig(buffer, metadata={"Software": None})
        plt.close(fig)
        return buffer.getvalue()

    assert drawn() == drawn()
