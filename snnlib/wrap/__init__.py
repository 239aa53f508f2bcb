"""Networks of others as `images -> logits` modules, so that attacks and the audit take them.

    model = wrap.snntorch(net, time_steps=25, readout="count")

None of the frameworks is imported here: a network brings its own along.
"""

from snnlib.wrap.callable import callable
from snnlib.wrap.network import READOUTS, Wrapped, read_out
from snnlib.wrap.norse import norse
from snnlib.wrap.snntorch import snntorch
from snnlib.wrap.spikingjelly import spikingjelly

__all__ = ["READOUTS", "Wrapped", "callable", "norse", "read_out", "snntorch", "spikingjelly"]
