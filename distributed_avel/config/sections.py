"""Sections of the configuration, with defaults and help texts; `runs` combines them."""

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
    """Base of all sections: immutable; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*")
    @classmethod
    def _no_empty_text(cls, value: Any) -> Any:
        """Refuse `""`, which would be confused with "not set" if the default is None."""
        if value == "":
            raise ValueError("is empty; set a value or remove the key")
        return value

    @field_validator("*")
    @classmethod
    def _no_secret(cls, value: Any) -> Any:
        """Refuse a URI that contains a secret, which a run would store in many files."""
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
    """The data set and the segments of its videos."""

    dataset: str = "demo"
    """A registered data set: ave, ave_features, demo, folder, llp, llp_features, synthetic,
    synthetic_easy, synthetic_llp, or one of a plug-in."""

    root: str | None = None
    """Folder or URI of the data set's files. The demo is rendered into it (default: a folder of
    the run directory)."""

    split: str | None = None
    """Folder or URI with train.txt, val.txt and test.txt, one video id per line; replaces the
    split of the data set. `avel check --write-split` writes one in which splits share no file."""

    features: str | None = None
    """Folder, or file .h5, .npz or .parquet, with your own features of each video, by video id, in
    place of extraction. docs/own_features.md has the layouts."""

    num_segments: PositiveInt = 10
    """T, the number of segments of a video. What a longer file has after them is not used."""

    short_videos: Literal["refuse", "keep"] = "refuse"
    """Files with fewer segments: `refuse` lists them as failed, because in a data set of equal
    lengths they are damaged; `keep` trains and evaluates on the segments that they have."""

    segment_s: PositiveFloat = 1.0
    """Length of a segment, in seconds."""

    demo: DemoConfig = DemoConfig()
    synthetic: SyntheticConfig = SyntheticConfig()
    synthetic_llp: SyntheticLlpConfig = SyntheticLlpConfig()


class ExtractConfig(Config):
    """Feature extraction: decoding, and the pool of feature actors."""

    extractor: str = "descriptors"
    """A registered extractor: descriptors, resnet152+r2plus1d_18+vggish, vgg19+vggish, or one of a
    plug-in."""

    options: dict[str, Any] = {}
    """Options of this extractor alone, as in --extract.options.NAME VALUE. Those of this package
    have none; a plug-in's extractor may have."""

    num_actors: PositiveInt = 2
    """Number of feature actors."""

    cpus_per_actor: PositiveInt = 1
    """CPUs, and decoding processes, of each actor."""

    gpus_per_actor: NonNegativeFloat = 0.0
    """GPUs of each actor; with a fraction, actors share a GPU."""

    unit_size: PositiveInt = 8
    """Videos per task and per Parquet file. An actor holds two tasks in memory, one decoding and
    one embedding; both are repeated if it is killed."""

    timeout_s: PositiveFloat = 60.0
    """Time limit for decoding one file, in seconds; a slower file counts as failed."""

    frames_per_segment: PositiveInt | None = None
    """Frames sampled per segment, whose features are averaged. Default: as in the published
    features, 16 for AVE and 8 for LLP."""

    sampling: Sampling = "time"
    """Sampling rule: `time` takes the frames on display at equal distances in time; `published`
    samples by frame count, as AVE's published features did, and drifts from the sound if the frame
    rate is not an integer."""

    reader: ReaderName = "auto"
    """Video decoder: `pyav`; `decord`, which refuses files for which it may return other frames;
    or `auto`, which uses decord where it returns the same frames as PyAV, and PyAV otherwise."""

    weights: dict[str, str] = {}
    """Weights of each network: a path, a URI, the name of published weights, or `random` (features
    without meaning, for tests). Default: the published weights, downloaded once."""

    weights_dir: str | None = None
    """Folder for downloaded weights (default: distributed_avel/weights in XDG_CACHE_HOME or
    ~/.cache)."""

    preprocessing: Preprocessing = "keras_caffe"
    """Preprocessing of VGG-19 and the published weights for it: `keras_caffe`, as in AVE's
    published features (BGR, 0..255, mean subtracted), or `torchvision` (RGB, 0..1, normalized)."""

    precision: Precision = "fp32"
    """Precision of the networks. bf16 and fp16 are faster on a GPU, and less exact."""

    frames_per_batch: PositiveInt = 64
    """Frames per forward pass, of one or several videos; limited by GPU memory."""

    max_failed_fraction: float = Field(default=0.1, ge=0.0, le=1.0)
    """Maximum fraction of videos that may fail; the stage fails if more do."""


class ModelConfig(Config):
    """The base model, shared by Step 1 and Step 3."""

    name: str = "ave"
    """A registered base model: ave, avfb, avin, avsdn, avt, cman, cmran, han, psp, or one of a
    plug-in."""

    hidden_size: PositiveInt = 32
    """Width of each direction of the recurrent layers."""

    weights: str | None = None
    """File of weights that Step 1 starts with: of a run (safetensors, or its model folder) or of
    the model's authors. --train.base-epochs 0 evaluates them. Step 3 starts from scratch."""

    pooling: Literal["model", "max", "mean", "lse"] = "model"
    """MIL pooling of segment-level logits into video-level logits; `model` uses that of the
    model."""

    options: dict[str, Any] = {}
    """Options of this base model alone, as in --model.options.threshold 0.1. There are: ave:
    attention_size, head_size; avfb: attention_size; avin: attention_size; avsdn: attention_size;
    cmran: attention_size, feedforward_size; han: motion_dim; psp: attention_size, head_size,
    threshold; and those of plug-ins."""


