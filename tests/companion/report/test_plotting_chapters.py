"""Every picture of a chapter draws from a tiny table, fits its page and says what it shows."""

from __future__ import annotations

import io
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from snnlib.audit import AuditReport
from snnlib.audit.report import AttackLine
from snnlib.companion.ozdenizci2024.members import published_members
from snnlib.companion.report import figures_black_box as black_box
from snnlib.companion.report import figures_conversion as conversion
from snnlib.companion.report import figures_further as further
from snnlib.companion.report import figures_luu as luu
from snnlib.companion.report import figures_ours as ours
from snnlib.companion.report import figures_theorems as theorems
from snnlib.companion.report.style import use_style

MAX, AVERAGE = "SEW-ResNet-18, max pool", "SEW-ResNet-18, average pool"
CONVERTED, SCRATCH = "SNN, conversion from TRADES", "SNN, end to end, equal time"
SEEDS = {"seed": [0, 1]}


def crossed(**columns: list) -> pd.DataFrame:
    """Every combination of the columns' values, in the order of the first ones."""
    table = pd.MultiIndex.from_product(columns.values(), names=columns).to_frame(index=False)
    return table.assign(share=np.linspace(0.2, 0.6, len(table)))


def shares(y: str, **columns: list) -> pd.DataFrame:
    table = crossed(**columns).rename(columns={"share": y})
    return table.assign(samples=50, low=table[y] - 0.1, high=table[y] + 0.1)


def operations() -> pd.DataFrame:
    table = crossed(seed=[0, 1], operation=["conv1", "pool", "fc"], batch_norm=["train", "eval"])
    kinds = table.operation.map({"conv1": "Conv2d", "pool": "MaxPool2d", "fc": "Linear"})
    measured = {"zero_share_grad_input": table.share, "small_share_grad_input": 0.9, "l2_grad_input": 1 + table.share}
    return table.assign(kind=kinds, block="", inside_residual_block=False, model=MAX, **measured)


def examples() -> Figure:
    images, labels = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    block = {"FGSM": (images, labels), "PGD": ((images + 0.02).clamp(0, 1), labels.flip(0))}
    blocks = {"bit planes move by up to 6/255": block, "pixels move by up to 6/255": block}
    return luu.adversarial_examples(images, labels, labels, blocks, [2, 0, 1], "abcd", f"{MAX}, seed 0")


def ratios() -> pd.DataFrame:
    kinds = {"network_is": ["relaxation", "deployed"], "model": [MAX, AVERAGE], **SEEDS}
    table = crossed(**kinds, sample=[0, 1], eps255=[1e-4, 0.25, 6])
    table = table.assign(eps=table.eps255 / 255, l1=5.0, first_order=10.0, upper=300.0, ratio=10 * table.share)
    return table.assign(rho_adv=(table.eps * table.l1 * table.share) ** 2)


def ranking() -> pd.DataFrame:
    table = crossed(model=[MAX, AVERAGE], **SEEDS, sample=[0, 1])
    return table.assign(l0=100, l1_squared=table.share * 50, rho_adv=table.share)


def dose() -> pd.DataFrame:
    table = crossed(network_is=["relaxation", "deployed"], model=[MAX], share=[0.1, 1.0], sample=[0, 1])
    return table.assign(nonzeros=100 * table.iloc[:, 2], rho_adv=0.1)


def density() -> pd.DataFrame:
    table = crossed(model=[MAX, AVERAGE], layer=["a", "b"])
    return table.assign(density=table.share, union=table.share, architecture_spikes=0.7, S=0.1, r=0.8)


def thinned() -> tuple[pd.DataFrame, pd.DataFrame]:
    q = pd.DataFrame({"density": [0.5, 1.0]})
    return q.assign(snr=q.density / 3, expected=q.density / 2, unthinned=1.0), q.assign(decrease=0.2, guaranteed=0.1)


def certified() -> pd.DataFrame:
    table = pd.concat([crossed(smoothing=["gaussian"], sigma=[0.06, 0.12], radius=[0.0, 0.1]),
                       crossed(smoothing=["poisson"], sigma=[4.0], radius=[0.0, 0.1])])  # fmt: skip
    return table.assign(certified=0.5 - table.radius, images=50)


def costs() -> pd.DataFrame:
    table = crossed(model=[CONVERTED, SCRATCH], **SEEDS)
    return table.assign(**{f"{cost}, over end to end": table.share for cost in conversion.COSTS})


def member_figure() -> Figure:
    published = published_members()
    networks = {"conversion": CONVERTED, "end to end": SCRATCH}
    table = shares("robust_accuracy", kind=list(networks), member=list(published.index), **SEEDS)
    together = shares("robust_accuracy", kind=list(networks), **SEEDS)
    return conversion.members(table, published, together, 8, networks)


def attacks() -> pd.DataFrame:
    table = shares("robust_accuracy", model=[MAX, AVERAGE], eps255=[2, 8], attack=list(black_box.ATTACK_NAMES))
    return table[(table.attack != "transfer") | (table.eps255 == 8)]


