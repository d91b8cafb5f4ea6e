"""The models of a run: one for each arm, listed in a file at the top of the run directory."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, FiniteFloat, ValidationError

from distributed_avel.config import Config, explain
from distributed_avel.errors import ArtifactError
from distributed_avel.predict.model_folder import ModelSettings
from distributed_avel.storage import Location

RUN_MODELS = "models.json"


class ArmModel(Config):
    """The model of an arm.

    Args:
        weights: Its file of weights, below the run directory.
        settings: Content of `config.json` of its model folder.
    """

    weights: str
    settings: ModelSettings


class RunModels(Config):
    """Content of `models.json`.

    Args:
        default: Arm whose model is in the folder `model` of the run.
        arms: Models by arm, such as A+LR.
        metrics: Metrics on the test split, in percent, by the names of arms and baselines in
            tables, such as AVE+A+LR and GT-repeat.
    """

    default: str
    arms: dict[str, ArmModel] = Field(min_length=1)
    metrics: dict[str, dict[str, FiniteFloat | None]]


def write_run_models(
    run_dir: Location,
    settings: Mapping[str, Mapping[str, Any]],
    weights: Mapping[str, str],
    default: str,
    metrics: Mapping[str, Mapping[str, float | None]],
) -> RunModels:
    """Write `models.json`.

    Args:
        settings: All of `ModelSettings`, by arm.
        weights: Files of weights below the run directory, by arm.
        default, metrics: See `RunModels`.
    """
    models = RunModels(
        default=default,
        arms={
            arm: ArmModel(weights=weights[arm], settings=ModelSettings(**settings[arm]))
            for arm in settings
        },
        metrics={name: dict(values) for name, values in metrics.items()},
    )
    (run_dir / RUN_MODELS).write_json(models.model_dump(mode="json"))
    return models


def read_run_models(run_dir: Location) -> RunModels:
    """Read `models.json` of a run.

    Raises:
        ArtifactError: There is none, or it is damaged.
    """
    place = run_dir / RUN_MODELS
    remedy = "run `avel run` again with the same options, which reuses all finished stages"
    try:
        return RunModels.model_validate(place.read_json())
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{run_dir}: no {RUN_MODELS}; name the directory of a finished run, or {remedy}"
        ) from None
    except ValidationError as error:
        problems = " ".join(explain(str(place), error).split())
        raise ArtifactError(f"{problems}; {remedy}") from None
    except (ValueError, RecursionError):
        raise ArtifactError(f"{place}: damaged: not JSON; {remedy}") from None
