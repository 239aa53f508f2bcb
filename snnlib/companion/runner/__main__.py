"""`python -m snnlib.companion.runner`: see `snnlib.companion.runner.run`."""

import sys

from snnlib.companion.runner.run import main

sys.exit(main())
