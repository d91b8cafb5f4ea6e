"""Step 2: score windows of the training videos with the base model of Step 1.

    python jobs/refine.py --config configs/ave.yaml --data.root DIR

Reads the base model and the features; writes window probabilities and the choice of tau under
RUN_DIR/refine.
"""

import sys

from distributed_avel.cli import run_job
from distributed_avel.run import run_refine

if __name__ == "__main__":
    raise SystemExit(run_job(run_refine, sys.argv[1:], __doc__))
