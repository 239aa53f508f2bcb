"""The audit chapter at toy size: who attacks, on what, and that nothing is computed twice."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

from snnlib.audit import AuditReport
from snnlib.companion import paths
from snnlib.companion.measure.attacked import run_attack
from snnlib.companion.measure.networks import Network, trained
from snnlib.companion.ours import audit, audit_examples
from snnlib.companion.ours.audit_attackers import (
    blinded_attacker,
    chain_attackers,
    own_attacker,
    same_function_attackers,
)
from snnlib.companion.sizes import audit_size
from snnlib.data import ImageSet

SIZE = audit_size("smoke")
EPS = 6 / 255
MAX = Network("max", "sew_resnet18", {"pool": "max"})
AVERAGE = Network("average", "sew_resnet18", {"pool": "avg"})
DIRECT = Network("direct", "sew_resnet18", {"encoder": "direct", "time_steps": 2})


@pytest.fixture
def chapter(artifacts, profile):
    """A profile of the chapter that takes three images of each class."""
    return replace(profile, attacked_per_class=3, attack_batch_size=9, seeds=(0, 1))


@pytest.fixture
def item(chapter):
    return trained(MAX, chapter, 0)


def _labels(attackers):
    return [attacker.label for attacker in attackers]


def _choices(attacker):
    attack = attacker.attack
    return (attack.gradient, attack.pool, attack.threat.encoder_gradient, attack.threat.batch_norm)


def test_attackers_on_one_function_change_one_thing_each(item):
    for space, last in (("image", "encoder smooth"), ("encoded", "BatchNorm in train")):
        own, *others = same_function_attackers(item, space, EPS, SIZE)
        assert own == own_attacker(space, EPS, SIZE) and others[-1].label == last
        assert len(set(_labels([own, *others]))) == 1 + len(others)
        for attacker in others:
            changed = [mine != owns for mine, owns in zip(_choices(attacker), _choices(own), strict=True)]
            threat = replace(attacker.attack.threat, batch_norm="eval", encoder_gradient="")
            alike = replace(attacker.attack, gradient="own", pool="", threat=threat)
            assert sum(changed) == 1 and alike == own.attack, attacker.label


def test_attackers_that_do_not_apply_are_left_out(chapter):
    direct, average = trained(DIRECT, chapter, 0), trained(AVERAGE, chapter, 0)
    on_direct = same_function_attackers(direct, "image", EPS, SIZE)
    assert not any(attacker.attack.threat.encoder_gradient for attacker in on_direct)
    assert any(attacker.attack.pool for attacker in on_direct)
    sources = {"x": direct}
    assert not any(attacker.attack.pool for attacker in chain_attackers(average, "image", EPS, SIZE, sources))
    assert _labels(chain_attackers(average, "encoded", EPS, SIZE, sources))[-2:] == ["transfer from x", "Square"]


def test_every_attacker_leaves_the_function_and_the_model_as_they_are(item):
    images = item.splits.test.batch(slice(0, 4))
    labels = item.splits.test.labels[:4]
    with torch.no_grad():
        before = item.model(images)
    attackers = [*same_function_attackers(item, "image", EPS, SIZE), blinded_attacker(0.5, EPS, SIZE)]
    for attacker in [*attackers, *chain_attackers(item, "image", EPS, SIZE, {"x": item})]:
        source = None if attacker.source is None else attacker.source.model
        result = run_attack(item.model, images, labels, attacker.attack, source=source)
        with torch.no_grad():
            found = item.model(result.adversarial).argmax(1) != labels
            assert torch.equal(item.model(images), before), attacker
        assert torch.equal(found, result.success), "judged on the deployed network"


def test_alone_everyone_attacks_the_same_images_and_is_stored(item, chapter, calls):
    rows = audit.alone_rows(item, chapter, "image")
    samples = audit.alone_samples(item, chapter)
    assert len(samples) == 3 and rows.groupby("attacker").size().eq(3).all()
    assert set(rows["sample"]) == set(samples)
    assert calls["rows"] == rows.attacker.nunique()
    pd.testing.assert_frame_equal(audit.alone_rows(item, chapter, "image"), rows)
    assert calls["rows"] == rows.attacker.nunique(), "stored rows are not computed again"


@pytest.mark.parametrize("space", ["image", "encoded"])
def test_in_turn_everyone_runs_on_what_the_earlier_ones_left(item, chapter, space):
    attackers = chain_attackers(item, space, 6 / 255, SIZE, {})
    rows = audit.attacker_rows(item, chapter, attackers, space, 6, samples=range(9), in_turn=True)
    standing = set(range(9))
    for label in _labels(attackers):
        part = rows[rows.attacker == label]
        assert set(part["sample"]) == standing
        standing -= set(part["sample"][part.success])
    assert rows.eps255.eq(6).all() and rows.threat_model.eq(space).all()


def test_the_worst_case_holds_notebook_12_and_everyone_after_it(item, chapter):
    other = trained(MAX, chapter, 1)
    sources = audit.transfer_sources(item, [item, other, trained(AVERAGE, chapter, 0)], "image")
    assert list(sources) == ["max, seed 1", "average, seed 0"]
    known = audit.earlier_rows(item, chapter, "image", 6)
    assert set(known["sample"]) == set(range(9)) and {"fgsm", "pgd", "random_noise"} <= set(known.attacker)
    rows = audit.worst_case_rows(item, chapter, "image", 6, sources)
    broken = known.groupby("sample").success.any()
    assert not broken.all(), "else nobody is left for those who come later"
    later = rows[rows.group != "notebook 12"]
    assert set(later["sample"]) <= set(broken.index[~broken])
    stages = audit.by_stage(rows)
    left = stages.set_index("stage").robust_accuracy[list(audit.STAGES)]
    assert left.is_monotonic_decreasing and left.iloc[0] == pytest.approx(1 - broken.mean())
    assert set(later.group) <= set(audit.STAGES)


def test_sources_on_the_code_encode_alike(item, chapter):
    direct, average = trained(DIRECT, chapter, 0), trained(AVERAGE, chapter, 0)
    assert list(audit.transfer_sources(item, [direct, average], "encoded")) == ["average, seed 0"]
    assert len(audit.transfer_sources(item, [direct, average], "image")) == 2


def test_a_level_that_notebook_12_did_not_attack_starts_from_the_clean_answers(item, chapter, monkeypatch):
    monkeypatch.setattr(audit, "earlier_rows", lambda *_: pd.DataFrame())
    rows = audit.worst_case_rows(item, chapter, "image", 3, {})
    clean = rows[rows.attacker == "none"]
    assert len(clean) == 9 and clean.group.eq(audit.STAGES[0]).all()


def test_dense_gradients_fill_the_zeros_of_the_pool(item, chapter):
    filled = audit.filled_rows(item, chapter)
    assert (filled.zeros_own >= 0.75).all() and (filled.zeros_dense < 0.05).all()
    assert filled.space.tolist() == ["image", "encoded"]
    own = audit.alone_rows(item, chapter, "encoded").groupby("attacker").success.mean()
    assert filled.left_dense[1] == pytest.approx(1 - own[audit.DENSE])


def test_hiding_pixels_leaves_more_to_the_same_attack(item, chapter):
    rows = audit.sparse_rows(item, chapter)
    assert set(rows.keep) == set(SIZE.shares)
    found = rows.groupby("keep").success.mean()
    assert found[0.1] <= found[1.0]


def test_an_audit_is_stored_as_it_was_reported(item, chapter, calls):
    report = audit.audited(item, chapter)
    assert report.images == 3 and report.model == "sew_resnet18" and report.eps == SIZE.alone_level / 255
    assert audit.audited(item, chapter) == report
    assert calls["audits"] == 1, "a stored audit is not run again"
    assert len(list((paths.ARTIFACTS / "audits").glob("*.report.json"))) == 1


@pytest.mark.parametrize("framework", audit_examples.EXAMPLES)
def test_examples_learn_start_fresh_and_give_the_same_network_twice(framework):
    if not audit_examples.is_installed(framework):
        pytest.skip(f"{framework} is not installed; the notebook then says so")
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    noise = torch.randint(0, 60, (200, 3, 32, 32), generator=generator)
    images = ImageSet((noise + 150 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)
    before = torch.random.get_rng_state()
    model = audit_examples.trained_example(framework, images, 3, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    x = images.batch(slice(0, 50))
    with torch.no_grad():
        logits = model(x)
        assert torch.equal(model(x), logits), "fresh membranes at every call"
    assert (logits.argmax(1) == labels[:50]).float().mean() > 0.9
    again = audit_examples.trained_example(framework, images, 3, seed=1)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_examples_are_audited_and_stored(chapter, splits, calls, monkeypatch):
    monkeypatch.setattr(audit_examples.importlib.metadata, "version", lambda framework: "1.0")
    monkeypatch.setattr(audit_examples, "trained_example", lambda *_: torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(768, 3)))  # fmt: skip
    report = audit_examples.example_report("snnTorch", splits, chapter)
    assert isinstance(report, AuditReport) and report.images == 3
    assert audit_examples.example_report("snnTorch", splits, chapter) == report
    assert calls["example_audits"] == 1
    monkeypatch.setattr(audit_examples.importlib.metadata, "version", lambda framework: "2.0")
    audit_examples.example_report("snnTorch", splits, chapter)
    assert calls["example_audits"] == 2, "another release is another network"
