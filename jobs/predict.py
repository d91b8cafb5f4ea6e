"""Prediction, as `avel predict`: an entry for `ray job submit -- python jobs/predict.py`."""

import sys

from distributed_avel.commands import predict

if __name__ == "__main__":
    raise SystemExit(predict(sys.argv[1:]))
