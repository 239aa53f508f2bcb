"""The dry run: what a profile costs on this machine, with what its logs say has been spent."""

from __future__ import annotations

from snnlib.companion.report.figures import table_markdown
from snnlib.companion.runner.cost import NOT_COUNTED, Meter, beside_spent, estimated, work_of
from snnlib.companion.runner.rates import rates_here
from snnlib.companion.sizes import get_profile
from snnlib.runtime import default_device, describe_device


def meter_of(name: str, device: str, measure: bool = False) -> tuple[Meter, list[str]]:
    """A meter for a profile on this machine, and a line on its rates where they are not measured here."""
    profile = get_profile(name)
    if measure or not profile.slow_to_time or device.startswith("cuda"):
        return Meter(device, profile.timed_batches), []
    rates, origin = rates_here()
    return Meter(device, profile.timed_batches, rates), [f"Rates: {origin}."]


def report(name: str, measure: bool = False) -> str:
    """The cost of the profile of that name, as text with Markdown tables. Errors: InputError for another one.

    measure: time every network here; else, on a CPU, what a measured machine's rates say where they know the network.
    """
    trainings, attacks = work_of(name)
    device = default_device()
    unit = "GPU-hours" if device.startswith("cuda") else "hours on this machine"
    meter, origin = meter_of(name, device, measure)
    table, ledger = estimated(trainings, attacks, meter), beside_spent(trainings, meter)
    training, attack = (table[table.work.eq("training") == chosen].hours.sum() for chosen in (True, False))
    lines = [
        f"Profile {name} on {describe_device(device)}; hours are {unit}. Nothing was trained or stored.",
        *origin,
        "Attacks take at most this long: images that fall leave early. Trainings are timed on untrained networks.",
        NOT_COUNTED,
        f"\n{table_markdown(table.rename(columns={'hours': unit}))}",
        f"Total: {training + attack:,.3f} {unit}; trainings {training:,.3f}, attacks at most {attack:,.3f}.\n",
    ]
    if ledger.empty:
        return "\n".join([*lines, "Spent so far: nothing, no training log of this profile and code is here."])
    estimate, real = ledger["hours estimated"].sum(), ledger["hours spent"].sum()
    last = f"Spent so far: {real:,.3f} hours, by the logs; estimate/spent for the same epochs: {estimate / real:.2f}."
    return "\n".join([*lines, table_markdown(ledger), last])
