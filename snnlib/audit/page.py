"""An audit as one web page: figures inside as data, nothing loaded from elsewhere, every text escaped."""

from __future__ import annotations

import base64
from pathlib import Path

from snnlib.audit import reading
from snnlib.audit.pictures import pictures
from snnlib.audit.report import AuditReport
from snnlib.optional import needs

TEMPLATE = Path(__file__).with_name("page.html.jinja")


def audit_page(report: AuditReport, title: str) -> str:
    """The report as HTML. title: what was audited, free text. Errors: InputError where jinja2 or matplotlib is missing.
    """
    jinja2 = needs("jinja2", extra="report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode("ascii")
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(report=report, title=title, pictures=pictures(report), reading=reading)