class TrainConfig(Config):
    """Training in Steps 1 and 3."""

    num_workers: PositiveInt = 1
    """Number of DDP workers; it affects the rounding of gradients and the dropout masks."""

    cpus_per_worker: PositiveInt = 2
    """CPUs and torch threads of each worker; the number affects the rounding of sums."""

    use_gpu: bool = False
    """Use one GPU per worker."""

    batch_size: PositiveInt = 32
    """Videos in a global batch, over all workers."""

    learning_rate: PositiveFloat = 2e-3
    """Learning rate of Adam."""

    lr_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Factor of the learning rate after every lr_decay_epochs epochs; 1 disables the decay."""

    lr_decay_epochs: PositiveInt = 10
    """Epochs between two decays of the learning rate."""

    base_epochs: NonNegativeInt = 50
    """Epochs of Step 1; 0 only with model.weights."""

    retrain_epochs: PositiveInt = 50
    """Epochs of Step 3."""

    loss: Literal["soft_margin", "cross_entropy"] = "cross_entropy"
    """g, the video-level loss of localization. The paper uses soft_margin on the softmax output.
    Parsing always uses binary cross-entropy."""

    visual_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Parsing: label smoothing of visual video-level targets, y -> (1 - v) y + v / 2, because weak
    labels include events that are only audible. HAN's code gives 1 - v = 0.9."""

    keep: Literal["last", "best"] = "last"
    """Weights to keep: of the last epoch, or of the best validated epoch (by accuracy for
    localization, segment Type@AV for parsing; ties go to the later epoch)."""

    report_every: PositiveInt = 10
    """Epochs between checkpoints, and between validations."""


class RefineConfig(Config):
    """Step 2: pseudo-labels of windows of the training videos."""

    window: PositiveInt = 4
    """N, the length of a window, in segments."""

    stride: PositiveInt = 2
    """s, the distance between the starts of consecutive windows, in segments."""

    threshold: (
        Annotated[float, Field(gt=0.0, lt=1.0)] | Literal["validation", "screened", "spliced"]
    ) = "validation"
    """tau: a class is present in a window if its probability is at least tau. A number;
    `validation`, which removes the share of window labels that is wrong on the validation split;
    `screened`, the paper's rule, which trains Step 3 with several candidates and keeps the best on
    the validation split; or `spliced`, which needs no times: it separates training windows from
    windows of videos of which one modality is replaced. `validation` is `spliced` if no validation
    video has times."""

    num_candidates: PositiveInt = 5
    """Candidates of `screened`, evenly spaced on the logit scale."""

    screen_keep: float = Field(default=0.5, ge=0.0, le=1.0)
    """Range of the candidates of `screened`: thresholds whose Youden index (sensitivity +
    specificity - 1) on validation windows is at least this fraction of the best; 0 allows all."""

    partners: Literal["event_free", "disjoint"] = "event_free"
    """Partner videos: `event_free`, videos without an event if there are any; or `disjoint`, any
    video that shares no label."""

    num_partners: PositiveInt = 1
    """K, partner videos per video; window probabilities are averaged over them."""

    labels: Literal["hard", "soft"] = "hard"
    """Pseudo-labels of Step 3: thresholded at tau, or the window probabilities."""

    num_actors: PositiveInt = 2
    """Number of actors that hold the base model."""

    gpus_per_actor: NonNegativeFloat = 0.0
    """GPUs of each actor; with a fraction, actors share a GPU."""

    unit_size: PositiveInt = 64
    """Videos per task; a task is repeated if its actor is killed."""

    @property
    def is_screened(self) -> bool:
        """Return True if tau is selected by training Step 3 with several candidates."""
        return self.threshold == "screened" and self.labels == "hard"


class ReportConfig(Config):
    """The report page."""

    num_timelines: PositiveInt = 12
    """Number of test videos shown with frames and pictures of the sound."""


class TrackingConfig(Config):
    """Tracking with MLflow."""

    enabled: bool = True
    """Log runs."""

    uri: Annotated[str, AfterValidator(SecretUri)] | None = None
    """Tracking store (default: MLFLOW_TRACKING_URI, or the SQLite file runs/mlflow.db). A password
    in it is shown and stored as ***."""

    experiment: str = "distributed_avel"
    """Name of the experiment."""


class ClusterConfig(Config):
    """The Ray cluster."""

    address: str | None = None
    """Address of a running cluster (default: RAY_ADDRESS, or a new local cluster)."""

    num_cpus: PositiveInt | None = None
    """Logical CPUs of a local cluster (default: number of cores, at least 4)."""
