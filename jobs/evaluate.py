"""Evaluation, as `avel evaluate`: an entry for `ray job submit -- python jobs/evaluate.py`."""

import sys

from distributed_avel.commands import evaluate

if __name__ == "__main__":
    raise SystemExit(evaluate(sys.argv[1:]))
