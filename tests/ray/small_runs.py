"""Options of a pipeline that is small enough for a test: synthetic features, arm `base`."""

SMALL_RUN = {
    "--arms": "base",
    "--data.dataset": "synthetic",
    "--data.synthetic.num-train": 28,
    "--data.synthetic.num-event-free": 2,
    "--data.synthetic.num-val": 28,
    "--data.synthetic.num-test": 28,
    "--model.hidden-size": 8,
    "--train.cpus-per-worker": 1,
}
