"""Features, as `avel extract`: an entry for `ray job submit -- python jobs/extract.py`."""

import sys

from distributed_avel.commands import extract

if __name__ == "__main__":
    raise SystemExit(extract(sys.argv[1:]))
