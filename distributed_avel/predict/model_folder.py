"""The model folder: everything that is needed to use a trained model, without its run.

    model/
      config.json          classes, timeline, model and extractor settings, sha256 of the weights
      model.safetensors    weights
      metrics.json         metrics on the test split, in percent
      README.md            model card

No file of the folder can execute code when it is read.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, PositiveInt, ValidationError

from distributed_avel.config import Config, ExtractConfig, ModelConfig, TrainConfig, explain
from distributed_avel.errors import ArtifactError
from distributed_avel.storage import Location
from distributed_avel.version import VERSION

MODEL_CONFIG, MODEL_WEIGHTS, _METRICS, _CARD = (
    "config.json",
    "model.safetensors",
    "metrics.json",
    "README.md",
)

MODEL_FORMAT = 1
"""Version of the layout of the folder."""


class ModelSettings(Config):
    """Content of `config.json`."""

    format: Literal[1] = 1
    """Version of the layout of the folder."""

    version: str
    """Version of distributed_avel that wrote the folder."""

    arm: str
    """Name of the arm in tables, such as AVE+A+LR."""

    dataset: str
    """Data set of the training."""

    synthetic: bool
    """Whether the data set was generated."""

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
    """What the features depend on besides the settings, such as hashes of weights."""

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
) -> ModelSettings:
    """Write a model folder.

    Args:
        settings: All of `ModelSettings` but the hash of the weights.
        metrics: On the test split, in percent.
    """
    checked = ModelSettings(**settings, sha256=hashlib.sha256(weights).hexdigest())
    (folder / MODEL_WEIGHTS).write_bytes(weights)
    (folder / _METRICS).write_json(dict(metrics))
    (folder / _CARD).write_bytes(_card(checked, metrics).encode())
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
    if hashlib.sha256(weights).hexdigest() != settings.sha256:
        raise ArtifactError(
            f"{folder / MODEL_WEIGHTS}: damaged: its sha256 is another; copy it again"
        )
    return settings, weights


def _card(settings: ModelSettings, metrics: Mapping[str, float | None]) -> str:
    """The model card, in Markdown."""
    kind = "generated (synthetic) data" if settings.synthetic else "the data set"
    rows = [
        f"| {name} | {'undefined' if value is None else f'{value:.1f}'} |"
        for name, value in metrics.items()
    ]
    extractor = settings.extract.extractor if settings.extract else "none, features were given"
    return "\n".join(
        [
            f"# {settings.arm} on {settings.dataset}",
            "",
            "An audio-visual event localization model, trained on video-level labels by "
            f"distributed_avel {settings.version} on {kind} `{settings.dataset}`.",
            "",
            f"- Base model: {settings.model.name}, hidden size {settings.model.hidden_size}",
            f"- Extractor: {extractor}",
            f"- Training videos: {settings.num_segments} segments of {settings.segment_s:g} s",
            f"- {len(settings.classes)} classes: {', '.join(settings.classes)}",
            "",
            "Metrics on the test split, in percent, of one training (one seed):",
            "",
            "| metric | value |",
            "| --- | ---: |",
            *rows,
            "",
            "## Use",
            "",
            "    avel predict FOLDER VIDEO.mp4",
            "",
            "```python",
            "from distributed_avel import load_model",
            "",
            'prediction = load_model("FOLDER").predict("VIDEO.mp4")',
            "print(prediction.to_dataframe())",
            "```",
            "",
            "## Limits",
            "",
            "The model knows only the classes above. Events shorter than a segment may be missed, "
            "as may events in videos that differ from the training videos. A confidence is not a "
            "calibrated probability.",
            "",
        ]
    )
