"""The model folder: everything that is needed to use a trained model, without its run.

    model/
      config.json          classes, timeline, model and extractor settings, sha256 of the weights
      model.safetensors    weights
      metrics.json         metrics on the test split, in percent
      README.md            model card
      example.py           a script that predicts a file, or features

Loading a folder reads the first two files and executes nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from distributed_avel.config import Config, ExtractConfig, ModelConfig, TrainConfig, explain
from distributed_avel.errors import ArtifactError
from distributed_avel.predict.model_card import EXAMPLE, example, model_card
from distributed_avel.storage import Location, remove_file
from distributed_avel.version import VERSION

MODEL_CONFIG, MODEL_WEIGHTS, METRICS, CARD = (
    "config.json",
    "model.safetensors",
    "metrics.json",
    "README.md",
)

Format = Literal["onnx", "torch-export"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch-export": ".pt2"}

FUNCTIONS = ("encode", "score", "probabilities")
"""`encode` and `score` of the base model, and the probabilities of segments in 0..1 (B, T, K), by
which `avel predict` predicts; for models with an event gate they do not follow from the scores."""

FORMATS_FILE = "formats.json"
"""Describes the files of other formats in a model folder."""

FORMAT_FILES = (
    FORMATS_FILE,
    *(f"{function}{suffix}" for function in FUNCTIONS for suffix in SUFFIXES.values()),
)
"""Files of the model in other formats, which `avel export --format` adds."""

MODEL = "model"
"""Name of the model folder in a run directory."""

MODEL_FORMAT = 1
"""Version of the layout of the folder."""


class ModelSettings(Config):
    """Content of `config.json`."""

    format: Literal[1] = 1
    """Version of the layout of the folder."""

    version: str
    """Version of distributed_avel that wrote the folder."""

    packages: dict[str, str] = Field(default_factory=dict)
    """Versions of the packages that trained the model."""

    arm: str
    """Name of the arm in tables, such as AVE+A+LR."""

    description: str | None = None
    """Description of the arm, in one line."""

    seed: NonNegativeInt | None = None
    """Seed of the run."""

    task: Literal["localization", "parsing"] | None = None
    """Task of the base model, which determines it."""

    tau: FiniteFloat | dict[str, FiniteFloat] | None = None
    """Threshold of the pseudo-labels of the training, by modality in parsing; None without any."""

    decision_threshold: FiniteFloat | None = None
    """Probability from which an event is predicted; None if the most probable class is."""

    dataset: str
    """Data set of the training."""

    synthetic: bool
    """True if the data set was generated."""

    num_videos: dict[str, NonNegativeInt] = Field(default_factory=dict)
    """Videos of each split."""

    conditions: dict[str, str] = Field(default_factory=dict)
    """Conditions of the metrics, such as the rule for tau and which metrics are absent."""

    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the event classes, in the order of the model's columns."""

    num_segments: PositiveInt
    """T, the number of segments of the training videos."""

    segment_s: Annotated[FiniteFloat, Field(gt=0)]
    """Length of a segment, in seconds."""

    model: ModelConfig
    train: TrainConfig
    extract: ExtractConfig | None
    """Settings of the extractor; None if the data set brought its features."""

    extractor_provenance: dict[str, str]
    """Dependencies of the features besides the settings, such as hashes of weights."""

    audio_shape: tuple[PositiveInt, PositiveInt]
    """Segments and feature size, (T, D)."""

    visual_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Segments, regions and feature size, (T, R, D)."""

    sha256: str
    """Hash of the weights."""


def write_model_folder(
    folder: Location,
    settings: Mapping[str, Any],
    weights: bytes,
    metrics: Mapping[str, float | None],
    *,
    arms: Mapping[str, Mapping[str, float | None]] | None = None,
    seeds: Sequence[Mapping[str, float | None]] = (),
) -> ModelSettings:
    """Write a model folder. Files of another model in other formats are removed.

    Args:
        settings: All of `ModelSettings` but the hash of the weights.
        metrics: On the test split, in percent.
        arms: Metrics of all arms and baselines of the run, by name, for the model card.
        seeds: Metrics of the same arm in several runs that differ in the seed, for the model card.
    """
    checked = ModelSettings(**settings, sha256=hashlib.sha256(weights).hexdigest())
    arms = arms or {checked.arm: metrics}
    for name in FORMAT_FILES:
        remove_file(folder / name)
    (folder / MODEL_WEIGHTS).write_bytes(weights)
    (folder / METRICS).write_json(dict(metrics))
    (folder / CARD).write_bytes(model_card(checked, arms, seeds).encode())
    (folder / EXAMPLE).write_bytes(example(has_extractor=checked.extract is not None).encode())
    (folder / MODEL_CONFIG).write_json(
        checked.model_dump(mode="json")
    )  # last: a whole folder has it
    return checked


def read_model_folder(folder: Location) -> tuple[ModelSettings, bytes]:
    """Read the settings and the weights of a model folder, and verify the weights.

    Raises:
        ArtifactError: It is not a model folder, or it is damaged.
    """
    place = folder / MODEL_CONFIG
    try:
        content = place.read_json()
        weights = (folder / MODEL_WEIGHTS).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        missing = MODEL_WEIGHTS if place.exists() else MODEL_CONFIG
        raise ArtifactError(
            f"{folder}: not a model folder: no {missing}; name the folder `model` of a finished run"
        ) from None
    except (ValueError, RecursionError):
        raise ArtifactError(f"{place}: damaged: not JSON; copy it again") from None
    if not isinstance(content, dict):
        raise ArtifactError(f"{place}: damaged: no JSON object; copy it again")
    if content.get("format") != MODEL_FORMAT:
        raise ArtifactError(
            f"{place}: format {content.get('format')!r}, written by distributed_avel "
            f"{content.get('version')}; this version ({VERSION}) reads format {MODEL_FORMAT}; "
            "install the version that wrote it"
        )
    try:
        settings = ModelSettings.model_validate(content)
    except ValidationError as error:
        problems = " ".join(explain(str(place), error).split())
        raise ArtifactError(f"{problems}; copy the folder again, as the run wrote it") from None
    check_weights(weights, settings, folder / MODEL_WEIGHTS, "copy it again")
    return settings, weights


def check_weights(weights: bytes, settings: ModelSettings, place: Location, remedy: str) -> None:
    """Refuse weights that are not those of the settings.

    Raises:
        ArtifactError: Their sha256 differs.
    """
    if hashlib.sha256(weights).hexdigest() != settings.sha256:
        raise ArtifactError(f"{place}: damaged: its sha256 is another; {remedy}")


def read_metrics(folder: Location) -> dict[str, float | None]:
    """Read the metrics of a model folder.

    Raises:
        ArtifactError: They are missing or damaged.
    """
    place = folder / METRICS
    try:
        return TypeAdapter(dict[str, FiniteFloat | None]).validate_python(place.read_json())
    except FileNotFoundError:
        raise ArtifactError(f"{place}: no such file; copy the folder again") from None
    except (ValueError, RecursionError):
        raise ArtifactError(f"{place}: damaged: no metrics by name; copy it again") from None
