"""Tables 1 to 7, as `avel reproduce`: an entry for `ray job submit -- python jobs/reproduce.py`."""

import sys

from distributed_avel.commands import reproduce

if __name__ == "__main__":
    raise SystemExit(reproduce(sys.argv[1:]))
