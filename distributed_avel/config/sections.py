"""The sections of a run's configuration, with their defaults; `runs` puts them together."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from distributed_avel.redaction import SecretUri, secret_problem

Precision = Literal["fp32", "bf16", "fp16"]
Preprocessing = Literal["keras_caffe", "torchvision"]
Sampling = Literal["time", "published"]
ReaderName = Literal["auto", "decord", "pyav"]


class Config(BaseModel):
    """Base of all configuration: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*")
    @classmethod
    def _no_empty_text(cls, value: Any) -> Any:
        """Refuse `""`, which would count as "not given" where the default is none."""
        if value == "":
            raise ValueError("is empty; give a value or leave it out")
        return value

    @field_validator("*")
    @classmethod
    def _no_secret(cls, value: Any) -> Any:
        """Refuse a URI with a secret in it, which a run would store in many places."""
        if isinstance(value, dict):
            texts = [*value.values()]
        else:
            texts = value if isinstance(value, tuple) else (value,)
        for text in texts:
            if isinstance(text, str) and (problem := secret_problem(text)):
                raise ValueError(problem)
        return value


class DemoConfig(Config):
    """The rendered demo videos (synthetic)."""

    num_train: PositiveInt = 200
    """Training videos with an event."""

    num_event_free: PositiveInt = 30
    """Training videos without an event."""

    num_val: PositiveInt = 50
    """Validation videos."""

    num_test: PositiveInt = 80
    """Test videos."""

    seed: NonNegativeInt = 0
    """Seed of the generator; the run's own seed does not change the videos."""


class SyntheticConfig(Config):
    """The generated features (synthetic)."""

    num_train: PositiveInt = 800
    """Training videos with an event."""

    num_event_free: PositiveInt = 40
    """Training videos without an event."""

    num_val: PositiveInt = 150
    """Validation videos."""

    num_test: PositiveInt = 300
    """Test videos."""

    seed: NonNegativeInt = 0
    """Seed of the generator; the run's own seed does not change the features."""


class SyntheticLlpConfig(SyntheticConfig):
    """The generated features for parsing (synthetic)."""

    num_event_free: NonNegativeInt = 0
    """Training videos without an event; LLP has none."""


class DataConfig(Config):
    """Which videos, and how they are cut into segments."""

    dataset: str = "demo"
    """A registered data set: ave, ave_features, demo, folder, llp, llp_features, synthetic,
    synthetic_easy, synthetic_llp, or one of a plug-in."""

    root: str | None = None
    """Folder or URI in the layout of the data set. The demo is rendered into it
    (default: a folder of the run directory)."""

    split: str | None = None
    """Folder or URI with train.txt, val.txt and test.txt, a video id a line, in place of the
    data set's own split. `avel check` writes one in which no file is shared."""

    num_segments: PositiveInt = 10
    """T, the number of segments of a video."""

    segment_s: PositiveFloat = 1.0
    """Length of a segment, in seconds."""

    demo: DemoConfig = DemoConfig()
    synthetic: SyntheticConfig = SyntheticConfig()
    synthetic_llp: SyntheticLlpConfig = SyntheticLlpConfig()


class ExtractConfig(Config):
    """Features: decoding, and the pool of feature actors."""

    extractor: str = "descriptors"
    """A registered extractor: descriptors, resnet152+r2plus1d_18+vggish, vgg19+vggish, or one of a
    plug-in."""

    num_actors: PositiveInt = 2
    """Feature actors in the pool."""

    cpus_per_actor: PositiveInt = 1
    """Decoding processes of each actor, and the CPUs it claims."""

    gpus_per_actor: NonNegativeFloat = 0.0
    """GPUs of each actor; a fraction shares one."""

    unit_size: PositiveInt = 8
    """Videos in a unit of work, and in a Parquet file. An actor has two units in hand, one
    decoded while the other is embedded: what a kill can cost, and what memory must hold."""

    timeout_s: PositiveFloat = 60.0
    """A file that takes longer to decode is given up."""

    frames_per_segment: PositiveInt | None = None
    """Frames sampled in a segment; their features are averaged. By default the number of the
    published features: 16, and 8 for the networks of LLP."""

    sampling: Sampling = "time"
    """Which frames are sampled: `time`, those on display at equal distances in time; or
    `published`, those that AVE's features were made of, by frame count, which drifts from the
    sound wherever the frame rate is not a whole number."""

    reader: ReaderName = "auto"
    """What decodes pictures: `pyav`; `decord`, which refuses files of which it may give other
    frames; or `auto`, decord where it gives the same frames and PyAV everywhere else."""

    weights: dict[str, str] = {}
    """Weights of a network, by its name: a path, a URI, the name of published weights, or
    `random` to try the machinery with features that mean nothing. By default the published
    ones, fetched once."""

    weights_dir: str | None = None
    """Folder for fetched weights (default: distributed_avel/weights in the cache folder of
    the user, XDG_CACHE_HOME or ~/.cache)."""

    preprocessing: Preprocessing = "keras_caffe"
    """Pictures for VGG-19, and which published weights go with them: `keras_caffe`, as AVE's
    published features (BGR, 0..255, mean subtracted), or `torchvision` (RGB, 0..1, scaled)."""

    precision: Precision = "fp32"
    """Arithmetic of the networks. bf16 and fp16 are faster on a GPU, and not exact."""

    frames_per_batch: PositiveInt = 64
    """Pictures that a network takes at once, of one video or several; what GPU memory allows."""

    max_failed_fraction: float = Field(default=0.1, ge=0.0, le=1.0)
    """The stage fails when a larger part of the videos could not be used."""


