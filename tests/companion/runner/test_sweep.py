"""A sweep's folder: leases, logs, what waits for what, and what a death leaves behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest
from filelock import SoftFileLease

from snnlib.companion.runner import sweep as sweep_module
from snnlib.companion.runner.sweep import DEATHS, DONE, FAILED, STARTED, Log, Sweep, leases, work
from snnlib.errors import InputError


def never() -> bool:
    return False


@pytest.fixture
def chain(noting):
    return [noting("ann"), noting("snn", "ann"), noting("rows", "snn"), noting("alone")]


def done_in(sweep: Sweep) -> set[str]:
    sweep.refresh()
    return {item.name for item, state in sweep.rows() if state.outcome == DONE}


def failed_in(sweep: Sweep) -> dict[str, str]:
    sweep.refresh()
    return {item.name: state.words for item, state in sweep.rows() if state.outcome == FAILED}


def test_every_item_is_made_once_and_after_what_it_needs(home, chain, made):
    sweep = Sweep.create(home / "sweep", chain)
    work(sweep, never)
    assert sorted(made()) == sorted(done_in(sweep)) == sorted(item.name for item in chain)
    assert made().index("ann") < made().index("snn") < made().index("rows") and sweep.left == 0
    assert list(leases().iterdir()) == []


def test_a_worker_that_comes_later_makes_nothing_again(home, chain, made):
    work(Sweep.create(home / "sweep", chain), never)
    work(Sweep.open(home / "sweep"), never)
    assert len(made()) == 4


def test_a_failure_takes_along_what_needs_it_and_nothing_else(home, noting, made):
    items = [noting("ann"), noting("snn", "ann", do="fail"), noting("rows", "snn"), noting("more", "rows"),
             noting("alone")]  # fmt: skip
    sweep, told = Sweep.create(home / "sweep", items), []
    work(sweep, never, told.append)
    why = "what it needs failed"
    assert failed_in(sweep) == {"snn": "ValueError: no", "rows": why, "more": why}
    assert made() == ["ann", "alone"] and "FAILED snn: ValueError: no" in told


def test_nothing_starts_once_time_is_up(home, chain, made):
    work(Sweep.create(home / "sweep", chain), lambda: bool(made()))
    assert made() == ["ann"]


def test_an_item_that_runs_out_of_time_is_left_and_is_no_failure(home, noting, made):
    items = [noting("snn", do="out_of_time"), noting("rows", "snn"), noting("alone")]
    sweep = Sweep.create(home / "sweep", items)
    work(sweep, never)
    assert done_in(sweep) == {"alone"} and not failed_in(sweep) and sweep.left == 2


def test_an_item_that_another_worker_holds_is_passed_over_and_waited_for(home, chain, made):
    sweep = Sweep.create(home / "sweep", chain)
    with SoftFileLease(leases() / chain[0].key, lease_duration=sweep_module.LEASE_SECONDS):
        until = time.monotonic() + 1
        work(sweep, lambda: time.monotonic() > until)
        assert made() == ["alone"]
    work(sweep, never)
    assert made() == ["alone", "ann", "snn", "rows"]


def test_the_lease_of_a_dead_process_of_this_machine_is_over_at_once(home, noting, made):
    item = noting("ann")
    sweep = Sweep.create(home / "sweep", [item])
    holder = multiprocessing.get_context("fork").Process(target=_hold_and_die, args=(leases() / item.key,))
    holder.start()
    holder.join()
    assert holder.exitcode == -signal.SIGKILL and (leases() / item.key).exists()
    started = time.monotonic()
    work(sweep, never)
    assert made() == ["ann"] and time.monotonic() - started < 5


def _hold_and_die(path):
    lease = SoftFileLease(path, lease_duration=sweep_module.LEASE_SECONDS)
    lease.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_lease_of_another_machine_is_over_when_nobody_renews_it(home, noting, made, monkeypatch):
    monkeypatch.setattr(sweep_module, "LEASE_SECONDS", 0.6)
    item = noting("ann")
    sweep = Sweep.create(home / "sweep", [item])
    lease = SoftFileLease(leases() / item.key, lease_duration=0.6)
    with lease:
        text = (leases() / item.key).read_text(encoding="utf-8")
    there = "\n".join("host=elsewhere" if line.startswith("host=") else line for line in text.split("\n"))
    (leases() / item.key).write_text(there, encoding="utf-8")
    started = time.monotonic()
    work(sweep, never)
    assert made() == ["ann"] and 0.5 < time.monotonic() - started < 10


def test_an_item_at_which_workers_keep_dying_fails_and_takes_nothing_else_along(home, noting, made):
    sweep = Sweep.create(home / "sweep", [noting("deadly"), noting("alone")])
    for _ in range(DEATHS):
        Log(sweep.folder).note(0, STARTED)
    work(sweep, never)
    assert made() == ["alone"] and "workers died at it" in failed_in(sweep)["deadly"]


def test_a_line_that_a_kill_has_cut_is_not_read(home, chain, made):
    sweep = Sweep.create(home / "sweep", chain)
    log = Log(sweep.folder)
    log.note(3, DONE, words="made")
    with open(log.path, "a", encoding="utf-8") as stream:
        stream.write('{"item": 0, "eve')
    work(sweep, never)
    assert made() == ["ann", "snn", "rows"]


def test_a_name_given_again_joins_the_sweep_of_the_same_items_and_of_no_others(home, chain, noting):
    Sweep.create(home / "sweep", chain)
    assert [item.key for item in Sweep.create(home / "sweep", chain).items] == [item.key for item in chain]
    with pytest.raises(InputError, match="a sweep of other items or code; expected the same; give another name"):
        Sweep.create(home / "sweep", [*chain, noting("more")])
    with pytest.raises(InputError, match="holds no sweep"):
        Sweep.open(home / "nowhere")


def test_a_worker_with_other_code_refuses_to_join(home, chain, monkeypatch):
    Sweep.create(home / "sweep", chain)
    monkeypatch.setattr(sweep_module, "package_digest", lambda: "other")
    with pytest.raises(InputError, match="is not the one that began the sweep"):
        Sweep.open(home / "sweep")


def test_two_items_of_one_name_are_refused(home, noting):
    with pytest.raises(InputError, match="two items have the same name"):
        Sweep.create(home / "sweep", [noting("ann"), noting("ann")])


def test_an_item_costs_a_few_milliseconds_beside_its_own_work(home, noting):
    count = 1000
    sweep = Sweep.create(home / "sweep", [noting(f"item-{number}") for number in range(count)])
    started = time.monotonic()
    work(sweep, never)
    assert sweep.left == 0 and (time.monotonic() - started) / count < 0.02
