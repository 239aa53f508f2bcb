"""NIR: what each node computes, graphs of others, and this project's networks there and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib import wrap
from snnlib.attacks import Budget, ensemble_attack, pgd
from snnlib.attacks.ensemble import members_for
from snnlib.attacks.gradients import backward_through_rate
from snnlib.audit import Effort, audit
from snnlib.conversion import convert
from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.models.convertible import OverTime
from snnlib.neurons import IF, LIF, neurons_of, surrogates

nir = pytest.importorskip("nir")
T = 12


def arrays(*values: float, size: int = 3) -> list[np.ndarray]:
    return [np.full(size, value) for value in values]


def run(*nodes, x: Tensor, dt: float = 1.0) -> Tensor:
    """What a chain of nodes makes of `[T, N, ...]` in float64, without a read-out."""
    graph = nir.NIRGraph.from_list(
        nir.Input(np.array(x.shape[2:])), *nodes, nir.Output(np.array([1])), type_check=False
    )
    return wrap.nir(graph, time_steps=len(x), dt=dt, dtype=torch.float64).net(x)


def frames(*shape: int) -> Tensor:
    return torch.rand(T, 2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hand(x: Tensor, leak, gain, bias, threshold, reset) -> Tensor:
    v, spikes = torch.zeros_like(x[0]), []
    for current in x:
        h = leak * v + gain * current + bias
        fired = (h >= threshold).double()
        v = torch.where(fired > 0, reset + 0 * h, h)
        spikes.append(fired)
    return torch.stack(spikes)


def test_lif_is_the_forward_euler_rule():
    x, dt = frames(3), 1e-3
    tau, r, leak, threshold = arrays(5e-3, 2.0, 0.1, 0.6)
    spikes = run(nir.LIF(tau, r, leak, threshold), x=x, dt=dt)
    assert torch.equal(spikes, by_hand(x, 0.8, 0.2 * 2.0, 0.2 * 0.1, 0.6, 0.0)) and 0 < spikes.mean() < 1


def test_if_integrates_the_current_over_dt():
    x = frames(3)
    spikes = run(nir.IF(*arrays(4.0, 1.7)), x=x, dt=0.25)
    assert torch.equal(spikes, by_hand(x, 1.0, 1.0, 0.0, 1.7, 0.0)) and 0 < spikes.mean() < 1


def test_cuba_lif_filters_its_input_before_the_membrane():
    x, dt = frames(3), 1e-4
    tau_syn, tau_mem, r, leak, threshold = arrays(2e-4, 4e-4, 4.0, 0.0, 1.5)
    spikes = run(nir.CubaLIF(tau_syn, tau_mem, r, leak, threshold, w_in=3.0), x=x, dt=dt)
    current, filtered = torch.zeros_like(x[0]), []
    for each in x:
        current = 0.5 * current + 0.5 * 3.0 * each
        filtered.append(current)
    assert torch.equal(spikes, by_hand(torch.stack(filtered), 0.75, 1.0, 0.0, 1.5, 0.0)) and 0 < spikes.mean() < 1


def test_neurons_may_differ_from_each_other():
    x = frames(3)
    tau, threshold, reset = np.array([2.0, 4.0, 8.0]), np.array([0.3, 0.5, 0.7]), np.array([0.0, 0.1, -0.2])
    spikes = run(nir.LIF(tau, tau, np.zeros(3), threshold, reset), x=x)
    values = (torch.from_numpy(each) for each in (1 - 1 / tau, threshold, reset))
    leak, threshold, reset = values
    assert torch.equal(spikes, by_hand(x, leak, 1.0, 0.0, threshold, reset)) and 0 < spikes.mean() < 1


def test_leaky_integrators_do_not_fire():
    x = frames(3)
    v = run(nir.LI(*arrays(4.0, 1.0, 0.0)), x=x)
    kept = torch.zeros_like(x[0])
    for each, value in zip(x, v, strict=True):
        kept = 0.75 * kept + 0.25 * each
        torch.testing.assert_close(value, kept)
    torch.testing.assert_close(run(nir.I(*arrays(2.0)), x=x), 2 * x.cumsum(0))


def test_layers_are_those_of_pytorch():
    x, generator = frames(4, 6, 6), np.random.default_rng(0)
    weight, bias = generator.normal(size=(6, 2, 3, 3)), generator.normal(size=6)
    conv = nir.Conv2d((6, 6), weight, (2, 1), (1, 0), (1, 2), 2, bias)
    wanted = F.conv2d(x.flatten(0, 1), *map(torch.from_numpy, (weight, bias)), (2, 1), (1, 0), (1, 2), 2)
    torch.testing.assert_close(run(conv, x=x).flatten(0, 1), wanted)
    window = (np.array([2, 3]), np.array([2, 1]), np.array([1, 1]))
    average = F.avg_pool2d(x.flatten(0, 1), (2, 3), (2, 1), (1, 1))
    torch.testing.assert_close(run(nir.AvgPool2d(*window), x=x).flatten(0, 1), average)
    torch.testing.assert_close(run(nir.SumPool2d(*window), x=x).flatten(0, 1), 6 * average)
    flat = nir.Flatten({"input": np.array([4, 6, 6])}, 0, -1)
    matrix, shift = generator.normal(size=(5, 144)), generator.normal(size=5)
    linear = x.flatten(2) @ torch.from_numpy(matrix).T
    torch.testing.assert_close(run(flat, nir.Linear(matrix), x=x), linear)
    torch.testing.assert_close(run(flat, nir.Affine(matrix, shift), x=x), linear + torch.from_numpy(shift))
    scale = generator.normal(size=(4, 6, 6))
    torch.testing.assert_close(run(nir.Scale(scale), x=x), x * torch.from_numpy(scale))
    row, kernel = frames(2, 9), generator.normal(size=(3, 2, 3))
    line = nir.Conv1d(9, kernel, 2, "valid", 1, 1, np.zeros(3))
    wanted = F.conv1d(row.flatten(0, 1), torch.from_numpy(kernel), stride=2)
    torch.testing.assert_close(run(line, x=row).flatten(0, 1), wanted)


def test_edges_that_meet_are_added_and_graphs_in_graphs_are_run():
    inner = nir.NIRGraph.from_list(nir.Input(np.array([3])), nir.Scale(np.full(3, 2.0)), nir.Output(np.array([3])))
    first, last = nir.Input(np.array([3])), nir.Output(np.array([3]))
    nodes = {"in": first, "a.b": nir.Scale(np.full(3, 5.0)), "sub": inner, "out": last}
    edges = [("in", "a.b"), ("in", "sub"), ("a.b", "out"), ("sub", "out")]
    x = frames(3)
    model = wrap.nir(nir.NIRGraph(nodes, edges), time_steps=T, dtype=torch.float64)
    torch.testing.assert_close(model.net(x), 7 * x)


def test_norse_and_its_graph_fire_alike():
    """The network behind the published graph `lif_norse.nir`: dt 1e-4, time constant 2.5e-3."""
    norse = pytest.importorskip("norse.torch")
    parameters = norse.LIFBoxParameters(tau_mem_inv=torch.tensor([400.0]), v_th=torch.tensor([0.1]))
    cell, state, theirs = norse.LIFBoxCell(p=parameters, dt=1e-4), None, []
    x = (torch.rand(200, 1, 1, generator=torch.Generator().manual_seed(2)) > 0.7).float()
    for each in x:
        spikes, state = cell(each, state)
        theirs.append(spikes)
    node = nir.LIF(*arrays(2.5e-3, 1.0, 0.0, 0.1, size=1))
    ours = run(node, x=x.double(), dt=1e-4)
    assert torch.equal(torch.stack(theirs).double(), ours) and ours.sum() > 5


NETWORKS = {
    "vgg11": {"image_size": 16},
    "vgg11_tinyimagenet": {"image_size": 16, "normalisation": "cifar10"},
    "resnet20": {},
    "wrn16_4": {},
    "sew_resnet18": {"pool": "avg", "encoder": "phase"},
    "spiking_resnet18": {"pool": "avg", "leak": 0.9},
}


def network(name: str, **options) -> nn.Module:
    """A network that fires everywhere, with BatchNorm values that are nobody's default."""
    model = build_model(name, 5, 8, seed=1, threshold=0.3, **{"width": 2, **NETWORKS[name], **options}).eval()
    generator = torch.Generator().manual_seed(5)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.weight.data.uniform_(0.7, 1.5, generator=generator)
        norm.bias.data.uniform_(-0.2, 0.6, generator=generator)
        norm.running_mean.uniform_(-0.2, 0.2, generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
    return model


def spikes_of(model: nn.Module, images: Tensor) -> list[Tensor]:
    seen: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda *call: seen.append(call[2])) for layer in neurons_of(model)]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("dt", [1.0, 1e-3])
