"""Evaluation: all arms on the test split, and the report page.

    python jobs/evaluate.py --config configs/ave.yaml --data.root DIR

Writes RUN_DIR/results.json, predictions.parquet and report.html.
"""

import sys

from distributed_avel.cli import run_job
from distributed_avel.run import run_evaluate

if __name__ == "__main__":
    raise SystemExit(run_job(run_evaluate, sys.argv[1:], __doc__))
