"""How results look: one screen, and a row for each sample."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib import attacks, audit
from snnlib.attacks import Budget, adaptive_ensemble, ensemble_attack, fgsm, parse_gradient
from snnlib.attacks.result import concatenate


@pytest.mark.parametrize("space", ["image", "encoded"])
def test_a_result_prints_one_screen_with_what_was_broken_how_far_and_at_what_cost(space, small_spiking):
    model, data = small_spiking
    result = fgsm(model, data.batch(slice(None)), data.labels, Budget(0.3, space=space))
    text = repr(result)
    broken, already = int(result.success.sum()), int((result.first_successful_step == 0).sum())
    assert 0 < already < broken < 30
    assert len(text.splitlines()) <= 10 and max(map(len, text.splitlines())) <= 100
    assert f"broken  {broken} ({broken / 30:.1%}), {already} of them without any change" in text
    assert f"linf  median {result.linf.sort().values[14:16].mean():.4g}, largest {result.linf.max():.4g}" in text
    assert f"forwards  {int(result.forwards.sum())} in all" in text and "tensor" not in text


def test_the_table_has_a_row_for_each_sample_and_the_results_own_numbers(small_spiking):
    model, data = small_spiking
    images, labels = data.batch(slice(None)), data.labels
    result = fgsm(model, images, labels, Budget(0.3))
    rows = result.table()
    assert isinstance(rows, pd.DataFrame) and len(rows) == 30
    assert list(rows) == [
        "success", "first_successful_step", "loss", "linf", "l2", "forwards", "backwards", "zero_gradient"
    ]  # fmt: skip
    for name in rows:
        assert rows[name].tolist() == getattr(result, name).tolist()
    assert len(concatenate([result, result]).table()) == 60


def test_an_ensemble_prints_the_worst_case_and_a_line_for_each_member(small_spiking):
    model, data = small_spiking
    images, labels = data.batch(slice(None)), data.labels
    members = {name: parse_gradient(name) for name in ("atan(alpha=2)", "straight_through(height=1)")}
    found = ensemble_attack(model, images, labels, Budget(0.05), members=members, steps=2, alone=True)
    text = repr(found)
    assert text.startswith("EnsembleResult, worst case: AttackResult on 30 samples") and "tensor" not in text
    for name, member in found.by_member.items():
        assert f"{name}  broke {int(member.result.success.sum())} of 30" in text
    rows = found.table()
    assert list(rows)[:-1] == list(found.result.table()) and len(rows) == 30
    first, second = found.by_member.values()
    for number, by in enumerate(rows.fooled_by):
        fell = [bool(each.result.success[number]) for each in (first, second)]
        changed = bool(rows.first_successful_step[number] > 0)
        assert by == (list(members)[fell.index(True)] if changed else "")
    assert set(rows.fooled_by) > {""}
    assert "adaptive  broke" in repr(adaptive_ensemble(model, images, labels, Budget(0.05), steps=4))


def test_the_adaptive_ensembles_table_names_the_member_that_fooled(small_spiking):
    model, data = small_spiking
    found = adaptive_ensemble(model, data.batch(slice(None)), data.labels, Budget(0.1), steps=20)
    rows = found.table()
    assert (found.fooled_by >= 0).any()
    for by, number in zip(rows.fooled_by, found.fooled_by.tolist(), strict=True):
        assert by == ("" if number < 0 else found.members[number])


def test_everything_of_the_public_face_is_there_and_callable():
    assert set(attacks.__all__) <= set(dir(attacks))
    for name in ("ensemble_attack", "adaptive_ensemble", "worst_case", "transfer", "bit_flip", "parse_gradient"):
        assert name in attacks.__all__ and callable(getattr(attacks, name))
    assert audit.audit.__name__ == "audit" and callable(audit.audit)
