"""`python tests/golden/renew.py [case ...]`: write the numbers of the golden cases anew (all, or those named).

Do so only where a change of numbers is meant, together with a raised `version` of the function that makes the result
(`@stored(kind, version=...)`, `TRAINING_VERSION`): otherwise old and new numbers stand under one name.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from cases import CASES, rows_of  # noqa: E402

if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        rows_of(name).to_csv(HERE / f"{name}.csv", index=False, float_format="%.9g", lineterminator="\n")
        print(name)
