"""A sweep: the best tau, window and stride for a data set, and what else is worth varying.

    python jobs/tune.py                                      the embedded demo (synthetic)
    python jobs/tune.py --config configs/sweep.yaml          generated features (synthetic)
    python jobs/tune.py --config configs/ave.yaml --data.root DIR --sweep.search optuna \
        --sweep.vary train.learning_rate=0.0003..0.003

Stages that trials share are computed once. Interrupted, the same command goes on. The choice is
made on the validation split; RUN_DIR/best.yaml holds it, for jobs/pipeline.py --config.
"""

import sys

from distributed_avel.cli import run_job
from distributed_avel.config import TuneConfig
from distributed_avel.sweep import run_sweep

if __name__ == "__main__":
    raise SystemExit(run_job(run_sweep, sys.argv[1:], __doc__, TuneConfig))