@pytest.mark.parametrize("name", NETWORKS)
def test_there_and_back_every_neuron_fires_the_same(name, dt, tmp_path):
    model = network(name).double()
    images = torch.rand(6, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    flags = [module.training for module in model.modules()]
    nir.write(tmp_path / "net.nir", wrap.to_nir(model, images, dt=dt))
    assert [module.training for module in model.modules()] == flags
    again = wrap.nir(
        tmp_path / "net.nir", time_steps=8, dt=dt, readout="mean", preprocessing=model.encoder, dtype=torch.float64
    )
    key = lambda spikes: (spikes.shape, float((spikes * torch.arange(spikes.numel()).view_as(spikes)).sum()))  # noqa: E731
    before, after = (sorted(map(key, spikes_of(each, images))) for each in (model, again))
    assert before == after and len(before) == len(neurons_of(model)) and all(total > 0 for _, total in before)
    torch.testing.assert_close(again(images), model(images), rtol=1e-9, atol=1e-9)


def test_a_graph_is_attacked_and_audited_as_a_network_of_ours():
    model = network("resnet20")
    images = torch.rand(12, 3, 16, 16)
    triangle = surrogates.piecewise_linear(1.0)
    again = wrap.nir(wrap.to_nir(model, images), time_steps=4, readout="mean", surrogate=triangle)
    labels, budget = again(images).argmax(1), Budget(0.1)
    assert len(ensemble_attack(again, images, labels, budget, steps=1, alone=True).by_member) == 19
    assert pgd(again, images, labels, budget, gradient=backward_through_rate(), steps=2).backwards.sum() > 0
    small = Effort(
        steps=2, queries=5, members=("straight_through(height=1)",), restarts=1, grid=3, pictured=2, eps_factors=(1.0,)
    )
    assert audit(again, images, labels, budget, effort=small).finding("backward_rule_gain").outcome != "not done"


def test_uneven_neurons_follow_the_surrogates_of_the_ensemble():
    tau = np.array([2.0, 4.0, 8.0])
    graph = nir.NIRGraph.from_list(
        nir.Input(np.array([3])), nir.LIF(tau, tau, np.zeros(3), np.full(3, 0.5)), nir.Output(np.array([3]))
    )
    model = wrap.nir(graph, time_steps=T)
    images = torch.rand(8, 3)
    assert len(members_for(model)) == 17
    found = pgd(model, images, model(images).argmax(1), Budget(0.2), gradient=surrogates.atan(), steps=2)
    assert found.backwards.sum() > 0


def test_a_converted_plain_network_goes_to_nir():
    front = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2))
    net = nn.Sequential(front, nn.Flatten(), nn.Linear(36, 3))
    net(torch.rand(32, 3, 8, 8))
    options = {"calibration": {"batches": 1}, "batch_size": 32, "augmentation": "none", "statistics": "reestimate"}
    snn, _ = convert(net.eval(), torch.rand(32, 3, 8, 8), method="robust", time_steps=4, **options)
    snn, images = snn.eval().double(), torch.rand(5, 3, 8, 8, dtype=torch.float64)
    again = wrap.nir(wrap.to_nir(snn, images), time_steps=4, readout="mean", dtype=torch.float64)
    torch.testing.assert_close(again(images), snn(images))
    assert [layer.threshold for layer in neurons_of(again)] == [layer.threshold.item() for layer in neurons_of(snn)]


