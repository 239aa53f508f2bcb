"""TG-PGD and mixed surrogates: their steps by hand, their books, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from snnlib.attacks import Budget, mixed_surrogates, parse_gradient, pgd, tg_pgd
from snnlib.errors import InputError
from snnlib.neurons import use_kernel

EPS = 0.03
ENCODED = Budget(EPS, space="encoded")


@pytest.fixture(autouse=True)
def plain_loops():
    with use_kernel("reference"):
        yield


@pytest.fixture(scope="module")
def case(small_spiking):
    model, image_set = small_spiking
    return model, image_set.batch(slice(None)), image_set.labels


def read_out(model, code):
    """Mean of the logits up to the last of these steps."""
    return model.body(code)


def test_each_frame_climbs_the_loss_of_the_read_out_up_to_it(case):
    model, images, labels = case
    right = (model(images).argmax(1) == labels).nonzero().squeeze(1)
    images, labels = images[right], labels[right]
    code = model.encoder(images).detach()
    moved = code.clone()
    for t in range(3):
        leaf = code.clone().requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(read_out(model, leaf[: t + 1]), labels, reduction="sum")
        (slope,) = torch.autograd.grad(loss, leaf)
        assert slope[t + 1 :].abs().sum() == 0
        moved[t] = (code[t] + EPS * slope[t].sign()).clamp(0, 1)
    found = tg_pgd(model, images, labels, ENCODED, steps=1, step_size=EPS)
    kept = (found.adversarial != code).flatten(2).any(2).any(0)  # the others' loss fell: they carry the sample itself
    assert kept.sum() > len(images) / 2
    expected = moved.clamp(code - EPS, code + EPS)
    torch.testing.assert_close(found.adversarial[:, kept], expected[:, kept], atol=1e-6, rtol=0)


def test_passes_of_tg_pgd_are_counted_step_by_step(case):
    found = tg_pgd(*case, Budget(1e-4, space="encoded"), steps=4)
    stands = ~found.success
    assert set(found.forwards[stands].tolist()) == {1 + 4 * (3 + 1)}
    assert set(found.backwards[stands].tolist()) == {4 * 3}


def test_the_steps_of_the_code_are_perturbed_apart_and_judged_on_the_deployed_body(case):
    model, images, labels = case
    found = tg_pgd(*case, ENCODED, steps=7)
    changed = found.adversarial[:, found.success & (found.first_successful_step > 0)]
    assert changed.shape[1] > 2 and (changed[0] != changed[-1]).any()
    with torch.no_grad():
        assert torch.equal(read_out(model, found.adversarial).argmax(1) != labels, found.success)


def test_tg_pgd_refuses_images_train_mode_and_a_state(case):
    with pytest.raises(InputError, match="tg_pgd got space 'image'"):
        tg_pgd(*case, Budget(EPS))
    with pytest.raises(InputError, match="batch_norm 'train'"):
        tg_pgd(*case, ENCODED, batch_norm="train")
    with pytest.raises(InputError, match="with a state for T steps"):
        tg_pgd(*case, ENCODED, gradient=parse_gradient("adaptive_sharpness"))


def test_a_single_surrogate_in_the_mixture_is_pgd_from_the_sample(case):
    name = "exponential(height=1, rate=2)"
    mixed = mixed_surrogates(*case, Budget(EPS), members={name: parse_gradient(name)}, steps=6)
    plain = pgd(*case, Budget(EPS), gradient=parse_gradient(name), steps=6, start="none")
    # A weight that learns to point the other way would need several steps against its own sign.
    assert (mixed.success == plain.success).float().mean() > 0.9


def test_passes_of_a_mixture_count_every_surrogate(case):
    found = mixed_surrogates(*case, Budget(1e-4), steps=5)
    stands = ~found.success
    assert set(found.forwards[stands].tolist()) == {1 + 5 * (3 + 1)}
    assert set(found.backwards[stands].tolist()) == {5 * 3}


def test_a_mixture_keeps_the_ball_and_does_not_depend_on_batch_mates(case):
    model, images, labels = case
    whole = mixed_surrogates(*case, Budget(EPS), steps=6)
    assert (whole.adversarial - images).abs().max() <= EPS + 1e-6
    half = mixed_surrogates(model, images[15:], labels[15:], Budget(EPS), steps=6)
    assert torch.equal(half.adversarial, whole.adversarial[15:])
    assert whole.success.sum() > 5
    with pytest.raises(InputError, match="batch_norm is 'train'"):
        mixed_surrogates(*case, Budget(EPS), batch_norm="train")
