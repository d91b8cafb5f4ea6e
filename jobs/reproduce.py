"""The paper's Tables 1 to 7, mean and spread over seeds, each figure beside the paper's.

    python jobs/reproduce.py --config configs/synthetic.yaml --tables 3 --seeds 3
    python jobs/reproduce.py --config configs/ave_features.yaml --data.root DIR --seeds 5

Which models, arms, windows and fixed tau are trained follows from the tables: model.name and arms
have no effect. All other settings are those of the run. What systems share is computed once;
interrupted, the same command goes on. RUN_DIR/tables holds each table as Markdown and CSV, all of
them as tables.html and tables.json.
"""

import sys

from distributed_avel.cli import run_job
from distributed_avel.config import ReproduceConfig
from distributed_avel.reproduce import run_reproduce

if __name__ == "__main__":
    raise SystemExit(run_job(run_reproduce, sys.argv[1:], __doc__, ReproduceConfig))
