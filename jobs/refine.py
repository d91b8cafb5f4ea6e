"""Step 2, as `avel refine`: an entry for `ray job submit -- python jobs/refine.py`."""

import sys

from distributed_avel.commands import refine

if __name__ == "__main__":
    raise SystemExit(refine(sys.argv[1:]))
