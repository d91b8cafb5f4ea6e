"""Step 3, as `avel retrain`: an entry for `ray job submit -- python jobs/retrain.py`."""

import sys

from distributed_avel.commands import retrain

if __name__ == "__main__":
    raise SystemExit(retrain(sys.argv[1:]))
