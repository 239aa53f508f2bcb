"""The pictures of notebook 16: what is measured of the theorems, from its tables; every title says which statement."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from snnlib.companion.luu2025.statements import STATEMENTS
from snnlib.companion.luu2025.theorems import certified_curve
from snnlib.companion.report.statistical import curves, distribution
from snnlib.companion.report.style import caption, figure, legend_below, looks, measured_ticks

SPREAD = "line: median over samples and seeds, band: 10th to 90th percentile"


def linearisation(ratios: pd.DataFrame) -> Figure:
    """√ρ_adv over its first-order value eps ‖g‖₁, per eps, for the relaxation and the deployed network."""
    kinds = list(dict.fromkeys(ratios.network_is))
    fig, axes = figure("full", aspect=0.5, columns=len(kinds), sharey=True)
    for ax, kind, name in zip(axes[0], kinds, ("O1", "P4"), strict=True):
        rows = ratios[ratios.network_is == kind]
        share = np.sqrt(rows.rho_adv) / (rows.eps * rows.l1)
        groups = share.groupby([rows.model, rows.eps255], sort=False)
        table = groups.quantile([0.1, 0.5, 0.9]).unstack().reset_index()
        table = table.rename(columns={0.1: "low", 0.5: "share", 0.9: "high"})
        curves(ax, table[table.share > 0], x="eps255", y="share", by="model", scale=1)
        ax.axhline(1, color="black", linestyle=":", label="first order")
        ax.set(title=titled(kind, name), yscale="log", ylabel="√ρ_adv / (eps ‖g‖₁)")
        measured_ticks(ax, _levels(rows))
    axes[0, -1].set_ylabel("")
    legend_below(fig, axes[0, 0], columns=2)
    caption(fig, ratios, images=_images(ratios), eps=_levels(ratios), marks=SPREAD)
    return fig


def ratio_slack(ratios: pd.DataFrame) -> Figure:
    """Where the measured ratio lies between theorem 4.1's bounds, in units of its first-order value."""
    kinds, bins = list(dict.fromkeys(ratios.network_is)), np.logspace(-5, 2, 43)
    fig, axes = figure("full", aspect=0.55, columns=len(kinds), sharey=True)
    for ax, kind in zip(axes[0], kinds, strict=True):
        rows = ratios[(ratios.network_is == kind) & (ratios.ratio > 0)]
        rows = rows.assign(slack=rows.ratio / rows.first_order)
        levels = {level: f"eps = {level:g}/255" for level in rows.eps255}
        distribution(ax, rows.sort_values("eps255"), x="slack", by="eps255", bins=bins, names=levels)
        ax.axvline((rows.upper / rows.first_order).median(), color="black", ls="--", label="upper bound 3‖g‖₀")
        ax.axvline((3 / rows.first_order).median(), color="black", ls=":", label="lower bound 3")
        ax.set(title=titled(kind, "4.1"), xlabel="ratio / (3 ‖g‖₁²/‖g‖₂²)", xscale="log", ylabel="samples")
        ax.legend(fontsize=8, loc="upper left")
    networks, marks = "; ".join(dict.fromkeys(ratios.model)), "bounds: medians over samples"
    caption(fig, ratios, networks=networks, images=_images(ratios), eps=_levels(ratios), marks=marks)
    return fig


def vulnerability_norms(ranking: pd.DataFrame, dose: pd.DataFrame) -> Figure:
    """ρ_adv of the deployed network against ‖g‖₀ and ‖g‖₁² per sample, and against a count that is set by hand."""
    fig, axes = figure("full", aspect=0.5, columns=3)
    for model, each in looks(ranking.model).items():
        rows = ranking[ranking.model == model]
        for ax, values in zip(axes[0][:2], (rows.l0 / rows.l0.max(), rows.l1_squared), strict=True):
            ax.plot(values, rows.rho_adv, label=model, linestyle="", ms=4, alpha=0.7, **each.points)
    for kind, dash in zip(dict.fromkeys(dose.network_is), ("-", "--"), strict=True):
        rows = dose[dose.network_is == kind]
        medians = rows.groupby(["model", "share"], sort=False)[["nonzeros", "rho_adv"]].median().reset_index()
        options = {"by": "model", "scale": 1, "linestyle": dash}
        curves(axes[0, 2], medians, x="nonzeros", y="rho_adv", **options)
    axes[0, 0].set(title=titled("", "4.1", 20), xlabel="‖g‖₀ / largest", yscale="log", ylabel="ρ_adv, deployed, 6/255")
    axes[0, 1].set(title=titled("", "O2", 24), xlabel="‖g‖₁²", xscale="log", yscale="log")
    axes[0, 2].set(title="‖g‖₀ set by hand", xlabel="movable coordinates", ylabel="", xscale="log", yscale="log")
    legend_below(fig, axes[0, 0], columns=2)
    marks = "points: samples; right: medians, solid the relaxation at 0.25/255, dashed the deployed network at 6/255"
    caption(fig, ranking, marks=marks)
    return fig


