"""`avel check` for `ray job submit -- python jobs/check_data.py`."""

import sys

from distributed_avel.commands import check

if __name__ == "__main__":
    raise SystemExit(check(sys.argv[1:]))
