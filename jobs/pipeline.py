"""The whole pipeline, as `avel run`: an entry for `ray job submit -- python jobs/pipeline.py`."""

import sys

from distributed_avel.commands import pipeline

if __name__ == "__main__":
    raise SystemExit(pipeline(sys.argv[1:]))
