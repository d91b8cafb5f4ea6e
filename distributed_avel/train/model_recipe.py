"""A picklable description of a base model, from which each process makes its own."""

from dataclasses import dataclass, field, replace

from distributed_avel.config import ModelConfig
from distributed_avel.models import BaseModel, model_class, model_options
from distributed_avel.storage import Location
from distributed_avel.train.checkpoint import load_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRecipe:
    """Picklable factory of a base model, with or without trained weights.

    It holds the class, so workers need not import the package that registered it by name.
    """

    config: ModelConfig
    num_classes: int
    audio_shape: tuple[int, ...]
    visual_shape: tuple[int, ...]
    weights: Location | None = None
    model: type[BaseModel] = field(init=False)
    options: BaseModel.Config = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", model_class(self.config.name))
        object.__setattr__(self, "options", model_options(self.config.name, self.config.options))

    def __call__(self) -> BaseModel:
        """A new model."""
        model = self.model(
            num_classes=self.num_classes,
            audio_dim=self.audio_shape[-1],
            regions=self.visual_shape[-2],
            visual_dim=self.visual_shape[-1],
            hidden_size=self.config.hidden_size,
            **dict(self.options),
        )
        if self.weights is not None:
            load_weights(model, self.weights.read_bytes(), str(self.weights))
        return model

    def trained(self, weights: Location) -> "ModelRecipe":
        """The same model with these weights."""
        return replace(self, weights=weights)