def single() -> Figure:
    rows = crossed(attacker=["own gradient", "max pool as ties"], **SEEDS, sample=list(range(4)))
    rows = rows.assign(success=rows.share > 0.4)
    attackers = pd.DataFrame({"attacker": [*rows.attacker.unique(), "hart"], "group": ["own", "pool", "rule"]})
    return ours.same_function({"image": rows, "encoded": rows}, attackers, 2, MAX)


def speed() -> pd.DataFrame:
    table = crossed(shape=["4x8x8", "2x8x8"], contender=["snnlib", "Norse", "floor (bytes)"])
    return table.assign(best_ms=table.share, rounds=5, device="cpu")


def report() -> AuditReport:
    lines = tuple(AttackLine(label, 40, 1, True, left, 10, 5) for label, left in (("noise", 38), ("PGD", 20)))
    surface = [{"along_gradient": a, "along_noise": n, "margin": a - 1.0} for a in (-1, 0, 2) for n in (-1, 1)]
    curves = {"eps": [{"eps": 0.0, "robust_accuracy": 1.0}], "surface": surface}
    counts = {"images": 50, "correct": 40, "own_robust": 20, "robust": 20, "seed": 0}
    return AuditReport("Net", eps=8 / 255, norm="linf", effort={}, findings=(), attacks=lines, curves=curves, **counts)


FIGURES: dict[str, Callable[[], Figure]] = {
    "10": lambda: luu.training(crossed(model=[MAX, AVERAGE], **SEEDS, epoch=[1, 2]).rename(
        columns={"share": "validation_accuracy"}), images=100),
    "11": examples,
    "12 curves": lambda: luu.accuracy_vs_eps(shares("robust_accuracy", threat_model=["authors", "image"],
        attack=["fgsm", "pgd"], model=[MAX, AVERAGE], **SEEDS, eps255=[0, 6]), [6]),
    "12 ladder": lambda: luu.threat_model_ladder(shares("robust_accuracy", model=[MAX, AVERAGE],
        threat_model=["authors, drifting BN", "image"], attack=["fgsm", "pgd"], **SEEDS)),
    "13": lambda: luu.gradient_sparsity(operations(), 20, MAX),
    "16 linearisation": lambda: theorems.linearisation(ratios()),
    "16 slack": lambda: theorems.ratio_slack(ratios()),
    "16 norms": lambda: theorems.vulnerability_norms(ranking(), dose()),
    "16 density": lambda: theorems.density(density(), 20, [0, 1]),
    "16 thinning": lambda: theorems.thinning(*thinned()),
    "16 certificates": lambda: theorems.certificates(certified(), MAX, 0, 4, 40, 0.001),
    "20": lambda: conversion.training_and_robustness(
        crossed(model=["ANN, AT", "ANN, MART"], **SEEDS, epoch=[1, 2]).rename(columns={"share": "validation_accuracy"}),
        crossed(model=["ANN, AT", "ANN, MART"], **SEEDS, eps255=[0, 2]).rename(columns={"share": "accuracy"}),
        validation=50, test=100, attacked=20, steps=5),
    "21 steps": lambda: conversion.steps_of_conversion(
        crossed(step=["ANN", "fine-tuned"], **SEEDS).assign(clean=0.5, robust=0.2), 2,
        test=100, attacked=20, network=CONVERTED),
    "21 thresholds": lambda: conversion.thresholds(
        crossed(number=[1, 2], **SEEDS).assign(calibrated=3.0, scaled=1.0, fine_tuned=0.9), CONVERTED),
    "21 time steps": lambda: conversion.time_steps(
        crossed(time_steps=[2, 8], **SEEDS).assign(clean=0.5, robust=0.2), 2, 4,
        test=100, attacked=20, network=CONVERTED),
    "22 members": member_figure,
    "22 survivors": lambda: conversion.survivors(
        crossed(attack=["fgsm", "pgd"], kind=["conversion", "end to end"], **SEEDS, number=[1, 19]).rename(
            columns={"share": "standing"}), 8, 5, 50, {"conversion": CONVERTED, "end to end": SCRATCH}),
    "23": lambda: conversion.accuracy_vs_eps(
        crossed(attack=["fgsm"], model=[CONVERTED, SCRATCH, "ANN, AT"], **SEEDS, eps255=[0, 8]).rename(
            columns={"share": "accuracy"}), {"fgsm": "FGSM by 19 members"}, test=100, attacked=20),
    "24 spikes": lambda: conversion.spikes_per_layer(
        crossed(model=[CONVERTED, SCRATCH], **SEEDS, number=[1, 2]).rename(columns={"share": "spikes_per_neuron"}),
        4, 20),
    "24 operations": lambda: conversion.operations(costs(), 20),
    "30 audit": lambda: ours.audit(report(), MAX, 0),
    "30 one function": single,
    "30 pixels": lambda: ours.hidden_pixels(crossed(keep=[0.1, 1.0], **SEEDS).rename(columns={"share": "left"}),
        50, 2, MAX),
    "30 worst case": lambda: ours.worst_case(shares("robust_accuracy", threat_model=["image", "encoded"],
        model=[MAX, AVERAGE], **SEEDS, eps255=[6], stage=["own", "pool"]), [("image", 6), ("encoded", 6)]),
    "31 attacks": lambda: black_box.side_by_side(attacks(), [0, 1], 8),
    "31 queries": lambda: black_box.queries(shares("robust_accuracy", model=[MAX, AVERAGE], eps255=[2, 8],
        attack=["square", "rays"], queries=[1, 10]), attacks(), [0, 1]),
    "31 transfer": lambda: black_box.transfer_matrix(shares("attack_success_rate", model=[MAX, AVERAGE],
        source=[MAX, "ANN proxy"], eps255=[8]), [0, 1]),
    "31 flips": lambda: black_box.bit_flips(shares("robust_accuracy", model=[MAX], attack=["bit_flip", "random_noise"],
        flips=[4, 64]), [0, 1]),
    "32": lambda: ours.broken_by_passes(crossed(model=[CONVERTED, SCRATCH], way=["worst case (ours)", "APGD-CE"],
        eps255=[2], passes=[1, 10]).rename(columns={"share": "broken"}), 50, [0, 1]),
    "32 differences": lambda: ours.worst_case_differences(shares("difference", model=[CONVERTED, SCRATCH],
        way=["19 members × PGD", "APGD-CE, narrow"], passes=[204, 1200]), 50, [0, 1]),
    "33": lambda: further.side_by_side({title: crossed(network=["natural", "HAT"], **SEEDS).assign(clean=0.5, worst=0.2)
        for title in ("Q3: conversion from", "Q4: then")}, 4, test=100, attacked=20),
    "34 evaluations": lambda: further.defences(crossed(defence=["none", "TGO"], **SEEDS).assign(
        clean=0.5, protocol=0.3, **{"worst 2/255": 0.2}), [2], protocol=8, attacked=20),
    "34 sparsity": lambda: further.trained_and_architectural(pd.DataFrame({"network": ["TGO", MAX], "seed": 0,
        "kind": ["trained", "architectural"], "learned": [True, False], "kept": [0.3, 0.1], "zero_share": [0.1, 0.6],
        "l1": [1.0, 20.0]}),
        2, "20 images"),
    "40": lambda: ours.lif_speed(speed()),
}  # fmt: skip