def test_recurrence_is_refused_with_the_loop_and_the_reason():
    nodes = {
        "in": nir.Input(np.array([3])), "lif": nir.LIF(*arrays(2.0, 2.0, 0.0, 0.5)), "w": nir.Scale(np.ones(3)),
        "out": nir.Output(np.array([3])),
    }  # fmt: skip
    edges = [("in", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "out")]
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    loop = r"the graph is recurrent \((lif → w → lif|w → lif → w)\).*same step or in the next"
    with pytest.raises(InputError, match=loop):
        wrap.nir(graph, time_steps=2)


def test_graphs_and_images_that_do_not_fit_are_refused_in_one_line(tmp_path):
    lif = nir.LIF(*arrays(5e-3, 1.0, 0.0, 0.5))
    with pytest.raises(InputError, match=r"node lif has tau = 0.005 and dt is 1; expected dt of at most tau.*dt=1e-4"):
        wrap.nir(nir.NIRGraph.from_list(lif), time_steps=2)
    with pytest.raises(InputError, match="node delay is a Delay; expected one of Conv1d"):
        wrap.nir(nir.NIRGraph.from_list(nir.Delay(np.ones(3))), time_steps=2)
    with pytest.raises(InputError, match="missing.nir is no file"):
        wrap.nir(tmp_path / "missing.nir", time_steps=2)
    (tmp_path / "text.nir").write_text("no graph")
    with pytest.raises(InputError, match="nir .* does not read .*text.nir"):
        wrap.nir(tmp_path / "text.nir", time_steps=2)
    with pytest.raises(InputError, match="graph is 3; expected a nir.NIRGraph or the path of a file"):
        wrap.nir(3, time_steps=2)
    model = wrap.nir(nir.NIRGraph.from_list(nir.Linear(np.ones((2, 9)))), time_steps=2)
    with pytest.raises(InputError, match=r"the graph's input is \[9\], the images give \[1, 3, 3\].*torch.nn.Flatten"):
        model(torch.rand(4, 1, 3, 3))
    flat = wrap.nir(nir.NIRGraph.from_list(nir.Linear(np.ones((2, 9)))), time_steps=2, preprocessing=nn.Flatten())
    assert flat(torch.rand(4, 1, 3, 3)).shape == (4, 2)


