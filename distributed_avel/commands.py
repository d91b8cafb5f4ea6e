"""The commands of `avel`, one function each; the files in `jobs/` call the same functions.

A command imports what it runs when its configuration is accepted: `--help` and a refused option
load neither torch nor Ray nor MLflow.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from distributed_avel import __version__
from distributed_avel.cli import USER_ERROR, run_job
from distributed_avel.config import ReproduceConfig, RunConfig, TuneConfig

Command = Callable[[Sequence[str]], int]
"""Takes the arguments of the command line, and returns the exit status."""


def pipeline(argv: Sequence[str]) -> int:
    """The whole pipeline: videos to features, base model, refined labels, retrained model, report.

        avel run                                                  the embedded demo (synthetic)
        avel run --config configs/ave.yaml --data.root DIR

    What exists already in the run directory is reused; interrupted, the same command goes on.
    """

    def job(config: RunConfig) -> None:
        from distributed_avel.run import run_pipeline

        run_pipeline(config)

    return run_job(job, argv, pipeline.__doc__)


def extract(argv: Sequence[str]) -> int:
    """Features: decode the videos and extract aligned audio and visual features.

        avel extract --config configs/ave.yaml --data.root DIR

    Writes RUN_DIR/data and RUN_DIR/extract; what could not be used is in failures.parquet.
    """

    def job(config: RunConfig) -> None:
        from distributed_avel.run import run_extract

        run_extract(config)

    return run_job(job, argv, extract.__doc__)


def train_base(argv: Sequence[str]) -> int:
    """Step 1: train the base models on video-level labels.

        avel train-base --config configs/ave.yaml --data.root DIR

    Reads the features; writes weights and learning curves under RUN_DIR/base, with or without the
    auxiliary loss, as the arms need it.
    """

    def job(config: RunConfig) -> None:
        from distributed_avel.run import run_base

        run_base(config)

    return run_job(job, argv, train_base.__doc__)


def refine(argv: Sequence[str]) -> int:
    """Step 2: score windows of the training videos with the base model of Step 1.

        avel refine --config configs/ave.yaml --data.root DIR

    Reads the base model and the features; writes window probabilities and the choice of tau under
    RUN_DIR/refine.
    """

    def job(config: RunConfig) -> None:
        from distributed_avel.run import run_refine

        run_refine(config)

    return run_job(job, argv, refine.__doc__)


def retrain(argv: Sequence[str]) -> int:
    """Step 3: train from scratch on the refined pseudo-labels.

        avel retrain --config configs/ave.yaml --data.root DIR

    Reads the window probabilities and the features; writes weights and learning curves under
    RUN_DIR/retrain.
    """

    def job(config: RunConfig) -> None:
        from distributed_avel.run import run_retrain

        run_retrain(config)

    return run_job(job, argv, retrain.__doc__)


def evaluate(argv: Sequence[str]) -> int:
    """Evaluation: all arms on the test split, and the report page.

        avel evaluate --config configs/ave.yaml --data.root DIR

    Writes RUN_DIR/results.json, predictions.parquet and report.html.
    """

    def job(config: RunConfig) -> None:
        from distributed_avel.run import run_evaluate

        run_evaluate(config)

    return run_job(job, argv, evaluate.__doc__)


def tune(argv: Sequence[str]) -> int:
    r"""A sweep: the best tau, window and stride for a data set, and other settings on request.

        avel tune                                              the embedded demo (synthetic)
        avel tune --config configs/sweep.yaml                  generated features (synthetic)
        avel tune --config configs/ave.yaml --data.root DIR --sweep.search optuna \
            --sweep.vary train.learning_rate=0.0003..0.003

    Stages that trials share are computed once. Interrupted, the same command goes on. The choice
    is made on the validation split; RUN_DIR/best.yaml holds it, for `avel run --config`.
    """

    def job(config: TuneConfig) -> None:
        from distributed_avel.sweep import run_sweep

        run_sweep(config)

    return run_job(job, argv, tune.__doc__, TuneConfig)


def reproduce(argv: Sequence[str]) -> int:
    """The paper's Tables 1 to 7, mean and spread over seeds, each figure beside the paper's.

        avel reproduce --config configs/synthetic.yaml --tables 3 --seeds 3
        avel reproduce --config configs/ave_features.yaml --data.root DIR --seeds 5

    Which models, arms, windows and fixed tau are trained follows from the tables: model.name and
    arms have no effect. All other settings are those of the run. What systems share is computed
    once; interrupted, the same command goes on. RUN_DIR/tables holds each table as Markdown and
    CSV, all of them as tables.html and tables.json.
    """

    def job(config: ReproduceConfig) -> None:
        from distributed_avel.reproduce import run_reproduce

        run_reproduce(config)

    return run_job(job, argv, reproduce.__doc__, ReproduceConfig)


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "run": pipeline,
        "extract": extract,
        "train-base": train_base,
        "refine": refine,
        "retrain": retrain,
        "evaluate": evaluate,
        "tune": tune,
        "reproduce": reproduce,
    }
)
"""The commands by their names on the command line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `avel COMMAND [OPTIONS]`, and return the exit status."""
    name, *rest = [*(sys.argv[1:] if argv is None else argv)] or ["--help"]
    if name in ("-h", "--help"):
        print(_overview())  # noqa: T201
        return 0
    if name == "--version":
        print(f"avel {__version__}")  # noqa: T201
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"error: no command {name!r}; there are: {known}", file=sys.stderr)  # noqa: T201
        return USER_ERROR
    return COMMANDS[name](rest)


def _overview() -> str:
    """What `avel --help` prints: a line for each command."""
    lines = [f"  {name:<12}{_summary(command)}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: avel COMMAND [OPTIONS]",
            "",
            "Weakly-supervised audio-visual event localization with temporal label refinement.",
            "",
            *lines,
            "",
            "avel COMMAND --help lists the options of a command; avel --version the version.",
        ]
    )


def _summary(command: Command) -> str:
    return (command.__doc__ or "").splitlines()[0]