def density(layers: pd.DataFrame, images: int, seeds: list[int]) -> Figure:
    """Density of weight gradients beside theorem 4.3's bound (1 − S)·r, per layer; crosses are the exact union."""
    fig, axes = figure("full", aspect=0.5, columns=2)
    left, right = axes[0]
    for model, each in looks(layers.model).items():
        rows = layers[layers.model == model]
        left.plot(100 * rows.architecture_spikes, 100 * rows.density, linestyle="", label=model, **each.points)
        left.plot(100 * rows.architecture_spikes, 100 * rows["union"], "x", color="black", ms=3)
        thin = {"color": each.colour, "marker": each.marker, "lw": 1.2, "ms": 4}
        right.plot(range(len(rows)), 100 * rows.r, **thin)
        right.plot(range(len(rows)), 100 * (1 - rows.S), linestyle=":", **thin)
    left.plot([0, 100], [0, 100], color="black", lw=1, label="bound")
    left.set(title=titled("", "4.3", 34), xlabel="(1 − S)·r (%)", ylabel="density of ∂L/∂W (%)")
    right.set(title="the two factors: r solid, 1 − S dotted", xlabel="layer, in forward order", ylabel="share (%)")
    legend_below(fig, left, columns=2)
    caption(fig, images=images, seeds=seeds, marks="means over samples and seeds; crosses: the exact union (O3)")
    return fig


def thinning(snr: pd.DataFrame, progress: pd.DataFrame) -> Figure:
    """Signal-to-noise and guaranteed decrease of a randomly thinned gradient over its density q."""
    fig, axes = figure("full", aspect=0.5, columns=2)
    left, right = axes[0]
    left.plot(snr.density, snr.snr / snr.unthinned, "o", label="measured, μ = σ")
    left.plot(snr.density, snr.expected / snr.unthinned, label="q μ² / (σ² + (1−q) μ²)")
    left.plot([0, 1], [0, 1], color="black", linestyle=":", label="bound q")
    left.set(title=titled("", "4.2", 34), xlabel="density q", ylabel="SNR(q) / SNR(1)")
    right.plot(progress.density, progress.decrease, "o", label="expected decrease, exact")
    right.plot(progress.density, progress.guaranteed, color="black", linestyle=":", label="guaranteed P(q)")
    right.set(title=titled("", "4.4", 34), xlabel="density q", ylabel="decrease of the risk")
    for ax in axes[0]:
        ax.legend(loc="upper left")
    caption(fig, marks="a drawn gradient and a quadratic risk, no network; the statements' own small cases")
    return fig


def certified_curves(certificates: pd.DataFrame, points: int = 60) -> pd.DataFrame:
    """Certified accuracy over the radius per smoothing and sigma, with the columns smoothing and sigma."""
    parts = []
    for (smoothing, sigma), rows in certificates.groupby(["smoothing", "sigma"]):
        reach = rows.radius.max() if rows.radius.notna().any() else 0.1
        curve = certified_curve(rows, np.linspace(0, 1.05 * reach, points))
        parts.append(curve.assign(smoothing=smoothing, sigma=sigma))
    return pd.concat(parts, ignore_index=True)


def certificates(table: pd.DataFrame, network: str, seed: int, time_steps: int, draws: int, risk: float) -> Figure:
    """Certified accuracy over the radius, of `certified_curves`: Gaussian noise in L2, Poisson coding in L1.

    draws: of noise per image. risk: that one certificate is wrong.
    """
    fig, axes = figure("full", aspect=0.5, columns=2, sharey=True)
    panels = (("gaussian", "C1", "L2 radius"), ("poisson", "O6", "L1 radius (1/255, summed over pixels)"))
    for ax, (smoothing, name, label) in zip(axes[0], panels, strict=True):
        rows = table[(table.smoothing == "gaussian") == (smoothing == "gaussian")]
        rows = rows.assign(radius=rows.radius * (1 if smoothing == "gaussian" else 255))
        names = {each: f"σ = {each:g}" if smoothing == "gaussian" else f"T = {time_steps}" for each in rows.sigma}
        curves(ax, rows, x="radius", y="certified", by="sigma", names=names, step=True, markers=False)
        ax.set(title=titled("", name, 34), xlabel=label, ylabel="certified accuracy (%)")
        ax.set_ylim(0, max(5, ax.get_ylim()[1]))
        ax.legend()
    axes[0, 1].set_ylabel("")
    marks = f"{draws} draws per image; each certificate is wrong with a risk of at most {risk:g}"
    caption(fig, networks=network, images=int(table.images.max()), seeds=[seed], marks=marks)
    return fig


def titled(what: str, name: str, width: int = 30) -> str:
    """What is drawn and the statement's title in full, with its id and status, broken into lines."""
    statement = STATEMENTS[name]
    text = f"{statement.title} ({name},\u00a0{statement.status})".replace("as published", "as\u00a0published")
    return "\n".join([*([f"{what}:"] if what else []), *textwrap.wrap(text, width)])


def _levels(ratios: pd.DataFrame) -> list[float]:
    """The eps that are drawn; at the smallest one of the deployed network nothing moves, 0/0."""
    return sorted({round(level, 6) for level in ratios.eps255 if level > 0.01})


def _images(ratios: pd.DataFrame) -> int:
    return int(ratios["sample"].nunique())
