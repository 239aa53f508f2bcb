"""The audit from the command line: from two files to a page that needs nothing else."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from snnlib.audit import AuditReport, Finding
from snnlib.audit import command_line as command
from snnlib.audit.page import audit_page
from snnlib.audit.report import AttackLine
from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.neurons import use_kernel
from snnlib.training.checkpoint import save_checkpoint

CONFIG = {"name": "sew_resnet18", "num_classes": 10, "time_steps": 2, "encoder": "direct", "width": 4, "seed": 1}


@pytest.fixture(scope="module", autouse=True)
def reference_kernel():
    with use_kernel("reference"):
        yield


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNNLIB_DEVICE", "cpu")
    model = build_model(**CONFIG)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "net.safetensors")
    (tmp_path / "net.json").write_text(json.dumps(CONFIG))
    return tmp_path


def _run(folder: Path, *more: str) -> int:
    given = ["--model", str(folder / "net.safetensors"), "--config", str(folder / "net.json")]
    return command.main([*given, "--out", str(folder / "page.html"), "--profile", "smoke", "--images", "10", *more])


def _report(**changes) -> AuditReport:
    finding = Finding("square_beats_white_box", "<i>what</i>", {"a<b": 0.5}, "x > 2", "masked", "& why")
    missing = Finding("ensemble_gain", "what", {}, "", "not done", "no neurons")
    content = {
        "model": "Net", "eps": 8 / 255, "norm": "linf", "images": 50, "correct": 40, "own_robust": 20, "robust": 12,
        "effort": {"steps": 3}, "seed": 7, "findings": (finding, missing),
        "attacks": (AttackLine("<b>PGD</b>", 40, 20, True, 20, 1234, 60), AttackLine("far", 40, 9, False, 20, 5, 5)),
        "curves": {"eps": [{"eps": 0.0, "robust_accuracy": 1.0}, {"eps": 0.1, "robust_accuracy": 0.2}], "surface": []},
    }  # fmt: skip
    return AuditReport(**{**content, **changes})


def test_a_saved_network_becomes_a_page_and_a_report(files, capsys):
    assert _run(files, "--json", str(files / "report.json"), "--eps", "4/255") == 0
    report = AuditReport.from_json((files / "report.json").read_text())
    assert (report.images, report.eps, report.norm, report.model) == (10, 4 / 255, "linf", "sew_resnet18")
    page = (files / "page.html").read_text()
    assert report.verdict in page and "Audit of net.safetensors" in page
    assert report.summary() in capsys.readouterr().out
    first = page
    assert _run(files, "--eps", "4/255") == 0
    assert (files / "page.html").read_text() == first, "the same call gives the same bytes"


def test_a_checkpoint_is_read_as_a_plain_state_is(files):
    plain = command.load_model(files / "net.safetensors", files / "net.json")
    save_checkpoint(files / "trained.safetensors", plain, torch.optim.Adam(plain.parameters()), {"epoch": 1})
    trained = command.load_model(files / "trained.safetensors", files / "net.json")
    assert not trained.training
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in trained.state_dict().items())


class _Links(HTMLParser):
    """Collects every attribute that could load something, and checks that tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "data", "action", "background")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_loads_nothing_escapes_everything_and_closes_its_tags():
    page = audit_page(_report(), "<script>alert(1)</script>")
    seen = _Links()
    seen.feed(page)
    assert seen.open == []
    assert len(seen.loads) == 2 and all(link.startswith("data:image/png;base64,") for link in seen.loads)
    assert not {"script", "link", "iframe", "b>"} & set(seen.tags) and "i" not in seen.tags
    assert "&lt;script&gt;" in page and "&lt;i&gt;what&lt;/i&gt;" in page and "a&lt;b = 0.5" in page
    assert "url(" not in page and "@import" not in page
    picture = base64.b64decode(seen.loads[0].split(",", 1)[1])
    assert picture.startswith(b"\x89PNG")


def test_the_page_says_what_was_found_and_what_could_not_be_done():
    page = audit_page(_report(), "net")
    text = re.sub(r"<[^>]+>", " ", page)
    assert "masked: clean 80.0 %" in text and "counts: x &gt; 2" in text
    assert "square beats white box" in text and "&amp; why" in text
    assert "could not be done" in text and "no neurons" in text
    assert "another budget" in text and "1,234" in text


@pytest.mark.parametrize("outcome", ["no", "note", "suspicious", "masked", "not done"])
def test_every_outcome_has_a_page(outcome):
    found = Finding("x", "what", {"n": 1}, "rule", outcome, "remark")
    report = _report(findings=(found,), curves={}, attacks=())
    assert f"<title>net: {report.verdict}</title>" in audit_page(report, "net")


@pytest.mark.parametrize(
    "change, named",
    [
        (["--eps", "eight"], "--eps is 'eight'"),
        (["--eps=-1/255"], "eps is -0.00"),
        (["--eps", "8"], "write 8/255, not 8"),
        (["--norm", "l7"], "norm is 'l7'"),
        (["--images", "3"], "--images is 3"),
        (["--images", "many"], "invalid int value"),
        (["--profile", "endless"], "effort is 'endless'"),
        (["--dataset", "mnist"], "unknown data set 'mnist'"),
        (["--data", "/nowhere/at/all"], "does not exist"),
        (["--model", "/nowhere.safetensors"], "does not exist"),
        (["--config", "/nowhere.json"], "does not exist"),
        (["--colour", "red"], "unrecognized arguments"),
    ],
)
def test_bad_options_are_one_line_and_leave_no_page(files, capsys, change, named):
    assert _run(files, *change) == 2
    error = capsys.readouterr().err
    assert named in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (files / "page.html").exists()


@pytest.mark.parametrize(
    "content, named",
    [
        ("{", "is no JSON"),
        ("[1]", "holds a list"),
        ('{"name": "sew_resnet18"}', "lacks \\['num_classes', 'time_steps'\\]"),
        (json.dumps({**CONFIG, "colour": 3}), "unknown arguments \\['colour'\\]"),
        (json.dumps({**CONFIG, "width": 8}), "expected \\[8"),
        (json.dumps({**CONFIG, "name": "alexnet"}), "model is 'alexnet'"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(files, content, named):
    (files / "net.json").write_text(content)
    with pytest.raises(InputError, match=named) as refusal:
        command.load_model(files / "net.safetensors", files / "net.json")
    assert "\n" not in str(refusal.value)


def test_pickled_weights_are_not_read(files):
    torch.save(build_model(**CONFIG).state_dict(), files / "net.safetensors")
    with pytest.raises(InputError, match="no safetensors file"):
        command.load_model(files / "net.safetensors", files / "net.json")
