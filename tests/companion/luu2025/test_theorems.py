"""The chapter's rows on a toy network: complete, stored, and the same again."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from snnlib.companion.luu2025 import theorems as theory
from snnlib.companion.luu2025.networks import NETWORKS
from snnlib.companion.measure import store as cache
from snnlib.companion.measure.networks import TrainedNetwork
from snnlib.companion.sizes import PROFILES, theory_size
from snnlib.companion.verdicts import theorems as verdicts
from snnlib.data import ImageSet
from snnlib.models import build_model


def toy(encoder: str, seed: int = 0) -> SimpleNamespace:
    model = build_model("sew_resnet18", 3, 2, encoder, width=4, seed=seed).eval()
    labels = torch.arange(6) % 3
    noise = torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(1))
    splits = SimpleNamespace(test=ImageSet(noise.to(torch.uint8), labels), name="made-up")
    network = replace(NETWORKS["sew_max"], label=f"toy, {encoder}")
    key = f"toy-{encoder}-{seed}"
    return TrainedNetwork(network, seed, model, None, key, splits, "cpu")


@pytest.fixture
def profile(home):
    return replace(PROFILES["smoke"], attacked_per_class=2)


@pytest.mark.parametrize("encoder, space", [("phase", "encoded"), ("direct", "image")])
def test_all_tables_of_a_network(profile, encoder, space):
    item, size = toy(encoder), theory_size(profile.name)
    assert theory.space_of(item) == space
    for which, levels in ((theory.RELAXED, size.relaxed_eps), (theory.DEPLOYED, size.deployed_eps)):
        rows = theory.vulnerability_rows(item, profile, which)
        assert len(rows) == len(levels) * size.samples and set(rows.network_is) == {which}
        assert rows.value.between(0, 1).all() and rows.model.eq(item.label).all()
    ranking, dose = theory.ranking_rows(item, profile), theory.dose_rows(item, profile)
    assert len(ranking) == size.ranked
    # More coordinates never make the worst case smaller.
    growth = dose.sort_values("share").groupby(["network_is", "sample"]).rho_adv.apply(lambda rho: rho.diff().min())
    assert (growth >= 0).all()
    assert (theory.constancy_rows(item, profile).radius255 >= 0).all()
    density = theory.density_rows(item, profile)
    assert density.groupby(["per", "batch_norm"]).size().to_dict() == {
        ("batch", "eval"): 21, ("batch", "train"): 21, ("sample", "eval"): 21 * size.inspected
    }  # fmt: skip
    judgement = verdicts.judge_density(density)
    assert judgement.samples == len(density[density.behind_neuron & (density.batch_norm == "eval")])


def test_certificates_are_stored_and_come_back_as_they_were(profile, monkeypatch):
    item = toy("direct")
    rows = theory.certificate_rows(item, profile)
    assert rows.groupby(["smoothing", "sigma"]).size().to_dict() == {("gaussian", 0.06): 4, ("poisson", 0.0): 4}
    monkeypatch.setattr(theory, "gaussian_certificate", None)
    pd.testing.assert_frame_equal(theory.certificate_rows(item, profile), rows)
    assert (cache.paths.ARTIFACTS / "theory_certificates").is_dir()


def test_every_profile_has_its_sizes_and_the_headline_eps():
    for name in PROFILES:
        size = theory_size(name)
        assert 6 in size.deployed_eps and min(size.deployed_eps) < 0.001 and size.shares[-1] == 1
        assert size.samples <= size.ranked and size.draws >= 4