class ModelConfig(Config):
    """The base model, shared by Step 1 and Step 3."""

    name: str = "ave"
    """A registered base model: ave, avfb, avin, avsdn, avt, cman, cmran, han, psp, or one of a
    plug-in."""

    hidden_size: PositiveInt = 32
    """Width of each direction of the recurrent layers."""

    pooling: Literal["model", "max", "mean", "lse"] = "model"
    """MIL pooling from segment-level to video-level scores; by default the model's own."""


class TrainConfig(Config):
    """Steps 1 and 3."""

    num_workers: PositiveInt = 1
    """DDP workers. Their sums are rounded differently, and each draws what it drops."""

    cpus_per_worker: PositiveInt = 2
    """CPUs that each worker claims, and its torch threads, which sums are split by."""

    use_gpu: bool = False
    """One GPU for each worker."""

    batch_size: PositiveInt = 32
    """Videos in a global batch, over all workers."""

    learning_rate: PositiveFloat = 2e-3
    """Learning rate of Adam."""

    lr_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Factor on the learning rate after every lr_decay_epochs; 1 leaves it as it is."""

    lr_decay_epochs: PositiveInt = 10
    """Epochs between two changes of the learning rate."""

    base_epochs: PositiveInt = 50
    """Epochs of Step 1."""

    retrain_epochs: PositiveInt = 50
    """Epochs of Step 3."""

    loss: Literal["soft_margin", "cross_entropy"] = "cross_entropy"
    """g, the video-level loss of localization. The paper's is soft_margin, on the softmax
    output. Parsing has its own, a binary cross-entropy."""

    visual_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Parsing: this part of a visual video-level target is replaced by 1/2, as weak labels name
    many events that are only heard. HAN's code calls the rest, 0.9, label smoothing."""

    keep: Literal["last", "best"] = "last"
    """Weights to keep: the last ones, or the best ones by the validation split, of the epochs
    that end with a validation. Accuracy decides for localization, segment Type@AV for parsing."""

    report_every: PositiveInt = 10
    """Epochs between checkpoints and validations: what a kill can cost."""


class RefineConfig(Config):
    """Step 2: how the base model relabels windows of the training videos."""

    window: PositiveInt = 4
    """N, the length of a relabelled window, in segments."""

    stride: PositiveInt = 2
    """s, the distance between the starts of neighbouring windows, in segments."""

    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] | Literal["validation", "screened"] = (
        "validation"
    )
    """tau: a class is present in a window when its probability reaches it. A number; `validation`
    removes the share of labels from the training windows that is wrong in the windows of the
    validation split; `screened` is the paper's rule: several candidates that the validation
    windows allow, then the best Step 3 on the validation split."""

    num_candidates: PositiveInt = 5
    """Values of tau that `screened` trains Step 3 with, evenly spaced on the logit scale."""

    screen_keep: float = Field(default=0.5, ge=0.0, le=1.0)
    """The candidates of `screened` lie where sensitivity + specificity - 1 of the window labels
    reaches this part of its best; 0 allows all."""

    partners: Literal["event_free", "disjoint"] = "event_free"
    """Partner videos: those without any event if there are any, or any that share no label."""

    num_partners: PositiveInt = 1
    """K, the partner videos of a video; the window probabilities are the mean over them."""

    labels: Literal["hard", "soft"] = "hard"
    """Pseudo-labels of Step 3: thresholded at tau, or the window probabilities themselves."""

    num_actors: PositiveInt = 2
    """Actors that hold the base model."""

    gpus_per_actor: NonNegativeFloat = 0.0
    """GPUs of each actor; a fraction shares one."""

    unit_size: PositiveInt = 64
    """Videos in a unit of work: what a kill can cost."""

    @property
    def is_screened(self) -> bool:
        """Whether Step 3 is trained with several values of tau first, to choose one."""
        return self.threshold == "screened" and self.labels == "hard"


class ReportConfig(Config):
    """The report page."""

    num_timelines: PositiveInt = 12
    """Test videos shown with their timelines and frames."""


class TrackingConfig(Config):
    """MLflow."""

    enabled: bool = True
    """Whether to log at all."""

    uri: Annotated[str, AfterValidator(SecretUri)] | None = None
    """Tracking store; else MLFLOW_TRACKING_URI; else a local sqlite file, runs/mlflow.db. A
    password in it is shown and stored as ***."""

    experiment: str = "distributed_avel"
    """Name of the experiment."""


class ClusterConfig(Config):
    """Where Ray runs."""

    address: str | None = None
    """Address of a running cluster; else RAY_ADDRESS; else a local one is started."""

    num_cpus: PositiveInt | None = None
    """Logical CPUs of a local cluster; by default the cores, but at least 4."""
