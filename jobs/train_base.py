"""Step 1: train the base models on video-level labels.

    python jobs/train_base.py --config configs/ave.yaml --data.root DIR

Reads the features; writes weights and learning curves under RUN_DIR/base, with or without the
auxiliary loss, as the arms need it.
"""

import sys

from distributed_avel.cli import run_job
from distributed_avel.run import run_base

if __name__ == "__main__":
    raise SystemExit(run_job(run_base, sys.argv[1:], __doc__))
