"""Interface and registry of base models.

To add a model, write `models/<name>.py` with a subclass of `BaseModel`, decorate it with
`@register_model("<name>")`, and import it in `models/__init__.py`, or register it from your own
package (see `distributed_avel.registry`). The registry tests cover every registered model: shapes,
gradients, any number of segments, and that mixing codes equals mixing videos.

A model consists of two functions: `encode` processes each segment independently, `score`
processes the sequence of segments. A synthetic video is then a mix of codes, and each segment is
encoded once. Training and relabelling use only this interface:

    logits = model.score(model.encode(audio, visual))       segment logits (eq. 5)
    pooled = mil_pool(logits, model.pooling)                logits of the video or of a window
    pooled.softmax(-1)                                      probabilities (eq. 6)

Models with an event gate and a video-level classifier (`cmran`, `avsdn`) implement it, too: their
segment logits are gate times class logits, and their published video-level output is the maximum
over segments. Their prediction is not the argmax of these logits, so they override `localize`.

A model for parsing is a `ParsingModel`. It has logits for both modalities and defines how they
become probabilities of a segment and of a video:

    model.segment_prob(logits)               each segment and modality
    model.video_prob(logits, window)         the video or a window of it

Most models follow their authors' code and load the authors' weights (`PublishedModel`). The others
are reimplemented from descriptions; the docstring of the file names them and our own choices.

Shape suffixes used in this file:
    B = videos    T = segments    R = regions    D = feature size
    K = event classes + background; in parsing, M = modalities (audio, visual), C = event classes
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from torch import Tensor, nn

from distributed_avel.config import Config as Section
from distributed_avel.config import read_options
from distributed_avel.registry import Registry

Shape = tuple[int, ...]


class BaseModel(nn.Module, ABC):
    """Base class of models: `encode` per segment, then `score` across segments.

    The constructor takes the keyword arguments of `create_model` and the options of `Config`.
    Parameters that the logits do not depend on are omitted, even if the authors' code has them,
    because DDP would wait for their gradients.
    """

    class Config(Section):
        """Options of this model alone, with defaults and help texts (`model.options` of a run).

        A model declares its options in a nested class `Config` that extends the inherited one.
        """

    pooling: ClassVar[Literal["max", "mean", "lse"]] = "max"
    """MIL pooling of the published model, see `mil.mil_pool`."""

    task: ClassVar[Literal["localization", "parsing"]] = "localization"
    """Localization: one event or background per segment. Parsing: any number of audio and visual
    events per segment; exactly the subclasses of `ParsingModel`."""

    @abstractmethod
    def encode(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Encode each segment independently of the others, shape (B, T, D')."""

    @abstractmethod
    def score(self, codes_BTD: Tensor) -> Tensor:
        """Compute segment logits x_t (eq. 5), shape (B, T, K), with more axes for parsing."""

    def forward(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Compute segment logits, shape (B, T, K)."""
        return self.score(self.encode(audio_BTD, visual_BTRD))

    def localize(self, codes_BTD: Tensor) -> Tensor:
        """Compute logits (B, T, K) whose argmax is the predicted class (localization only)."""
        return self.score(codes_BTD)


class VideoProb(NamedTuple):
    """Probabilities of the events in a video or window, each of shape (..., C).

    Args:
        either: In either modality (pooled over both).
        heard: In the audio modality.
        seen: In the visual modality.
    """

    either: Tensor
    heard: Tensor
    seen: Tensor


class ParsingModel(BaseModel):
    """A model of parsing: any number of audio and visual events per segment, without background.

    The output of `score` may have any axes after T; only the two methods below read them. Codes
    consist of an audio code, a function of the audio features only, followed by a visual code of
    equal size, so that one modality can be exchanged with that of another video (arm MA).
    """

    task = "parsing"

    @abstractmethod
    def segment_prob(self, scores: Tensor) -> Tensor:
        """Compute the probability of each event by segment and modality, shape (B, T, M, C)."""

    @abstractmethod
    def video_prob(self, scores: Tensor, valid_BT: Tensor | None = None) -> VideoProb:
        """Pool the probabilities over the segments (MIL).

        Args:
            scores: Output of `score`; further leading axes are allowed.
            valid_BT: True for the segments of a window; all by default. Broadcasts.
        """


class PublishedModel(BaseModel):
    """A model that follows its authors' code and can load their weights."""

    reference_names: ClassVar[Mapping[str, str]]
    """Maps the names of our modules or parameters to those of the authors."""

    reference_unused: ClassVar[tuple[str, ...]] = ()
    """Modules and parameters of the authors' code that its logits do not depend on."""

    @classmethod
    @abstractmethod
    def reference_sizes(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Derive the constructor arguments from the shapes of the authors' parameters."""


UNVERIFIED = "reimplemented from descriptions, unverified"
"""Marks the results of models that cannot be compared with their authors' code."""

ModelClass = TypeVar("ModelClass", bound=type[BaseModel])

_MODELS: Registry[type[BaseModel]] = Registry("base model", "model.name", "distributed_avel.models")


def register_model(name: str) -> Callable[[ModelClass], ModelClass]:
    """Class decorator that registers a base model under `name`."""

    def register(model: ModelClass) -> ModelClass:
        if (model.task == "parsing") != issubclass(model, ParsingModel):
            raise TypeError(f"{model.__name__}: a model for parsing is a subclass of ParsingModel")
        if not issubclass(model.Config, BaseModel.Config):
            raise TypeError(f"{model.__name__}.Config is not a subclass of BaseModel.Config")
        _MODELS.register(name, model)
        return model

    return register


def model_names() -> list[str]:
    """Return the names of all base models, in alphabetical order."""
    return _MODELS.names()


def model_class(name: str) -> type[BaseModel]:
    """Return the base model class of that name.

    Raises:
        ConfigError: There is none; the message lists the registered names.
    """
    return _MODELS[name]


def model_options(name: str, values: Mapping[str, Any]) -> BaseModel.Config:
    """Validate the options of a base model, and complete them with its defaults.

    Args:
        name: Registered name.
        values: `model.options` of a run.

    Raises:
        ConfigError: There is no such model or option, or a value is invalid.
    """
    return read_options(model_class(name).Config, values, "model.options", f"base model {name}")


def is_verified(name: str) -> bool:
    """Return True if a base model is verified against its authors' code, see `UNVERIFIED`."""
    return issubclass(model_class(name), PublishedModel)


def create_model(
    name: str,
    *,
    num_classes: int,
    visual_dim: int,
    audio_dim: int,
    regions: int,
    hidden_size: int = 128,
    **options: Any,
) -> BaseModel:
    """Create a base model with random weights, drawn from torch's global generator.

    Args:
        name: Registered name.
        num_classes: C, the event classes; for localization, `score` returns one more column, for
            background.
        visual_dim: Width of the visual features.
        audio_dim: Width of the audio features.
        regions: R, the regions of the visual features of a segment (49 for 7 x 7).
        hidden_size: All other widths are proportional to it; 128 gives the published model.
        options: Options of this model alone, see its `Config`.

    Raises:
        ConfigError: There is no such model or option, or a value is invalid.
    """
    return model_class(name)(
        num_classes=num_classes,
        visual_dim=visual_dim,
        audio_dim=audio_dim,
        regions=regions,
        hidden_size=hidden_size,
        **dict(model_options(name, options)),
    )
