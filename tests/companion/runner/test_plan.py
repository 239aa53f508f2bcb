"""Plans: who is busy when, the critical path, and rates of machines that nobody has measured."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion.runner import rates as rates_module
from snnlib.companion.runner.cost import Meter
from snnlib.companion.runner.items import Item, items_of
from snnlib.companion.runner.plan import estimated_seconds, item_list, machines_report, planned, read_machines
from snnlib.companion.runner.rates import ESTIMATES, Recorder, Scaled, machines, read_rates
from snnlib.errors import InputError


class FixedMeter(Meter):
    """10 seconds an epoch, 1 ms a forward pass, 4 ms one with its gradient."""

    def __init__(self) -> None:
        super().__init__("cpu", 1)

    def epoch(self, training):
        return 10.0

    def passes(self, training, surrogate):
        return 0.001, 0.004


def item(name: str, *after: str) -> Item:
    return Item(name, "json:dumps", {"obj": name}, after)


CHAIN = [item("ann"), item("alone"), item("snn", "ann"), item("rows", "snn")]


def test_one_machine_takes_the_sum_and_many_the_longest_chain():
    seconds = [3.0, 5.0, 2.0, 1.0]
    one, many = planned(CHAIN, seconds, 1), planned(CHAIN, seconds, 9)
    assert one.end == one.busy[0] == 11.0 and many.end == many.path_seconds == 6.0
    assert [entry.name for entry in many.path] == ["ann", "snn", "rows"] == [entry.name for entry in one.path]
    assert sorted(many.busy)[-2:] == [5.0, 6.0] and sum(many.busy) == 11.0


def test_a_machine_that_is_free_waits_only_for_what_an_item_needs():
    plan = planned([item("a"), item("b"), item("c", "a"), item("d", "b")], [4.0, 1.0, 1.0, 3.0], 2)
    assert plan.end == 5.0 and plan.path_seconds == 5.0 and plan.busy == [5.0, 4.0]


def test_items_take_their_epochs_and_passes():
    items = items_of("smoke")
    seconds = dict(zip([entry.name for entry in items], estimated_seconds(items, FixedMeter()), strict=True))
    assert seconds["SEW-ResNet-18, max pool, seed 0"] == 20.0
    assert all(value > 0 for value in seconds.values())


def test_the_list_of_items_says_what_they_wait_for_and_how_long_they_take():
    lines = item_list(items_of("smoke"), FixedMeter()).splitlines()
    assert lines[0] == f"{len(items_of('smoke'))} items" and "one after the other" in lines[-1]
    (row,) = [line for line in lines if "SNN, conversion from AT, seed 0" in line and "after: ANN, AT, seed 0" in line]
    assert row.split()[0] == "0:10"
    assert "after" not in item_list(items_of("smoke"), None).splitlines()[1]


@pytest.mark.parametrize("text", ["8", "x8", "8xH_1", "0xH100", "99999xH100", "-1xH100"])
def test_what_is_no_number_of_machines_is_refused(text):
    with pytest.raises(InputError, match="expected a number and a machine, such as 8xH100"):
        read_machines(text)


def test_an_unknown_machine_is_refused_with_those_that_are_known():
    with pytest.raises(InputError, match="machine is 'abacus'; expected one of .*H100.*; measure others by"):
        read_rates("abacus")


def test_measured_machines_say_so_and_others_are_marked_as_estimates():
    assert read_rates("cpu2")[1].startswith("measured on cpu")
    assert all(read_rates(name)[1].startswith("estimate") for name in ESTIMATES)
    assert read_rates("h100")[0].keys() == read_rates("cpu2")[0].keys() and "H100" in machines()


def test_no_pass_of_a_scaled_machine_is_faster_than_its_floor():
    table = pd.DataFrame(
        [("k", "net", "epoch", 100, 18, 50.0, None), ("p", "net", "pass", 1 / 16, 9, 0.02, 0.04)],
        columns=rates_module.COLUMNS,
    )
    found = rates_module._as_rates(table, Scaled("x", 0.001, 0.009, 0.025, 18, ""))
    assert found["k"] == pytest.approx(100 * 0.025)
    assert found["p"] == pytest.approx((0.009 / 16 / 2, 0.025 / 16 / 2))
    found = rates_module._as_rates(table, Scaled("x", 1.0, 0.009, 0.025, 18, ""))
    assert found == {"k": 50.0, "p": (0.02, 0.04)}


def test_the_paper_on_eight_gpus_has_a_plan_and_a_critical_path():
    text = machines_report("paper", "8xH100")
    assert "Profile paper on 8 x H100" in text and "estimate" in text and "Critical path" in text
    assert sum(line.startswith("| ") for line in text.splitlines()) == 2 + 8  # the head, its rule, a line per machine


def test_machines_are_planned_only_where_every_network_has_a_rate():
    with pytest.raises(InputError, match="--machines with profile smoke; .* has no rate for H100; expected"):
        machines_report("smoke", "2xH100")


def test_a_measurement_that_was_cut_short_goes_on_and_measures_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(rates_module, "FOLDER", tmp_path)
    monkeypatch.setattr(rates_module, "probe", lambda device: 0.5)
    asked = []

    def measured(self, training, work, measure):
        key = f"{training.network.label}, {sorted(work)}"
        if key not in self.rates:
            asked.append(key)
            self.rates[key] = (0.001, 0.002) if "surrogate" in work else 9.0
        return self.rates[key]

    monkeypatch.setattr(Meter, "_once", measured)
    for stop_at in (3, None):
        meter = Recorder("toy", "cpu", 1)
        for training in rates_module.work_of("smoke")[0][:stop_at]:
            meter.epoch(training)
    assert len(asked) == len(set(asked)) and read_rates("toy")[0] == meter.rates
    assert read_rates("toy")[1].startswith("measured on cpu")


def test_the_shipped_rates_know_every_network_of_the_paper():
    rates, _ = read_rates("cpu2")
    before = len(rates)
    estimated_seconds(items_of("paper"), Meter("cpu", 1, rates))
    assert len(rates) == before
