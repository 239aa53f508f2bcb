"""Conversion of plain PyTorch networks: the same function first, then spikes, attacks and fine-tuning."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib.attacks import Budget, ensemble_attack, pgd
from snnlib.attacks.gradients import backward_through_rate
from snnlib.conversion import QCFS, ShiftedIF, convert, plain_model, qcfs_to_if, set_trainable, with_qcfs
from snnlib.conversion.plain import MaxOfRates
from snnlib.conversion.rate import _lost
from snnlib.data import ImageSplits
from snnlib.data.torchvision_ops import import_torchvision
from snnlib.errors import InputError
from snnlib.neurons import LIF, neurons_of
from snnlib.training import Recipe, fit


class Residual(nn.Module):
    """Everything at once: normalisation and dropout as functions, shared ReLU, in-place additions, both pools."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((3, 1, 1), 0.4))
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.shortcut = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.relu, self.pool, self.head = nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / 0.25
        x = self.pool(self.relu(self.norm(self.stem(x))))
        y = F.relu(self.inner(x))
        y = self.relu(self.inner(y) + self.shortcut(x))
        y += x
        y = F.max_pool2d(F.dropout(y, 0.5, self.training), 2)
        y = F.adaptive_avg_pool2d(y, 1)
        return self.head(y.view(y.size(0), -1))