def test_layers_that_nir_does_not_have_are_named():
    images = torch.rand(2, 3, 16, 16)
    with pytest.raises(InputError, match=r"pool \(MaxPool2d\) has no node in NIR; expected convolutions"):
        wrap.to_nir(network("sew_resnet18", pool="max"), images)
    with pytest.raises(InputError, match=r"features.0.sn \(LIF with soft reset\) has no node in NIR"):
        wrap.to_nir(network("vgg11", reset="soft"), images)
    with pytest.raises(InputError, match="blocks.py, line [0-9]+ has no node in NIR"):
        wrap.to_nir(network("sew_resnet18", connection="IAND"), images)


def test_a_bare_chain_on_frames_is_exported_as_it_is():
    chain = nn.Sequential(OverTime(nn.Linear(4, 3)), LIF(leak=0.75, threshold=0.4), OverTime(nn.Linear(3, 2)), IF())
    chain = chain.double()
    graph = wrap.to_nir(chain, torch.rand(1, 4, dtype=torch.float64))
    kinds = [type(node).__name__ for node in graph.nodes.values()]
    assert kinds == ["Input", "Affine", "LIF", "Affine", "IF", "Output"]
    x = frames(4)
    assert torch.equal(wrap.nir(graph, time_steps=T, dtype=torch.float64).net(x), chain(x))
