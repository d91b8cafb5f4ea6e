"""`avel inspect` for `ray job submit -- python jobs/inspect_media.py`."""

import sys

from distributed_avel.commands import inspect

if __name__ == "__main__":
    raise SystemExit(inspect(sys.argv[1:]))
