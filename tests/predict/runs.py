"""Small finished runs on generated features (synthetic), trained in the current process."""

from pathlib import Path

from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import validate
from distributed_avel.pipeline import Pipeline
from distributed_avel.publish import publish
from distributed_avel.stages.stage import Execution


def small_run(folder: Path, model: str = "ave", seed: int = 0, **values) -> Path:
    """Run the arms `base` and `LR`; return the run directory."""
    dataset, num_event_free = ("synthetic", 4) if model != "han" else ("synthetic_llp", 0)
    sizes = {"num_train": 24, "num_event_free": num_event_free, "num_val": 12, "num_test": 12}
    config = validate(
        {
            "run_dir": str(folder),
            "seed": seed,
            "arms": ["base", "LR"],
            "data": {"dataset": dataset, dataset: sizes},
            "model": {"name": model, "hidden_size": 4},
            "train": {"base_epochs": 2, "retrain_epochs": 2},
            "refine": {"threshold": 0.3},
            **values,
        },
        "test",
    )
    publish(Pipeline(config, untracked(), execution=Execution(in_process=True, quiet=True)))
    return folder
