"""The whole pipeline: videos to features, base model, refined labels, retrained model, report.

    python jobs/pipeline.py                                          the embedded demo (synthetic)
    python jobs/pipeline.py --config configs/ave.yaml --data.root DIR

What exists already in the run directory is reused; interrupted, the same command goes on.
"""

import sys

from distributed_avel.cli import run_job
from distributed_avel.run import run_pipeline

if __name__ == "__main__":
    raise SystemExit(run_job(run_pipeline, sys.argv[1:], __doc__))