@pytest.fixture(params=FIGURES)
def drawn(request) -> tuple[str, Figure]:
    with plt.rc_context():
        use_style()
        fig = FIGURES[request.param]()
        fig.canvas.draw()
        yield request.param, fig
        plt.close("all")


def caption_of(fig: Figure) -> str:
    said = fig.get_supxlabel() or fig.legends[0].get_title().get_text()
    return " ".join(said.split())


def bytes_of(fig: Figure) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=50, metadata={"Software": None})
    return buffer.getvalue()


def test_it_fits_its_page_fills_its_panels_and_has_a_caption(drawn):
    name, fig = drawn
    box, page = fig.get_tightbbox(fig.canvas.get_renderer()), fig.bbox_inches
    assert box.x0 >= -0.01 and box.y0 >= -0.01 and box.x1 <= page.x1 + 0.01 and box.y1 <= page.y1 + 0.01
    assert all(ax.has_data() for ax in fig.axes)
    assert "seed" in caption_of(fig) or name in ("16 thinning", "40")
    assert not any("[ours]" in text.get_text() for text in fig.findobj(Text))


@pytest.mark.parametrize("name", ["12 ladder", "16 slack", "31 transfer", "23"])
def test_the_same_table_gives_the_same_bytes(name):
    with plt.rc_context():
        use_style()
        assert bytes_of(FIGURES[name]()) == bytes_of(FIGURES[name]())
        plt.close("all")


def test_captions_count_what_the_tables_count():
    with plt.rc_context():
        use_style()
        ends = "mean of the seeds; interval: outermost ends of their 95 % intervals"
        expected = {
            "12 curves": f"50 images · seeds 0, 1 · eps 6 (1/255) · {ends}",
            "21 thresholds": f"{CONVERTED} · seeds 0, 1 · mean and range of the seeds",
            "23": f"seeds 0, 1 · eps 8 (1/255) · SNNs; 100 test images clean, 20 under attack; {ends}",
            "31 flips": f"{MAX} · 50 images · seeds 0, 1 · bands: 95 % Wilson interval over the images of all seeds",
        }
        assert {name: caption_of(FIGURES[name]()) for name in expected} == expected
        plt.close("all")


def test_what_was_not_run_is_said_where_its_bar_would_be():
    with plt.rc_context():
        use_style()
        ladder, attacks_figure = FIGURES["12 ladder"](), FIGURES["31 attacks"]()
        said = [{text.get_text() for ax in fig.axes for text in ax.texts} for fig in (ladder, attacks_figure)]
        assert said[0] >= {"not run"} and said[1] == {"run at 8/255 only"}
        assert luu._why_no_step("authors, drifting BN", "random_noise") == "noise moves no statistics"
        assert luu._why_no_step("image, smooth encoder", "pgd") == "encoder is exact"
        plt.close("all")
