"""Step 3: train from scratch on the refined pseudo-labels.

    python jobs/retrain.py --config configs/ave.yaml --data.root DIR

Reads the window probabilities and the features; writes weights and learning curves under
RUN_DIR/retrain.
"""

import sys

from distributed_avel.cli import run_job
from distributed_avel.run import run_retrain

if __name__ == "__main__":
    raise SystemExit(run_job(run_retrain, sys.argv[1:], __doc__))
