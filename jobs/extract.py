"""Features: decode the videos and extract aligned audio and visual features.

    python jobs/extract.py --config configs/ave.yaml --data.root DIR

Writes RUN_DIR/data and RUN_DIR/extract; what could not be used is in failures.parquet.
"""

import sys

from distributed_avel.cli import run_job
from distributed_avel.run import run_extract

if __name__ == "__main__":
    raise SystemExit(run_job(run_extract, sys.argv[1:], __doc__))
