"""Pipelines that are small enough for tests: synthetic features, arm `base`."""

from pathlib import Path

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


def checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of Step 1, of a Ray task or of Ray Train."""
    return [*run.glob("base/*/state.pt"), *run.glob("base/*/ray/checkpoint_*/state.pt")]
