"""Networks of others as `images -> logits` modules, so that attacks and the audit take them.

    model = wrap.snntorch(net, time_steps=25, readout="count")

None of the frameworks is imported here: a network brings its own along. `wrap.nir` reads graphs by the package `nir`.
"""

from snnlib.wrap.callable import callable
from snnlib.wrap.network import READOUTS, Wrapped, read_out
from snnlib.wrap.nir import nir
from snnlib.wrap.nir_export import to_nir
from snnlib.wrap.norse import norse
from snnlib.wrap.snntorch import snntorch
from snnlib.wrap.spikingjelly import spikingjelly

__all__ = ["READOUTS", "Wrapped", "callable", "nir", "norse", "read_out", "snntorch", "spikingjelly", "to_nir"]
