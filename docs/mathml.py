"""Formulas as MathML, which browsers draw by themselves: no script, no fonts, no LaTeX, nothing from elsewhere."""

from __future__ import annotations

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

KNOWN = {r"\\operatorname\b": r"\\mathrm", r"\\([bB]igg?)(?=[(\[|])": r"\\\1l", r"\\([bB]igg?)(?=[)\]])": r"\\\1r"}
"""Commands that docutils lacks, and what stands for them."""


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(_drawn(node, as_block=False))
    raise nodes.SkipNode


def _block(translator: HTML5Translator, node: nodes.math_block) -> None:
    formula = _drawn(node, as_block=True)
    translator.body.append(f'<div class="formula" role="group" aria-label="formula" tabindex="0">{formula}</div>\n')
    raise nodes.SkipNode


def _drawn(node: nodes.Element, as_block: bool) -> str:
    text = node.astext()
    for command, known in KNOWN.items():
        text = re.sub(command, known, text)
    return tex2mathml(text, as_block=as_block)
