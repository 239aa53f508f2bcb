"""Figures: what is drawn is what the numbers say, and nothing falls out of the picture."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.patches import FancyBboxPatch
from torch import nn

from snnlib.companion.report.diagram import module_diagram, trace_block
from snnlib.companion.report.plotting import (
    KIND_COLOURS,
    accuracy_curve,
    figure,
    kind_of,
    legend_below,
    looks,
    membrane_trace,
    operations_bar,
    raster,
    show_images,
    use_style,
)
from snnlib.errors import InputError
from snnlib.models import build_model

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def house_style():
    with plt.rc_context():
        use_style()
        yield
        plt.close("all")


def curve_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "net": ["max", "max", "avg", "avg"],
            "eps255": [8, 0, 0, 8],
            "robust_accuracy": [0.25, 0.5, 0.6, 0.1],
            "low": [0.2, 0.4, 0.5, 0.05],
            "high": [0.3, 0.6, 0.7, 0.2],
        }
    )


def operations_table() -> pd.DataFrame:
    blocks = ["", "", "body.layer1.0", "body.layer1.0", "body.layer1.1", ""]
    return pd.DataFrame(
        {
            "operation": list("abcdef"),
            "kind": ["Conv2d", "MaxPool2d", "BatchNorm2d", "LIF", "Conv2d", "Linear"],
            "block": blocks,
            "zero_share_grad_input": [0.0, 0.8, 0.0, 0.25, 0.75, 0.0],
            "small_share_grad_input": [0.0, 0.8, 0.5, 0.25, 0.75, 0.0],
            "l2_grad_input": [0.1, 1.0, 0.2, 0.3, 0.4, 2.0],
        }
    )


def fits_the_page(fig) -> bool:
    drawn, page = fig.get_tightbbox(fig.canvas.get_renderer()), fig.bbox_inches
    return drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= page.x1 and drawn.y1 <= page.y1


def test_figure_has_the_page_width_and_an_axes_grid():
    fig, axes = figure("half", aspect=0.75, rows=2, columns=3)
    assert fig.get_size_inches().tolist() == [4.0, 3.0]
    assert axes.shape == (2, 3)
    with pytest.raises(InputError, match="width is 'third'"):
        figure("third")


def test_curve_is_sorted_in_percent_with_one_colour_and_marker_per_group():
    _, axes = figure()
    accuracy_curve(axes[0, 0], curve_table(), by="net", labels={"avg": "average pool"}, chance=0.1)
    first, second, chance = axes[0, 0].lines
    assert first.get_xdata().tolist() == [0, 8]
    assert first.get_ydata().tolist() == [50, 25]
    assert second.get_label() == "average pool"
    assert (first.get_color(), second.get_color()) == tuple(each.colour for each in looks(("max", "avg")).values())
    assert first.get_marker() != second.get_marker()
    assert chance.get_ydata()[0] == pytest.approx(10)
    assert axes[0, 0].get_ylim()[0] == 0 and axes[0, 0].get_ylim()[1] >= 70
    assert axes[0, 0].get_xlabel() == "eps (1/255)"


def test_band_covers_low_to_high_when_it_is_the_interval():
    _, axes = figure()
    accuracy_curve(axes[0, 0], curve_table()[:2])
    corners = axes[0, 0].collections[0].get_paths()[0].vertices
    assert {tuple(np.round(corner, 6)) for corner in corners} >= {(0, 40), (0, 60), (8, 20), (8, 30)}


def test_band_is_the_range_of_the_seeds_when_asked():
    _, axes = figure()
    seeds = pd.DataFrame({"eps255": [2, 2, 2, 2], "robust_accuracy": [0.1, 0.1, 0.3, 0.3]})
    accuracy_curve(axes[0, 0], seeds, band="seeds")
    assert axes[0, 0].lines[0].get_ydata().tolist() == pytest.approx([20])
    heights = axes[0, 0].collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((10, 30))


def test_curve_refuses_what_it_would_average_silently_or_cannot_find():
    _, axes = figure()
    with pytest.raises(InputError, match="several rows share one eps255"):
        accuracy_curve(axes[0, 0], curve_table())
    with pytest.raises(InputError, match=r"no columns \['low', 'high'\]"):
        accuracy_curve(axes[0, 0], curve_table().drop(columns=["low", "high"]), by="net")
    with pytest.raises(InputError, match="band is 'sem'"):
        accuracy_curve(axes[0, 0], curve_table(), band="sem")


def test_curves_on_one_axes_are_not_cut_when_the_second_is_higher():
    _, axes = figure()
    accuracy_curve(axes[0, 0], curve_table()[:2])
    accuracy_curve(axes[0, 0], curve_table()[2:])
    assert axes[0, 0].get_ylim()[1] >= 70


def test_operations_are_drawn_in_percent_and_grouped_by_block():
    fig, axes = figure(rows=2, sharex=True)
    operations_bar(axes, operations_table())
    upper, lower = axes.ravel()
    bars = upper.containers[0]
    assert [bar.get_height() for bar in bars] == pytest.approx([0, 80, 0, 25, 75, 0])
    assert matplotlib.colors.to_hex(bars[1].get_facecolor()) == KIND_COLOURS["pool"].lower()
    assert upper.lines[0].get_xdata().tolist() == [2]  # the only one with small entries beyond its zeros
    assert lower.get_yscale() == "log"
    names = [label.get_text() for label in lower.get_xticklabels()]
    assert names == ["stem", "layer\n1.0", "layer\n1.1", "head"]
    assert lower.get_xticks().tolist() == [0.5, 2.5, 4, 5]
    fig.canvas.draw()
    assert fits_the_page(fig)


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        ("Conv2d", "convolution"),
        ("BatchNorm2d", "normalisation"),
        ("LIF", "neuron"),
        ("IF", "neuron"),
        ("AdaptiveAvgPool2d", "pool"),
        ("Linear", "linear"),
        ("PhaseEncoder", "other"),
    ],
)
def test_kind_follows_the_class_name(kind, family):
    assert kind_of(kind) == family


def test_images_fill_the_grid_and_spare_axes_stay_empty():
    _, axes = figure(rows=2, columns=2)
    pictures = torch.zeros(3, 3, 4, 4)
    pictures[1, 2] = 1
    show_images(axes, pictures, ["a", "b", "c"])
    assert [len(ax.images) for ax in axes.ravel()] == [1, 1, 1, 0]
    assert axes[0, 1].images[0].get_array()[0, 0].tolist() == [0, 0, 1]
    assert not any(ax.axison for ax in axes.ravel())
    too_many = torch.zeros(5, 3, 2, 2)
    for bad, message in ((too_many, "5 images for 4"), (pictures * 2, "span"), (pictures[0], "shape")):
        with pytest.raises(InputError, match=message):
            show_images(axes, bad)


def test_raster_marks_each_spike_at_its_time_and_neuron():
    _, axes = figure()
    spikes = torch.zeros(5, 3)
    spikes[4, 1] = spikes[0, 2] = 1
    raster(axes[0, 0], spikes)
    ticks = [segment.tolist() for segment in axes[0, 0].collections[0].get_segments()]
    assert np.array(sorted(ticks)) == pytest.approx(np.array([[[0, 1.6], [0, 2.4]], [[4, 0.6], [4, 1.4]]]))
    with pytest.raises(InputError, match="shape"):
        raster(axes[0, 0], spikes[0])


def test_membrane_trace_draws_the_threshold_once_when_called_twice():
    _, axes = figure()
    ax = axes[0, 0]
    spikes = torch.eye(3)
    membrane_trace(ax, torch.tensor([0.2, 1.4, 0.1]), spikes[1], threshold=0.9, label="IF")
    membrane_trace(ax, torch.tensor([0.1, 0.2, 1.0]), spikes[2], threshold=0.9)
    assert sum(line.get_gid() == "threshold" for line in ax.lines) == 1
    marks = [line for line in ax.lines if line.get_gid() == "spikes"]
    assert [line.get_xdata().tolist() for line in marks] == [[1], [2]]
    assert ax.get_legend_handles_labels()[1] == ["IF", "threshold", "spike"]
    with pytest.raises(InputError, match="spikes has shape"):
        membrane_trace(ax, torch.zeros(3), torch.zeros(2))


def test_one_legend_serves_two_panels_when_it_lies_below():
    fig, axes = figure(columns=2)
    for ax in axes.ravel():
        accuracy_curve(ax, curve_table(), by="net", legend=False)
    legend_below(fig, axes[0, 0])
    assert axes[0, 0].get_legend() is None
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["max", "avg"]
    fig.canvas.draw()
    assert fits_the_page(fig)


def test_trace_follows_the_order_of_execution_and_the_shortcut():
    block = build_model("sew_resnet18", 10, 2, width=4, seed=0).body.layer2[0]
    before = {name: value.clone() for name, value in block.state_dict().items()}
    steps = trace_block(block.train())
    assert [step.name for step in steps] == [
        *("input", "conv1", "bn1", "sn1", "conv2", "bn2", "sn2"),
        *("downsample.0", "downsample.1", "downsample_sn", "+"),
    ]
    main_path, shortcut = [(), (0,), (1,), (2,), (3,), (4,), (5,)], [(0,), (7,), (8,)]
    assert [step.sources for step in steps] == [*main_path, *shortcut, (6, 9)]
    assert steps[1].detail == "3×3, stride 2"
    assert steps[1].shape == (8, 8, 8, 8) and steps[3].shape == (4, 2, 8, 8, 8)
    assert block.training
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in block.modules())


@pytest.mark.parametrize(
    ("options", "ending"),
    [
        ({"name": "sew_resnet18", "connection": "AND"}, [("×", (6, 0))]),
        ({"name": "sew_resnet18", "connection": "IAND"}, [("1 − x", (6,)), ("×", (7, 0))]),
        ({"name": "spiking_resnet18"}, [("+", (5, 0)), ("sn2", (6,))]),
    ],
)
def test_trace_shows_how_paths_meet_when_the_connection_changes(options, ending):
    block = build_model(num_classes=10, time_steps=2, width=4, seed=0, **options).body.layer1[0]
    steps = trace_block(block, (2, 1, 4, 6, 6))
    assert [(step.name, step.sources) for step in steps[-len(ending) :]] == ending


@pytest.mark.parametrize("layer", ["layer1", "layer2"])
def test_diagram_has_a_box_per_step_and_no_text_beyond_its_box(layer):
    block = getattr(build_model("sew_resnet18", 10, 2, width=4, seed=0).body, layer)[0]
    fig, axes = figure(aspect=1.0, columns=2)
    module_diagram(axes[0, 0], block)
    fig.canvas.draw()
    patches = [patch for patch in axes[0, 0].patches if isinstance(patch, FancyBboxPatch)]
    boxes = [patch.get_window_extent() for patch in patches]
    texts = [text.get_window_extent() for text in axes[0, 0].texts if text.get_text()]
    assert len(boxes) == len(texts) == len(trace_block(block))
    for box, text in zip(boxes, texts, strict=True):
        assert box.x0 <= text.x0 and text.x1 <= box.x1 and box.y0 <= text.y0 and text.y1 <= box.y1
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])


def test_diagram_asks_for_a_shape_when_there_is_no_convolution():
    with pytest.raises(InputError, match="pass input_shape"):
        trace_block(nn.Sequential(nn.ReLU()))
