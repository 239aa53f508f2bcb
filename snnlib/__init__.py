"""Adversarial robustness of spiking neural networks: an executable companion to two papers.

Importing the package applies the process settings of `snnlib.runtime` (allocator, threads).
"""

from snnlib import runtime as runtime

__version__ = "0.1.0"

runtime.apply_process_settings()
