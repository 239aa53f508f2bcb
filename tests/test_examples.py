"""The examples in docstrings run as they stand, and what one meets in the first hour has one."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import snnlib
from snnlib import attacks, audit, conversion, data, models, neurons, sparsity
from snnlib.attacks import result
from snnlib.neurons import use_kernel

FOLDER = Path(snnlib.__file__).parent
FILES = sorted(path for path in FOLDER.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))
FIRST_HOUR = (
    *(attacks.pgd, attacks.apgd, attacks.ensemble_attack, audit.audit, conversion.convert, data.load_images),
    *(models.build_model, models.released, models.save, neurons.lif_multi_step),
    sparsity.input_gradient_measures,
)


@pytest.mark.parametrize("function", FIRST_HOUR, ids=lambda function: function.__name__)
def test_what_one_meets_in_the_first_hour_has_an_example(function):
    assert doctest.DocTestParser().get_examples(function.__doc__)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_examples_run_as_they_stand(path, monkeypatch):
    monkeypatch.setenv("SNNLIB_DEVICE", "cpu")
    parts = path.relative_to(FOLDER.parent).with_suffix("").parts
    with use_kernel("reference"):  # which gives the same numbers and compiles nothing
        tried = doctest.testmod(importlib.import_module(".".join(parts)), optionflags=doctest.ELLIPSIS)
    assert tried.attempted > 0 and tried.failed == 0


def test_a_result_of_any_size_prints_at_most_twelve_lines():
    model = models.build_model("vgg11", num_classes=10, time_steps=1, width=4, seed=0, spiking=False)
    test = data.load_images("cifar10").test
    found = attacks.fgsm(model, test.batch(slice(100)), test.labels[:100], attacks.Budget(0.01))
    lines = str(result.concatenate([found] * 50)).splitlines()
    assert "5,000 samples" in lines[0] and len(lines) <= 12 and max(map(len, lines)) <= 100


def test_results_and_reports_draw_what_they_found():
    pytest.importorskip("matplotlib").use("Agg")
    test = data.load_images("cifar10").test.first_per_class(2)
    images, labels, budget = test.batch(slice(None)), test.labels, attacks.Budget(8 / 255)
    model = models.build_model("vgg11", num_classes=10, time_steps=1, width=4, seed=0, surrogate="atan")
    found = attacks.pgd(model, images, labels, budget, steps=3)
    (line,) = found.plot().lines
    left = [100 * float((~found.success | (found.first_successful_step > step)).double().mean()) for step in range(2)]
    assert list(line.get_ydata()[:2]) == pytest.approx(left)
    members = {name: attacks.parse_gradient(name) for name in ("rectangular(width=1)", "straight_through(height=1)")}
    ensemble = attacks.ensemble_attack(model, images, labels, budget, members=members, steps=2)
    bars = ensemble.plot().patches
    assert len(bars) == len(ensemble.by_member)
    assert bars[-1].get_width() == pytest.approx(100 * float((~ensemble.result.success).double().mean()))
    report = audit.audit(model, images, labels, budget, effort="smoke")
    assert list(report.table().check) == list(audit.CHECKS)
    assert report.plot().patches[0].get_width() == pytest.approx(100 * report.correct / report.images)
