"""Attacks on binned event recordings, each with a budget that a recording can have.

| attack | may change | budget | gradient |
|---|---|---|---|
| `attacks.random_noise` | any cells, or times of events | `Budget(k, "l0", "encoded")`, `Retiming` | none: control |
| `attacks.bit_flip` | any cells, greedily by gradient | `Budget(k, "l0", "encoded")` | yes |
| `retime` | times of events | `Retiming(jitter, moves=...)` | yes |
| `inject` | empty cells: a dash, a corner, the frame | `Budget(k, "l0", "encoded")` | none |
| `attacks.pgd`, ... | float values of all cells | `Budget(8 / 255)` on [N, T, 2, H, W] | yes |

The last is common in the literature and what it gives is no recording any more: cells hold fractions of an event. The
first four give rasters of 0 and 1. `changes` tells what an attack really did to each recording.
"""

from snnlib.attacks.events.budget import Retiming, changes
from snnlib.attacks.events.patterns import PATTERNS, inject
from snnlib.attacks.events.retiming import retime

__all__ = ["PATTERNS", "Retiming", "changes", "inject", "retime"]