def trained(make=Residual) -> nn.Module:
    """A network whose BatchNorm statistics are nobody's default, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = make()
        net.train()
        for _ in range(20):
            net(torch.rand(16, 3, 8, 8))
    return net.eval()


def images(count: int = 64, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_a_plain_network_becomes_a_model_of_the_same_logits():
    net, x = trained(), images()
    before = copy.deepcopy(net.state_dict())
    model = plain_model(net)
    torch.testing.assert_close(model(x), net(x), rtol=0, atol=0)
    assert sum(isinstance(module, nn.ReLU) for module in model.modules()) == 3, "one for each use"
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not model.body.network.training
    model.encoder.time_steps = 5
    torch.testing.assert_close(model(x), net(x))
    torch.testing.assert_close(model.body(model.encoder(x).contiguous()), net(x))


def test_dropout_written_as_a_function_follows_the_mode():
    model, x = plain_model(trained()), images()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_a_resnet_of_torchvision_is_followed():
    import_torchvision()
    from torchvision.models import resnet18

    net, x = resnet18(num_classes=4).eval(), torch.rand(2, 3, 32, 32)
    model = plain_model(net)
    torch.testing.assert_close(model(x), net(x))
    assert sum(isinstance(module, nn.ReLU) for module in model.modules()) == 17


def test_the_spiking_network_comes_near_the_ann_and_nearer_with_more_steps():
    net, x = trained(), images(128, seed=7)
    logits, error = net(x).detach(), {}
    for time_steps in (4, 16):
        snn, report = convert(net, images(), time_steps=time_steps, calibration={"batches": 1})
        error[time_steps] = ((snn(x).detach() - logits).square().mean() / logits.var(0).mean()).sqrt().item()
    assert error[16] < 0.2 and error[16] < error[4] / 2
    assert report.method == "rate" and report.statistics == "keep" and len(report.table()) == 3
    assert (report.table()["scaled_firing_rate"] > 0).all() and "network" in report.table()["layer"][0]
    assert snn.encoder.time_steps == time_steps and len(neurons_of(snn)) == 3
    again, _ = convert(net, images(), time_steps=time_steps, calibration={"batches": 1})
    assert torch.equal(again(x), snn(x))


def test_the_threshold_loses_least_of_the_activations():
    net = nn.Sequential(nn.ReLU(), nn.Flatten())
    x = images().square()
    snn, report = convert(net, x, time_steps=3, calibration={"batches": 1})
    chosen, largest = report.thresholds[0].threshold, float(x.max())
    lost = [_lost(x, share * largest / 100, 3) for share in range(1, 101)]
    assert chosen == pytest.approx(largest * (1 + torch.stack(lost).argmin().item()) / 100)
    assert 0 < chosen < largest
    wanted = chosen * (x * 3 / chosen + 0.5).floor().clamp(0, 3) / 3
    torch.testing.assert_close(snn(x), wanted.flatten(1))


def test_a_max_pool_over_spikes_gives_spikes_of_the_highest_rate():
    spikes = (torch.rand(6, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1)) > 0.7).float()
    pooled = MaxOfRates(nn.MaxPool2d(2))(spikes.flatten(0, 1), spikes.shape[:2]).unflatten(0, (6, 2))
    assert set(pooled.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(pooled.mean(0), F.max_pool2d(spikes.mean(0), 2))


def test_a_converted_network_is_attacked_and_its_spikes_differentiated_in_other_ways():
    snn, _ = convert(trained(), images(), time_steps=4, calibration={"batches": 1})
    x = images(8)
    labels, budget = snn(x).argmax(1), Budget(0.1)
    clean = F.cross_entropy(snn(x), labels, reduction="none")
    assert (pgd(snn, x, labels, budget, steps=3).loss > clean).all()
    found = ensemble_attack(snn, x, labels, budget, steps=1, alone=True)
    assert len(found.by_member) == 19 and not found.result.zero_gradient.all()
    assert (pgd(snn, x, labels, budget, gradient=backward_through_rate(), steps=3).loss > clean).all()


def test_the_robust_method_makes_the_papers_neurons_and_fit_tunes_them(make_images, tmp_path):
    train = make_images(48)
    options = {"time_steps": 3, "batch_size": 16, "calibration": {"time_steps": 8, "batches": 2}}
    snn, report = convert(trained(), train, method="robust", **options)
    assert report.method == "robust" and report.statistics == "reset" and report.scale == 0.3
    assert all(type(layer) is LIF and layer.reset == "hard" and layer.leak == 1 for layer in neurons_of(snn))
    assert all(norm.running_mean.eq(0).all() for norm in snn.modules() if isinstance(norm, nn.BatchNorm2d))
    set_trainable(snn)
    before = copy.deepcopy(snn.state_dict())
    splits = ImageSplits("made up", train, make_images(9, seed=1), make_images(9, seed=2), 3, ("a", "b", "c"))
    history = fit(snn, splits, Recipe(epochs=1, batch_size=16), directory=tmp_path)
    assert history.finished
    moved = [name for name, value in snn.state_dict().items() if not torch.equal(value, before[name])]
    assert {name.rsplit(".", 1)[1] for name in moved} >= {"weight", "bias", "threshold", "running_mean"}


def test_qcfs_of_a_plain_network_becomes_its_spiking_twin():
    net, x = trained(), images()
    quantised = with_qcfs(net, levels=8, threshold=3.0)
    assert sum(isinstance(module, QCFS) for module in quantised.modules()) == 3
    assert not torch.equal(quantised(x), net(x))
    quantised(x).sum().backward()
    snn = qcfs_to_if(quantised, time_steps=32)
    assert all(isinstance(layer, ShiftedIF) for layer in neurons_of(snn)) and len(neurons_of(snn)) == 3
    gap = (qcfs_to_if(with_qcfs(net, levels=64, threshold=3.0), time_steps=64)(x) - net(x)).abs().mean()
    assert gap < 0.1 * net(x).std()


class Gelu(Residual):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.gelu(self.inner(x))  # here
        return self.head(x.mean((2, 3)))


class Branch(Residual):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:  # here
            x = x + 1
        return self.head(self.relu(self.stem(x)).mean((2, 3)))


class OverBatch(Residual):
    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = x - x.mean(0)  # here
        return self.head(x.mean((2, 3)))


class Product(Residual):
    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = x * x  # here
        return self.head(x.mean((2, 3)))


def _line(kind: type) -> int:
    """Where the class says `# here`."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"class {kind.__name__}("))
    return next(number + 1 for number in range(start, len(lines)) if lines[number].endswith("# here"))


REFUSED = [(Gelu, "gelu in"), (OverBatch, "mean in"), (Product, "mul in"), (Branch, "Branch cannot be followed")]


@pytest.mark.parametrize(("make", "what"), REFUSED)
def test_what_cannot_be_converted_is_named_with_its_line(make, what):
    for attempt in (lambda net: convert(net, images()), lambda net: with_qcfs(net, 4)):
        with pytest.raises(InputError, match=f"{what}.*{re.escape(__file__)}, line {_line(make)}") as refused:
            attempt(make())
        assert "\n" not in str(refused.value)


def test_networks_and_images_that_do_not_fit_are_refused_in_one_line():
    conv = nn.Conv2d(3, 3, 3)
    with pytest.raises(InputError, match=r"2 \(GroupNorm\) cannot be converted; expected ReLU, convolutions"):
        convert(nn.Sequential(conv, nn.ReLU(), nn.GroupNorm(3, 3), nn.Flatten()), images())
    with pytest.raises(InputError, match="Sequential has no ReLU; expected some"):
        convert(nn.Sequential(conv, nn.Flatten()), images())
    with pytest.raises(InputError, match="the ANN is a str; expected a torch.nn.Module"):
        convert("resnet", images())
    with pytest.raises(InputError, match="has spiking layers already"):
        convert(nn.Sequential(conv, LIF()), images())
    net = trained()
    with pytest.raises(InputError, match=r"images are torch.uint8 \[64, 3, 8, 8\]; expected an ImageSet, or floats"):
        convert(net, images().to(torch.uint8))
    with pytest.raises(InputError, match="the images span 0.* expected 0..1; divide bytes by 255"):
        convert(net, 255 * images())
    with pytest.raises(InputError, match="batch_size is 64, but there are 32 images"):
        convert(net, images(32))
    with pytest.raises(InputError, match="method is 'copy'; expected one of robust, rate"):
        convert(net, images(), method="copy")
    with pytest.raises(InputError, match="statistics is 'keep'; expected one of reset, reestimate"):
        convert(net, images(), method="robust", statistics="keep")
    with pytest.raises(InputError, match='method "rate" takes no snn_options'):
        convert(net, images(), snn_options={"leak": 0.9})
    with pytest.raises(InputError, match="snn_options has 'width'; expected some of leak, threshold"):
        convert(net, images(), method="robust", snn_options={"width": 3})
    dead = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Flatten())
    nn.init.constant_(dead[0].bias, -100.0)
    with pytest.raises(InputError, match="is dead: its ReLU is 0 on all images"):
        convert(dead, images())


def test_networks_of_build_model_can_be_converted_by_rates_too(make_ann, make_images):
    ann, train = make_ann(), make_images()
    snn, report = convert(ann, train, method="rate", time_steps=32, batch_size=12, calibration={"batches": 1})
    x = train.batch(slice(None))
    ann.eval()
    assert (snn.eval()(x) - ann(x)).abs().mean() < 0.3 * ann(x).std() and len(report.thresholds) == len(neurons_of(snn))
