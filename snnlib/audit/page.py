"""An audit as one web page: figures inside as data, nothing loaded from elsewhere, every text escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from html import escape

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from snnlib.audit import AuditReport, Finding
from snnlib.companion.report import plotting, plotting_audit

DPI = 110
MEANING = {
    "no sign of masking": "None of the checks found a sign that this model's gradients mislead an attacker.",
    "suspicious": "Something may hide adversarial examples from a gradient attack: see the flagged checks.",
    "masked": "Gradient attacks miss adversarial examples of this model: what they leave is not robustness.",
    "inconclusive": "Too few checks could be done, or too few images are classified correctly, to say anything.",
}
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1b1f23;max-width:64rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.3rem} h2{font-size:1.15rem;margin-top:2rem}
.verdict{display:inline-block;padding:.15rem .7rem;border-radius:.4rem;color:#fff;font-weight:600}
table{border-collapse:collapse;width:100%;font-size:.875rem}
th,td{text-align:left;vertical-align:top;padding:.35rem .5rem}
th{border-bottom:2px solid #bbb} td{border-bottom:1px solid #ddd} td.number,th.number{text-align:right}
.outcome{font-weight:600;white-space:nowrap} .small{color:#555;font-size:.85em} img{max-width:100%;height:auto}
code{background:#f2f3f5;padding:0 .2rem}
"""
VERDICT_COLOURS = {
    "no sign of masking": "#00694d",
    "suspicious": "#8a5a00",
    "masked": "#a33c00",
    "inconclusive": "#555555",
}


def audit_page(report: AuditReport, title: str) -> str:
    """The report as HTML. title: what was audited, free text."""
    verdict = escape(report.verdict)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p><span class="verdict" style="background:{VERDICT_COLOURS[report.verdict]}">{verdict}</span></p>',
        f"<p>{escape(MEANING[report.verdict])}</p>",
        f"<p>{escape(report.summary())}.</p>",
        _flagged(report),
        "<h2>Figures</h2>",
        *_figures(report),
        "<h2>Checks</h2>",
        _checks(report),
        "<h2>Attacks</h2>",
        _attacks(report),
        "<h2>How to read this</h2>",
        _reading(report),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}: {verdict}</title><style>{STYLE}</style>'
    policy = '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    policy += "style-src 'unsafe-inline'\">"
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}{policy}</head>\n<body>\n{body}\n</body>\n</html>\n'


def _flagged(report: AuditReport) -> str:
    if not report.flagged:
        return ""
    lines = [f"<li><b>{escape(_title(each.name))}</b>: {escape(each.remark)}.</li>" for each in report.flagged]
    return f"<p>What the verdict rests on:</p><ul>{''.join(lines)}</ul>"


def _figures(report: AuditReport) -> list[str]:
    bars = len(plotting_audit.ladder_table(report))
    aspect = 0.12 + 0.045 * bars
    drawn = [_picture(plotting_audit.attack_ladder, report, aspect, "Images left after each attack in turn")]
    if report.curves.get("eps"):
        drawn.append(_picture(plotting_audit.eps_curve, report, 0.4, "Accuracy under PGD over eps"))
    if report.curves.get("surface"):
        caption = "Margin along the gradient and along noise, mean over some images; white: the clean images"
        drawn.append(_picture(plotting_audit.loss_surface, report, 0.5, caption))
    return drawn


def _picture(draw: Callable[[Axes, AuditReport], None], report: AuditReport, aspect: float, caption: str) -> str:
    with plt.rc_context():
        plotting.use_style()
        fig, axes = plotting.figure("full", aspect=aspect)
        draw(axes[0, 0], report)
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        plt.close(fig)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    return f'<figure>{image}<figcaption class="small">{escape(caption)}.</figcaption></figure>'


def _checks(report: AuditReport) -> str:
    return _table(("check", "flag", "measured", "numbers"), [_check_row(found) for found in report.findings])


def _check_row(found: Finding) -> str:
    colour = plotting_audit.OUTCOME_COLOURS[found.outcome]
    shown = found.outcome if found.flag == "yes" else found.flag
    numbers = "<br>".join(f"{escape(name)} = {value:.4g}" for name, value in found.numbers.items())
    said = [escape(found.measured)]
    if found.rule:
        said.append(f'<span class="small">counts: {escape(found.rule)}</span>')
    if found.outcome != "no":
        said.append(f"<b>{escape(found.remark)}</b>")
    return (
        f"<td>{escape(_title(found.name))}</td>"
        f'<td class="outcome"><span style="color:{colour}">&#9632;</span> {escape(shown)}</td>'
        f"<td>{'<br>'.join(said)}</td><td>{numbers}</td>"
    )


def _attacks(report: AuditReport) -> str:
    rows = [
        f"<td>{escape(line.label)}</td>"
        + "".join(f'<td class="number">{value:,}</td>' for value in (line.tried, line.fooled))
        + f'<td class="number">{line.left if line.same_ball else "another budget"}</td>'
        + "".join(f'<td class="number">{value:,}</td>' for value in (line.forwards, line.backwards))
        for line in report.attacks
    ]
    columns = ("attack", "tried on", "fooled", "left after it", "forward passes", "backward passes")
    return _table(columns, rows, numbers=1)


def _reading(report: AuditReport) -> str:
    effort = ", ".join(f"{name} = {value}" for name, value in report.effort.items())
    texts = (
        "Numbers are images; shares are of those classified correctly without attack. An attack runs on what is left "
        "for it: FGSM, PGD and noise on all correct images, those that look for a gain on what the model's own "
        "gradient left.",
        "Own gradient means PGD by the model's own surrogate, in as many runs from other starts as the ensemble has "
        "members, so that a gain is not a matter of trying more often.",
        "No sign of masking is no proof of robustness: it says that the attacks here agree with each other.",
        f"Sizes: {effort}; seed {report.seed}.",
    )
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def _table(columns: tuple[str, ...], rows: list[str], numbers: int | None = None) -> str:
    """numbers: index of the first column of right-aligned numbers."""
    first = len(columns) if numbers is None else numbers
    cells = (
        f'<th class="number">{escape(name)}</th>' if place >= first else f"<th>{escape(name)}</th>"
        for place, name in enumerate(columns)
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{''.join(cells)}</tr></thead><tbody>{body}</tbody></table>"


def _title(name: str) -> str:
    return name.replace("_", " ")
