"""`python -m snnlib.audit`: see `snnlib.audit.command_line`."""

import sys

from snnlib.audit.command_line import main

sys.exit(main())
