"""A sweep, as `avel tune`: an entry for `ray job submit -- python jobs/tune.py`."""

import sys

from distributed_avel.commands import tune

if __name__ == "__main__":
    raise SystemExit(tune(sys.argv[1:]))
