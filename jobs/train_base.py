"""Step 1, as `avel train-base`: an entry for `ray job submit -- python jobs/train_base.py`."""

import sys

from distributed_avel.commands import train_base

if __name__ == "__main__":
    raise SystemExit(train_base(sys.argv[1:]))
