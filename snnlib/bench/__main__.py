"""`python -m snnlib.bench`: see `snnlib.bench.speed`."""

import sys

from snnlib.bench.speed import main

sys.exit(main())
