"""What a base model is, and the list of those we have.

To add one: write `models/<name>.py` with a `BaseModel`, decorate it with
`@register_model("<name>")`, and import it in `models/__init__.py`; or do so in a package of your
own, see `distributed_avel.registry`. The registry tests run over the list, so they cover it at
once: shapes, gradients, any number of segments, and that mixing codes equals mixing videos.

A model is written in two parts. `encode` looks at each segment alone, `score` looks across
segments. A synthetic video is then a mix of codes, and no segment is encoded twice. Code
that trains or relabels needs to know no more than this of a model:

    scores = model.score(model.encode(audio, visual))       segments, raw (eq. 5)
    pooled = mil_pool(scores, model.pooling)                the video, or a window of it
    pooled.softmax(-1)                                      probabilities (eq. 6)

Models with an event gate and a video-level classifier (`cmran`, `avsdn`) fit it too: their
segment score is gate times class score, and the maximum over segments is what they publish.
Only their prediction differs from the largest score of a segment, hence `localize`.

A model for parsing is a `ParsingModel`. It scores two modalities, and says itself how its scores
become probabilities, of a segment and of a video:

    model.segment_prob(scores)               each segment, heard and seen
    model.video_prob(scores, window)         the video, or a window of it

Most models follow their authors' code and load their weights (`PublishedModel`). Where there is
none to follow, the file says which text was, and what that text leaves open.

Shape suffixes: B = videos, T = segments, R = regions, D = feature size,
K = event classes + background; for parsing, M = modalities (heard, seen), C = event classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from torch import Tensor, nn

from distributed_avel.registry import Registry

Shape = tuple[int, ...]


class BaseModel(nn.Module, ABC):
    """Scores segments in two parts, so that synthetic videos share the first.

    A constructor takes the keyword arguments of `create`. A parameter that the scores do not
    depend on is left out, even where the authors' code has one: DDP waits for its gradient.
    """

    pooling: ClassVar[Literal["max", "mean", "lse"]] = "max"
    """MIL pooling of the published model, from segment scores to video scores."""

    task: ClassVar[Literal["localization", "parsing"]] = "localization"
    """One event or background in a segment; or which events are heard, which are seen. A
    `ParsingModel` is for parsing, and no other model is."""

    @abstractmethod
    def encode(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Codes of shape (B, T, D'), each a function of its own segment alone."""

    @abstractmethod
    def score(self, codes_BTD: Tensor) -> Tensor:
        """Raw segment scores, before any softmax (eq. 5): (B, T, K), or more axes for parsing."""

    def forward(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Raw segment scores of shape (B, T, K)."""
        return self.score(self.encode(audio_BTD, visual_BTRD))

    def localize(self, codes_BTD: Tensor) -> Tensor:
        """Segment scores (B, T, K) whose largest column is the predicted class (localization)."""
        return self.score(codes_BTD)


class VideoProb(NamedTuple):
    """Probabilities of the events in a video or window, each of shape (..., C)."""

    either: Tensor
    heard: Tensor
    seen: Tensor


class ParsingModel(BaseModel):
    """A model that scores what is heard and what is seen, several events at once.

    There is no background class. The raw scores of `score` may have any axes behind T; the two
    methods below are all that reads them. Codes hold what is heard in their first half, a function
    of the audio features alone, and what is seen in the second, so that a video can be given the
    sound of another one (arm MA).
    """

    task = "parsing"

    @abstractmethod
    def segment_prob(self, scores: Tensor) -> Tensor:
        """Probability of each event in each segment and modality, shape (B, T, M, C)."""

    @abstractmethod
    def video_prob(self, scores: Tensor, valid_BT: Tensor | None = None) -> VideoProb:
        """MIL pooling over the segments.

        Args:
            scores: From `score`; there may be more axes before T.
            valid_BT: True for the segments of a window; by default all. Broadcasts.
        """


class PublishedModel(BaseModel):
    """A model that follows its authors' code, so that their weights fit it."""

    reference_names: ClassVar[Mapping[str, str]]
    """Where our parameters come from: {our module or parameter: the authors' name of it}."""

    reference_unused: ClassVar[tuple[str, ...]] = ()
    """Modules and parameters of the authors that their scores do not depend on."""

    @classmethod
    @abstractmethod
    def reference_sizes(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Constructor arguments that give a model the shapes of the authors' parameters."""


UNVERIFIED = "reimplemented from descriptions, unverified"
"""The mark of a model without authors' code to hold it against, wherever its figures are shown."""

ModelClass = TypeVar("ModelClass", bound=type[BaseModel])

_MODELS: Registry[type[BaseModel]] = Registry("base model", "model.name", "distributed_avel.models")


def register_model(name: str) -> Callable[[ModelClass], ModelClass]:
    """Class decorator that makes a base model known under `name`."""

    def register(model: ModelClass) -> ModelClass:
        if (model.task == "parsing") != issubclass(model, ParsingModel):
            raise TypeError(f"{model.__name__}: a model for parsing is a subclass of ParsingModel")
        _MODELS.register(name, model)
        return model

    return register


def model_names() -> list[str]:
    """Names of all base models, in alphabetical order."""
    return _MODELS.names()


def model_class(name: str) -> type[BaseModel]:
    """The base model of that name, or an error that lists the ones there are."""
    return _MODELS[name]


def is_verified(name: str) -> bool:
    """Whether the base model of that name is held to its authors' code; else it is `UNVERIFIED`."""
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
    """A base model with fresh weights, drawn from torch's global generator.

    Args:
        num_classes: C, the event classes; `score` has one column more, for background
            (not for parsing).
        regions: R, the regions of the visual features of a segment (7 x 7 makes 49).
        hidden_size: The width that all other widths follow; 128 gives the published model.
        options: What only this model knows; see its constructor.
    """
    return model_class(name)(
        num_classes=num_classes,
        visual_dim=visual_dim,
        audio_dim=audio_dim,
        regions=regions,
        hidden_size=hidden_size,
        **options,
    )
