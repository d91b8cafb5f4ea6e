"""Weakly-supervised audio-visual event localization with temporal label refinement, on Ray.

The public interface is what `__all__` lists:

    from distributed_avel import load_config, run_pipeline

    result = run_pipeline(load_config("synthetic", seed=1))
    print(result.table)

Importing the package loads none of the heavy libraries; the first use of a name does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from distributed_avel.version import VERSION

if TYPE_CHECKING:
    from distributed_avel.config import RunConfig, load_config
    from distributed_avel.datasets import load_dataset
    from distributed_avel.errors import AvelError
    from distributed_avel.models import create_model
    from distributed_avel.predict import Prediction, load_model
    from distributed_avel.run import RunResult, run_pipeline

__version__ = VERSION

__all__ = [
    "AvelError",
    "Prediction",
    "RunConfig",
    "RunResult",
    "create_model",
    "load_config",
    "load_dataset",
    "load_model",
    "run_pipeline",
]

_MODULES = {
    "AvelError": "errors",
    "Prediction": "predict",
    "RunConfig": "config",
    "RunResult": "run",
    "create_model": "models",
    "load_config": "config",
    "load_dataset": "datasets",
    "load_model": "predict",
    "run_pipeline": "run",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
