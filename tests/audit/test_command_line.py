"""The audit from the command line: from two files to a page that needs nothing else."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from snnlib.attacks import Budget
from snnlib.audit import CHECKS, REQUIRED, AuditReport, Finding, audit, reading
from snnlib.audit import command_line as command
from snnlib.audit.page import audit_page
from snnlib.audit.report import AttackLine
from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.neurons import LIF, use_kernel
from snnlib.training.checkpoint import save_checkpoint
from snnlib.wrap import to_nir

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


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> list:
    """The audit itself takes no time; the list grows by one whenever it would have begun."""
    begun = []
    monkeypatch.setattr(command, "audit", lambda *_, **options: begun.append(options) or _report())
    return begun


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
    assert str(report) in capsys.readouterr().out
    first = page
    assert _run(files, "--eps", "4/255") == 0
    assert (files / "page.html").read_text() == first, "the same call gives the same bytes"


def test_a_checkpoint_is_read_as_a_plain_state_is(files):
    plain = command.load_model(str(files / "net.safetensors"), files / "net.json")
    save_checkpoint(files / "trained.safetensors", plain, torch.optim.Adam(plain.parameters()), {"epoch": 1})
    trained = command.load_model(str(files / "trained.safetensors"), files / "net.json")
    assert not trained.training
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in trained.state_dict().items())


class _Page(HTMLParser):
    """Collects every attribute that could load something, the landmarks and ids, and checks that tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, dict]] = []
        self.around_tables: list[list[tuple[str, dict]]] = []
        self.inside: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attributes)))
        self.loads += [value for name, value in attributes if name in ("src", "href", "data", "action", "background")]
        if tag == "table":
            self.around_tables.append(list(self.inside))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
            self.inside.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.inside.pop()


def _seen(page: str) -> _Page:
    seen = _Page()
    seen.feed(page)
    return seen


def test_the_page_loads_nothing_escapes_everything_and_closes_its_tags():
    page = audit_page(_report(), "<script>alert(1)</script>")
    seen = _seen(page)
    assert seen.open == []
    assert len(seen.loads) == 2 and all(link.startswith("data:image/png;base64,") for link in seen.loads)
    assert not {"script", "link", "iframe", "b"} & set(seen.tags) and "i" not in seen.tags
    assert "&lt;script&gt;" in page and "&lt;i&gt;what&lt;/i&gt;" in page and "a&lt;b 0.5" in page
    assert "url(" not in page and "@import" not in page and "http" not in page.replace("http-equiv", "")
    picture = base64.b64decode(seen.loads[0].split(",", 1)[1])
    assert picture.startswith(b"\x89PNG")


def test_the_page_fits_a_phone_a_dark_room_and_a_screen_reader():
    page = audit_page(_report(), "net")
    seen = _seen(page)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in seen.attributes
    for rule in ("prefers-color-scheme: dark", "img { max-width: 100%", "overflow-wrap: anywhere"):
        assert rule in page
    assert [seen.tags.count(tag) for tag in ("header", "main", "footer", "h1")] == [1, 1, 1, 1]
    assert seen.around_tables, "a table scrolls by itself: it may be wider than the page"
    assert all(("class", "scroll") in parents[-1][1].items() for parents in seen.around_tables)
    ids = {given["id"] for _, given in seen.attributes if "id" in given}
    named = [given["aria-labelledby"] for _, given in seen.attributes if "aria-labelledby" in given]
    assert named and set(named) <= ids
    texts = [given["alt"] for tag, given in seen.attributes if tag == "img"]
    assert texts[0] == "Images left after each attack in turn: no attack 80.0 %, <b>PGD</b> 40.0 %"
    assert texts[1].endswith("over eps: 0/255 100 %, 25.5/255 20 %")


def test_the_page_says_what_was_found_and_then_whether_that_is_a_sign():
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", audit_page(_report(), "net")))
    assert "masked: clean 80.0 %" in text and "counts: x &gt; 2 (square beats white box)" in text
    asked = "Does random search find what every gradient attack of this audit missed?"
    assert f"{asked} &lt;i&gt;what&lt;/i&gt;: a&lt;b 0.5 masked: &amp; why" in text
    assert "could not be done: no neurons" in text
    assert "another budget" in text and "1,234" in text


@pytest.mark.parametrize("outcome", ["no", "note", "suspicious", "masked", "not done"])
def test_every_outcome_has_a_page_and_a_text(outcome):
    found = Finding("x", "what", {"n": 1}, "rule", outcome, "remark")
    report = _report(findings=(found,), curves={}, attacks=())
    page = audit_page(report, "net")
    assert f"<title>net: {report.verdict}</title>" in page and f'class="{outcome.replace(" ", "-")}"' in page
    measured = "" if outcome == "not done" else "what: n 1; "
    mark = "!" if outcome in ("suspicious", "masked") else " "
    assert f"\n{mark} x?\n    {measured}{reading.SIGNS[outcome]}" in str(report)
    assert ("what: n 1" in page) == (outcome != "not done")


