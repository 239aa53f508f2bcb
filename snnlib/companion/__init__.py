"""The companion: which networks the papers' chapters train, what is measured on them, verdicts, figures, the runner.

Only the notebooks and `run_all.sh` need it; the library never imports it.
"""

from snnlib.runtime import let_idle_threads_sleep

let_idle_threads_sleep()
