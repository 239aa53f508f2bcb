"""The page of an audit in a real browser: narrow or wide, light or dark, it fits and asks nobody for anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from snnlib import audit, models
from snnlib.attacks import Budget
from snnlib.audit import AuditReport


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Of an audit of a small network."""
    pytest.importorskip("jinja2")
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(24, 3, 32, 32, generator=generator)
    model = models.build_model("vgg11", 10, time_steps=2, width=4).eval()
    with torch.no_grad():
        labels = model(images).argmax(1)
    report: AuditReport = audit.audit(model, images, labels, Budget(8 / 255), effort="smoke")
    path = tmp_path_factory.mktemp("audit") / "report.html"
    return report.save(path)


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_and_loads_nothing(browser, page, width, dark):
    seen = browser.visit(page, width, dark)
    assert seen.errors == [] and seen.outside == []
    look = seen.look
    assert look["width"] <= width and look["without_text"] == [] and look["broken"] == []
    assert look["landmarks"] == ["header", "main", "footer"] and look["headings"] == 1 and look["language"] == "en"
    assert "width=device-width" in look["viewport"]
    dim, bright = ("background", "text") if dark else ("text", "background")
    assert look[dim] < 0.2 and look[bright] > 0.8
