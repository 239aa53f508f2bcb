"""Checkpoints: exact restoration, equal bytes for equal state, errors that name what does not fit."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from snnlib.errors import InputError
from snnlib.training.checkpoint import load_weights, read_checkpoint, save_checkpoint


def small_model(out: int = 2) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, out))


def stepped(model: nn.Module, kind: type = torch.optim.Adam, **options) -> torch.optim.Optimizer:
    optimiser = kind([p for p in model.parameters() if p.requires_grad], lr=0.1, **options)
    for _ in range(2):
        optimiser.zero_grad()
        model(torch.rand(4, 1, 3, 3)).square().mean().backward()
        optimiser.step()
    return optimiser


@pytest.mark.parametrize(
    ("kind", "options"),
    [(torch.optim.Adam, {"fused": True}), (torch.optim.SGD, {"momentum": 0.9, "fused": True})],
)
def test_next_step_is_the_same_when_restored(tmp_path, kind, options):
    model = small_model()
    model[0].bias.requires_grad_(False)
    optimiser = stepped(model, kind, **options)
    save_checkpoint(tmp_path / "c", model, optimiser, {})
    copy = small_model()
    copy[0].bias.requires_grad_(False)
    copied = kind([p for p in copy.parameters() if p.requires_grad], lr=0.1, **options)
    checkpoint = read_checkpoint(tmp_path / "c")
    checkpoint.restore_model(copy)
    checkpoint.restore_optimiser(copied, copy)
    for network, steps in ((model, optimiser), (copy, copied)):
        steps.zero_grad()
        network(torch.linspace(0, 1, 36).view(4, 1, 3, 3)).square().mean().backward()
        steps.step()
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), copy.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_next_step_is_the_same_when_the_weights_are_channels_last(tmp_path, kind):
    options = {"fused": True, **({"momentum": 0.9} if kind is torch.optim.SGD else {})}

    def fresh() -> nn.Module:
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1))
        return body.to(memory_format=torch.channels_last)

    def step(network: nn.Module, optimiser: torch.optim.Optimizer, number: int) -> None:
        images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(number))
        optimiser.zero_grad()
        network(images).square().mean().backward()
        optimiser.step()

    model, copy = fresh(), fresh()
    optimiser, copied = (kind(network.parameters(), lr=0.1, **options) for network in (model, copy))
    for number in range(3):
        step(model, optimiser, number)
    save_checkpoint(tmp_path / "c", model, optimiser, {})
    checkpoint = read_checkpoint(tmp_path / "c")
    checkpoint.restore_model(copy)
    checkpoint.restore_optimiser(copied, copy)
    for number in range(3, 6):
        step(model, optimiser, number)
        step(copy, copied, number)
    ours, theirs = model.state_dict(), copy.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_bytes_are_equal_when_the_state_is_equal(tmp_path):
    model = small_model()
    optimiser = stepped(model)
    metadata = [{"a": 1, "b": [0.1, None], "c": "é"}, {"c": "é", "b": [0.1, None], "a": 1}]
    for number, entry in enumerate(metadata):
        save_checkpoint(tmp_path / str(number), model, optimiser, entry)
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    assert read_checkpoint(tmp_path / "0").metadata == metadata[0]


def test_old_file_stays_whole_when_writing_fails(tmp_path):
    model = small_model()
    save_checkpoint(tmp_path / "c", model, None, {"epoch": 1})
    with pytest.raises(ValueError):
        save_checkpoint(tmp_path / "c", model, None, {"loss": float("nan")})
    assert read_checkpoint(tmp_path / "c").metadata == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_tied_and_channels_last_weights_are_saved_when_present(tmp_path):
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "c": nn.Conv2d(2, 2, 3)})
    model["b"].weight = model["a"].weight
    model.to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "c", model, None, {})
    state = read_checkpoint(tmp_path / "c").model_state
    assert torch.equal(state["b.weight"], model["a"].weight) and torch.equal(
        state["c.weight"], model["c"].weight
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (small_model(out=5), r"3.bias is \[2\] there, \[5\] in the model"),
        (small_model()[:3], r"3.bias is \[2\] there, absent in the model"),
        (nn.Sequential(*small_model(), nn.Linear(2, 2)), r"4.bias is absent there, \[2\] in the model"),
    ],
)
def test_input_error_names_the_tensor_when_the_architecture_differs(tmp_path, model, message):
    save_checkpoint(tmp_path / "c", small_model(), None, {})
    with pytest.raises(InputError, match=message):
        load_weights(tmp_path / "c", model)


def test_input_error_when_the_file_is_missing_damaged_or_foreign(tmp_path):
    with pytest.raises(InputError, match="absent.safetensors is no file"):
        read_checkpoint(tmp_path / "absent.safetensors")
    save_checkpoint(tmp_path / "cut", small_model(), None, {})
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:-7])
    with pytest.raises(InputError, match="cut is damaged .*delete it") as refusal:
        read_checkpoint(tmp_path / "cut")
    assert "\n" not in str(refusal.value)
    save_file({"w": torch.zeros(2)}, tmp_path / "foreign")
    with pytest.raises(InputError, match="foreign holds no snnlib metadata"):
        read_checkpoint(tmp_path / "foreign")


def test_metadata_comes_back_as_json_reads_it_whatever_its_keys_were(tmp_path):
    save_checkpoint(tmp_path / "c", small_model(), None, {"a": {10: (1, 2), 9: None}})
    assert read_checkpoint(tmp_path / "c").metadata == {"a": {"10": [1, 2], "9": None}}