def test_terminal_and_page_give_the_same_reasons_for_inconclusive():
    done = tuple(Finding(name, "what", {}, "rule", "no") for name in REQUIRED[1:])
    report = _report(findings=done, correct=5)
    assert report.verdict == "inconclusive"
    first, second = reading.reasons(report)
    assert first.startswith("5 of 50 images are classified correctly; 20 are needed")
    assert second == "these checks decide and could not be done: zero gradients"
    assert f"because {first}\n  because {second}" in str(report)
    assert f"<li>{first}</li><li>{second}</li>" in audit_page(report, "net")
    assert reading.reasons(_report(findings=(*done, Finding(REQUIRED[0], "what", {}, "rule", "no")))) == []


@pytest.mark.parametrize(
    "change, named",
    [
        (["--eps", "eight"], "--eps is 'eight'"),
        (["--eps=-1/255"], "eps is -0.00"),
        (["--eps", "8"], "write 8/255, not 8"),
        (["--eps", "1e999"], "--eps is '1e999'"),
        (["--eps", "1e999999999"], "--eps is '1e999999999'"),
        (["--eps", "nan"], "--eps is 'nan'"),
        (["--eps", "1/0"], "--eps is '1/0'"),
        (["--eps", "1/2/3"], "--eps is '1/2/3'"),
        (["--seed", str(10**30)], "--seed is 1000000000"),
        (["--seed", "-1"], "--seed is -1"),
        (["--seed", "9" * 5000], "invalid int value"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--images", "0"], "--images is 0"),
        (["--images", str(10**30)], "lower the number"),
        (["--quick", "--profile", "smoke"], "not allowed with"),
        (["--out", "~no-such-user/page.html"], "~no-such-user/page.html has no home folder"),
        (["--model", "net.py"], "expected FILE.py:FUNCTION"),
        (["--model", "net.py:build"], "--config with net.py:build"),
        (["--model", "net.nir"], "--config with net.nir"),
        (["--time-steps", "4"], "net.safetensors; expected them beside a .nir graph alone; leave them out"),
        (["--a\nb"], "unrecognized arguments: --a b"),
        (["--norm", "l7"], "norm is 'l7'"),
        (["--images", "3"], "--images is 3"),
        (["--images", "many"], "invalid int value"),
        (["--profile", "endless"], "--profile is 'endless'"),
        (["--dataset", "mnist"], "data set is 'mnist'"),
        (["--data", "/nowhere/at/all"], "does not exist"),
        (["--model", "/nowhere.safetensors"], "is no file"),
        (["--config", "/nowhere.json"], "is no file"),
        (["--colour", "red"], "unrecognized arguments"),
    ],
)
def test_bad_options_are_one_line_before_any_work_and_leave_no_page(files, capsys, no_work, change, named):
    assert _run(files, *change) == 2
    error = capsys.readouterr().err
    assert named in error and error.startswith("error: ") and error.count("\n") == 1
    assert no_work == [] and not (files / "page.html").exists()


@pytest.mark.parametrize(
    "content, named",
    [
        ("{", "is no JSON"),
        ("[1]", "holds .1."),
        ('{"name": "sew_resnet18"}', "lacks .'num_classes', 'time_steps'."),
        (json.dumps({**CONFIG, "colour": 3}), "unknown arguments .'colour'."),
        (json.dumps({**CONFIG, "width": 8}), "expected \\[8"),
        (json.dumps({**CONFIG, "name": "alexnet"}), "model is 'alexnet'"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(files, content, named):
    (files / "net.json").write_text(content)
    with pytest.raises(InputError, match=named) as refusal:
        command.load_model(str(files / "net.safetensors"), files / "net.json")
    assert "\n" not in str(refusal.value)


def test_pickled_weights_are_not_read(files):
    torch.save(build_model(**CONFIG).state_dict(), files / "net.safetensors")
    with pytest.raises(InputError, match="a pickle of PyTorch"):
        command.load_model(str(files / "net.safetensors"), files / "net.json")


NETWORK_FILE = """
import helper
from dataclasses import dataclass
from torch import nn

@dataclass
class Sizes:
    classes: int = 10

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(helper.PIXELS, Sizes().classes))

def fails():
    return nn.Linear("a", 2)

def wrong():
    return 3

def narrow():
    return nn.Linear(7, 10)
"""


@pytest.fixture
def python_file(files) -> Path:
    (files / "helper.py").write_text("PIXELS = 3072\n")
    (files / "net.py").write_text(NETWORK_FILE)
    return files / "net.py"


def test_a_function_of_a_python_file_is_audited_and_its_running_is_said(python_file, capsys):
    folder = python_file.parent
    given = ["--model", f"{python_file}:build", "--profile", "smoke", "--images", "10"]
    assert command.main([*given, "--json", str(folder / "report.json")]) == 0
    said = capsys.readouterr()
    assert f"running {python_file}: it may do whatever its author wrote" in said.err
    assert AuditReport.from_json((folder / "report.json").read_text()).model == "Sequential"
    assert "cost: " in said.out


@pytest.mark.parametrize(
    ("function", "named"),
    [
        ("absent", "net.py has no function absent"),
        ("fails", "net.py:fails failed (TypeError: "),
        ("wrong", "net.py:wrong returned 3; expected a torch.nn.Module"),
        ("narrow", "the network fails on images [2, 3, 32, 32] (RuntimeError: "),
    ],
)
def test_a_python_file_that_does_not_fit_is_one_line(python_file, capsys, no_work, function, named):
    assert command.main(["--model", f"{python_file}:{function}"]) == 2
    *said, error = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in said] == ["running", "auditing"][: 1 + (function == "narrow")]
    assert error.startswith(f"error: {'' if function == 'narrow' else python_file.parent}")
    assert named in error and no_work == []


@pytest.mark.parametrize("content", ["def build(:", "raise ValueError('a\\nb')", "import no_such_module", "\0"])
def test_a_python_file_that_fails_is_one_line(python_file, capsys, content):
    python_file.write_text(content)
    assert command.main(["--model", f"{python_file}:build"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_inputs_are_never_overwritten_and_targets_differ(files, capsys, no_work):
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    (files / "link").symlink_to(files / "net.safetensors")
    for changed in (
        ["--out", "net.safetensors"],
        ["--json", "net.json"],
        ["--out", "link"],
        ["--out", "./x/../net.json"],
        ["--json", "page.html"],
        ["--json", "."],
        ["--json", "net.json/report.json"],
    ):
        (files / "x").mkdir(exist_ok=True)
        assert _run(files, changed[0], f"{files}/{changed[1]}") == 2, changed
        error = capsys.readouterr().err
        assert re.search("choose another|expected a file", error) and error.count("\n") == 1, error
    assert no_work == [] and before == {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()
                                        and not path.is_symlink()}  # fmt: skip


def test_the_configuration_beside_the_weights_is_an_input_too(files, capsys, no_work):
    assert command.main(["--model", str(files / "net"), "--json", str(files / "net.json")]) == 2
    assert "which is read; it would be overwritten" in capsys.readouterr().err
    assert command.main(["--model", str(files / "net"), "--json", str(files / "report.json")]) == 0
    assert len(no_work) == 1 and json.loads((files / "net.json").read_text()) == CONFIG


def test_what_could_not_be_written_at_the_end_is_on_the_terminal_and_the_rest_is_written(files, capsys, monkeypatch):
    def full_afterwards(*_, **__):
        (files / "full").rmdir()
        (files / "full").write_text("")
        return _report()

    (files / "full").mkdir()
    monkeypatch.setattr(command, "audit", full_afterwards)
    assert _run(files, "--json", str(files / "full" / "report.json")) == 2
    said = capsys.readouterr()
    assert "masked: clean 80.0 %" in said.out and (files / "page.html").is_file()
    begun, error = said.err.splitlines()
    assert begun.startswith("auditing on 10 images, linf at eps 8/255;") and "report.json cannot be written" in error


def test_quick_says_what_it_left_out(files, capsys, no_work):
    given = ["--model", str(files / "net.safetensors"), "--quick"]
    assert command.main(given) == 0
    assert no_work[0]["effort"] == command.QUICK
    assert "--quick left out: 100 of 200 images, 10 of 20 steps of PGD, 200 of 300 queries" in capsys.readouterr().out


def test_home_is_put_in_and_an_ascii_terminal_gets_every_text(files, no_work, monkeypatch):
    ascii_only = TextIOWrapper(BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", ascii_only)
    monkeypatch.setattr(command, "audit", lambda *_, **__: _report(model="Nétz − 東"))
    monkeypatch.setenv("HOME", str(files))
    assert command.main(["--model", "~/net", "--out", "~/page.html"]) == 0
    ascii_only.flush()
    assert b"N\\xe9tz \\u2212 \\u6771" in ascii_only.buffer.getvalue()
    assert (files / "page.html").is_file()


def test_a_released_network_is_found_by_its_name(monkeypatch, no_work):
    asked = []
    monkeypatch.setattr(command, "released_names", lambda: ["sew-night-0"])
    monkeypatch.setattr(command, "released", lambda name: asked.append(name) or build_model(**CONFIG).eval())
    assert command.main(["--model", "sew-night-0"]) == 0
    assert asked == ["sew-night-0"]


def test_a_graph_of_nir_is_audited_and_vectors_get_the_image_flattened(files, capsys):
    nir = pytest.importorskip("nir")
    layers = nn.Sequential(nn.Linear(3072, 30), LIF(leak=0.5), nn.Linear(30, 10), LIF(leak=0.5))
    nir.write(files / "net.nir", to_nir(layers, torch.rand(1, 3072)))
    given = ["--model", str(files / "net.nir"), "--profile", "smoke", "--images", "10"]
    assert command.main([*given, "--time-steps", "3", "--json", str(files / "report.json")]) == 0
    assert AuditReport.from_json((files / "report.json").read_text()).finding("ensemble_gain").numbers
    capsys.readouterr()
    for more, named in (
        ([], "add --time-steps, such as 8"),
        (["--time-steps", "0"], "time_steps is 0"),
        (["--time-steps", "3", "--dt", "-1"], "dt is -1"),
        (["--time-steps", "3", "--json", str(files / "net.nir")], "which is read"),
    ):
        assert command.main([*given, *more]) == 2
        error = capsys.readouterr().err
        assert named in error and error.count("\n") == 1


@pytest.mark.parametrize("content", [None, b"", b"no graph"])
def test_what_is_no_graph_is_refused_in_one_line(files, capsys, content):
    pytest.importorskip("nir")
    if content is not None:
        (files / "net.nir").write_bytes(content)
    assert command.main(["--model", str(files / "net.nir"), "--time-steps", "3"]) == 2
    error = capsys.readouterr().err
    assert "net.nir" in error and error.count("\n") == 1


def test_an_unknown_name_is_told_the_released_ones_and_the_help_says_what_runs(capsys, no_work):
    assert command.main(["--model", "resnet-of-mine"]) == 2
    error = capsys.readouterr().err
    assert "'resnet-of-mine'; expected a file, or a released network: ann-at-night-0, ann-at-night-1," in error
    with pytest.raises(SystemExit) as end:
        command.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0 and "FILE.py:FUNCTION, which RUNS THAT FILE" in said and no_work == []


def test_the_bar_names_the_check_at_work(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNLIB_PROGRESS", f"file:{tmp_path / 'progress'}")
    monkeypatch.setattr("snnlib.progress.FILE_SECONDS", 0.0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    audit(net, torch.rand(6, 3, 2, 2), torch.arange(6) % 4, Budget(0.1), effort="smoke")
    lines = (tmp_path / "progress").read_text()
    assert all(name.replace("_", " ") in lines for name in CHECKS)


VALUES = [
    "net.nir",
    *("", "0", "-1", "1e999", "8/255", "4/0", "nan", "l2", "linf", "9" * 400, "n" * 300, "é\n", "smoke"),
    *("tinyimagenet", "~", "~nobody/x", "/", ".", "..", "/dev/null", "new/page", "a:b", "net"),
    *("net.json", "net.safetensors", "net.py", "nowhere.py:build", "net.safetensors/page", "--out"),
]
OPTIONS = ["--model", "--config", "--data", "--dataset", "--out", "--json", "--images", "--eps", "--norm", "--profile",
           "--quick", "--seed", "--batch-size", "--time-steps", "--dt", "--nothing"]  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(OPTIONS), st.sampled_from(VALUES)), max_size=4))
def test_any_command_line_gives_a_report_or_one_line_and_harms_no_input(files, capsys, no_work, monkeypatch, pairs):
    monkeypatch.chdir(files)
    monkeypatch.setenv("SNNLIB_DATA", str(files / "nothing"))
    no_data = InputError("no network here")
    monkeypatch.setitem(command.DATA_SETS, "tinyimagenet", lambda _: (_ for _ in ()).throw(no_data))
    inputs = {name: (files / name).read_bytes() for name in ("net.json", "net.safetensors")}
    no_work.clear()
    code = command.main(["--model", "net", *[part for option, value in pairs for part in (option, value)]])
    error = capsys.readouterr().err.splitlines()
    assert (code, len(no_work)) in ((0, 1), (2, 0)), (code, no_work, error)
    assert len([line for line in error if not line.startswith(("running ", "auditing "))]) == (code == 2)
    assert inputs == {name: (files / name).read_bytes() for name in inputs}
