"""The commands of `avel`, one function each; the files in `jobs/` call the same functions.

A command imports its implementation after the configuration is validated, so that `--help` and
errors of the configuration do not load torch, Ray or MLflow.
"""

import os
import sys
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from inspect import cleandoc
from types import MappingProxyType

from distributed_avel import __version__
from distributed_avel.cli import USER_ERROR, run_job, run_safely
from distributed_avel.config import Config, InspectConfig, ReproduceConfig, RunConfig, TuneConfig
from distributed_avel.errors import ConfigError

Command = Callable[[Sequence[str]], int]
"""Called with the command-line arguments; returns the exit status."""


def pipeline(argv: Sequence[str]) -> int:
    """Run the whole pipeline: features, base model, pseudo-labels, retrained model, report.

        avel run                                                  the built-in demo (synthetic)
        avel run --config ave --data.root DIR

    Finished stages in the run directory are reused. After an interruption, the same command
    continues.
    """

    def job(config: RunConfig) -> None:
        from distributed_avel.run import run_pipeline

        run_pipeline(config)

    return run_job(job, argv, pipeline.__doc__)


def demo(argv: Sequence[str]) -> int:
    """Run the whole pipeline on rendered demo videos (synthetic), without any data.

        avel demo [OPTIONS]

    Writes runs/demo/report.html. Accepts the options of `avel run`. Takes a few minutes on 2 CPU
    cores.
    """

    def job(config: RunConfig) -> None:
        if config.data.dataset != "demo":
            raise ConfigError(
                f"data.dataset: `avel demo` runs the demo; use `avel run` for {config.data.dataset}"
            )
        from distributed_avel.run import run_pipeline

        run_pipeline(config)

    return run_job(job, argv, demo.__doc__)


def doctor(argv: Sequence[str]) -> int:
    """Check packages, devices, plug-ins, storage, MLflow and Ray with the settings of a run.

        avel doctor
        avel doctor --config my.yaml --cluster.address HOST:PORT

    Exit status: 0 if a run can start, 1 if there are problems, 2 if an option is wrong.
    """

    def job(config: RunConfig) -> int:
        from distributed_avel.doctor import doctor as check_installation

        return check_installation(config)

    return run_job(job, argv, doctor.__doc__)


def extract(argv: Sequence[str]) -> int:
    """Decode the videos and extract aligned audio and visual features.

        avel extract --config ave --data.root DIR

    Writes RUN_DIR/data and RUN_DIR/extract; failures.parquet lists the videos that failed.
    """

    def job(config: RunConfig) -> None:
        from distributed_avel.run import run_extract

        run_extract(config)

    return run_job(job, argv, extract.__doc__)


def train_base(argv: Sequence[str]) -> int:
    """Step 1: train the base models on video-level labels.

        avel train-base --config ave --data.root DIR

    Reads the features; writes weights and learning curves to RUN_DIR/base, with and without the
    auxiliary loss as the arms require.
    """

    def job(config: RunConfig) -> None:
        from distributed_avel.run import run_base

        run_base(config)

    return run_job(job, argv, train_base.__doc__)


def refine(argv: Sequence[str]) -> int:
    """Step 2: score windows of the training videos with the base model of Step 1.

        avel refine --config ave --data.root DIR

    Reads the base model and the features; writes window probabilities and the chosen tau to
    RUN_DIR/refine.
    """

    def job(config: RunConfig) -> None:
        from distributed_avel.run import run_refine

        run_refine(config)

    return run_job(job, argv, refine.__doc__)


def retrain(argv: Sequence[str]) -> int:
    """Step 3: train from scratch on the refined pseudo-labels.

        avel retrain --config ave --data.root DIR

    Reads the window probabilities and the features; writes weights and learning curves to
    RUN_DIR/retrain.
    """

    def job(config: RunConfig) -> None:
        from distributed_avel.run import run_retrain

        run_retrain(config)

    return run_job(job, argv, retrain.__doc__)


def evaluate(argv: Sequence[str]) -> int:
    """Evaluate all arms on the test split, and write the report page.

        avel evaluate --config ave --data.root DIR

    Writes RUN_DIR/results.json, predictions.parquet and report.html.
    """

    def job(config: RunConfig) -> None:
        from distributed_avel.run import run_evaluate

        run_evaluate(config)

    return run_job(job, argv, evaluate.__doc__)


def tune(argv: Sequence[str]) -> int:
    r"""Search for the best tau, window and stride of a data set, and other settings on request.

        avel tune                                 the built-in demo (synthetic)
        avel tune --config sweep                  generated features (synthetic)
        avel tune --config ave --data.root DIR --sweep.search optuna \
            --sweep.vary train.learning_rate=0.0003..0.003

    Stages that trials share are computed once. After an interruption, the same command continues.
    The best point is selected on the validation split and written to RUN_DIR/best.yaml, for
    `avel run --config`.
    """

    def job(config: TuneConfig) -> None:
        from distributed_avel.studies.sweep import run_sweep

        run_sweep(config)

    return run_job(job, argv, tune.__doc__, TuneConfig)


def reproduce(argv: Sequence[str]) -> int:
    """Compute the paper's Tables 1 to 7, as mean and SD over seeds next to its figures.

        avel reproduce --config synthetic --tables 3 --seeds 3
        avel reproduce --config ave_features --data.root DIR --seeds 5

    The tables define models, arms, windows and fixed tau; model.name and arms have no effect. All
    other settings are those of the run. Stages that rows share are computed once. After an
    interruption, the same command continues. Writes each table to RUN_DIR/tables as Markdown and
    CSV, and all of them as tables.html and tables.json.
    """

    def job(config: ReproduceConfig) -> None:
        from distributed_avel.studies.tables import run_reproduce

        run_reproduce(config)

    return run_job(job, argv, reproduce.__doc__, ReproduceConfig)


def predict(argv: Sequence[str]) -> int:
    """Find events in new videos with a trained model.

        avel predict runs/demo/model VIDEO.mp4
        avel predict runs/demo/model FOLDER s3://BUCKET/PREFIX --out DIR --format csv vtt
        avel predict runs/demo/model "FOLDER/**/*.mp4" list.csv --out DIR --actors 4

    MODEL is the folder `model` of a finished run. Sources are media files, folders, patterns, and
    CSV or Parquet lists with a column uri, path, video or file. A video may have any length from
    half a segment. Exit status: 0; 1 if some files failed, the others are predicted; 2 if an option
    or the model is wrong, or no source can be used.

        --out DIR                  write the events to this folder
        --format NAME...           csv (default), json, parquet, vtt, srt, audacity, elan,
                                   label-studio, fiftyone
        --processes N              decoding processes (default: one per CPU; 2 per actor)
        --hop SECONDS              resolution of the events: a part of a segment, such as 0.25
        --actors N                 predict with N actors on Ray; finished files are kept in DIR
                                   (default in a job of a cluster: as many as fit)
        --gpu                      run the base model on the GPU
        --weights NETWORK=FILE...  weights of the extractor's networks, if they are elsewhere than
                                   in training; their hashes are checked
        --weights-dir DIR          folder for downloaded weights
        --plugins NAME...          modules that register the model or the extractor
    """
    if {"-h", "--help"} & {*argv}:
        print(cleandoc(predict.__doc__ or ""))  # noqa: T201
        return 0
    options = _predict_options(argv)
    if isinstance(options, str):
        return _wrong_option(options)

    if options.actors is not None or "RAY_ADDRESS" in os.environ:

        def run_on_cluster() -> int:
            from distributed_avel.bulk_prediction import predict_on_cluster

            return predict_on_cluster(options)

        return run_safely(run_on_cluster)

    def run() -> int:
        from distributed_avel.predict.files import predict_files

        return predict_files(options)

    return run_safely(run, "results are written at the end, and the same command starts again")


def _predict_options(argv: Sequence[str]) -> Namespace | str:
    """Return the options of `avel predict`, or what is wrong with them."""
    parser = _predict_parser()
    options = _parsed(parser, argv, "predict")
    if isinstance(options, str):
        return options
    options.model, *options.sources = options.words or [""]
    if not options.sources:
        return "name a model folder and at least one video: avel predict MODEL SOURCE..."
    return options


def _predict_parser() -> ArgumentParser:
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--out")
    parser.add_argument("--format", nargs="+")
    parser.add_argument("--processes")
    parser.add_argument("--actors")
    parser.add_argument("--hop")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--weights", nargs="+", default=[])
    parser.add_argument("--weights-dir")
    parser.add_argument("--plugins", nargs="+", default=[])
    return parser


def export(argv: Sequence[str]) -> int:
    """Export the model of an arm of a finished run to a model folder.

        avel export runs/demo --to DIR
        avel export runs/demo --to DIR --arm A

    RUN is a run directory or a model folder. DIR is a model folder for `avel predict` and
    `load_model`, and needs no other file of the run.

        --to DIR           folder to write; a new one, or a model folder, which is replaced
        --arm ARM          arm of the run, such as A+LR (default: that of RUN/model)
        --seeds RUN...     runs that differ in the seed; the model card has the mean and the
                           standard deviation of the metrics over RUN and these
        --format NAME...   also write the functions encode, score and probabilities of the model as
                           onnx or torch-export, after a comparison with the model
        --plugins NAME...  modules that register the model
    """
    if {"-h", "--help"} & {*argv}:
        print(cleandoc(export.__doc__ or ""))  # noqa: T201
        return 0
    options = _parsed(_export_parser(), argv, "export")
    if isinstance(options, str):
        return _wrong_option(options)
    if options.run is None or options.to is None:
        return _wrong_option("name a run and a folder: avel export RUN --to DIR")

    def run() -> None:
        from distributed_avel.predict.export import ExportOptions
        from distributed_avel.predict.export import export as export_model

        export_model(ExportOptions(**vars(options)))

    return run_safely(run, "the same command starts again")


def _export_parser() -> ArgumentParser:
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--to")
    parser.add_argument("--arm")
    parser.add_argument("--seeds", nargs="+", default=[])
    parser.add_argument("--format", nargs="+", default=[])
    parser.add_argument("--plugins", nargs="+", default=[])
    return parser


def annotate_export(argv: Sequence[str]) -> int:
    r"""Write test videos without times as a Label Studio project, with predicted events.

        avel annotate-export runs/folder --out DIR
        avel annotate-export runs/folder --out DIR --n 50 --random \
            --media "/data/local-files/?d=clips/"

    RUN is a finished run. DIR/tasks.json has the videos of which the model of the run is least
    certain (mean entropy of the segments), and its events as predictions; DIR/config.xml is the
    labelling interface. `avel import-annotations` puts the result into videos.csv.

        --out DIR      folder to write
        --n N          number of videos (default: 20)
        --random       draw the videos at random: metrics of uncertain videos alone are too low
        --media TEXT   text before the id of a video in its address; the id is quoted in a URL
    """
    if {"-h", "--help"} & {*argv}:
        print(cleandoc(annotate_export.__doc__ or ""))  # noqa: T201
        return 0
    options = _parsed(_annotate_parser(), argv, "annotate-export")
    if isinstance(options, str):
        return _wrong_option(options)
    if options.run is None or options.out is None:
        return _wrong_option("name a run and a folder: avel annotate-export RUN --out DIR")
    if not options.n.isdecimal() or not int(options.n):
        return _wrong_option(f"--n: expected a positive number, got {options.n!r}")
    options.n = int(options.n)

    def run() -> None:
        from distributed_avel import annotate

        annotate.annotate_export(annotate.ExportOptions(**vars(options)))

    return run_safely(run, "the same command starts again")


def _annotate_parser() -> ArgumentParser:
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--out")
    parser.add_argument("--n", default="20")
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--media", default="")
    return parser


def import_annotations(argv: Sequence[str]) -> int:
    """Put times from annotation tools into the table of your videos.

        avel import-annotations project.json --to DIR
        avel import-annotations labels/*.txt --to DIR

    DIR is the folder of a data set `folder`, with videos.csv. Files: an export of Label Studio
    (.json), ELAN (.eaf), label tracks of Audacity (.txt, named as the video), or a table (.csv)
    with the columns uri, label, start and end, in seconds or [hh:]mm:ss. Times of annotated videos
    are replaced, all others are kept; the previous table becomes videos.csv.bak.

        --to DIR    folder with videos.csv
    """
    if {"-h", "--help"} & {*argv}:
        print(cleandoc(import_annotations.__doc__ or ""))  # noqa: T201
        return 0
    options = _parsed(_import_parser(), argv, "import-annotations")
    if isinstance(options, str):
        return _wrong_option(options)
    if not options.files or options.to is None:
        return _wrong_option("name files and a folder: avel import-annotations FILE... --to DIR")

    def run() -> None:
        from distributed_avel import annotate

        annotate.import_annotations(annotate.ImportOptions(options.files, options.to))

    return run_safely(run, "the same command starts again")


def _import_parser() -> ArgumentParser:
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--to")
    return parser


def _parsed(parser: ArgumentParser, argv: Sequence[str], name: str) -> Namespace | str:
    """Return the options of a command that has no settings, or what is wrong with them."""
    try:
        options, unknown = parser.parse_known_intermixed_args(argv)  # words also after options
    except ArgumentError as error:
        return str(error)
    if unknown:
        return f"no option {unknown[0]}; `avel {name} --help` lists them"
    return options


def _wrong_option(problem: str) -> int:
    print(f"error: {problem}", file=sys.stderr)  # noqa: T201
    return USER_ERROR


def inspect(argv: Sequence[str]) -> int:
    """Show the input of the extractor for one media file: frames and audio with their times.

        avel inspect FILE [--out DIR] [--json] [--data.num-segments T]

    Prints the reader, unusual properties of the file, and the presentation times of the sampled
    frames and of the audio of each segment. The exit status is 2 if the file is refused.

        --out DIR    write sheet.png, a contact sheet with one frame per segment above its
                     log-mel, and samples.npz, exactly the input of the extractor: frames_TSHW3
                     (uint8), frame_times_TS (s), waveform_TN (float32, mono), sample_rate_hz
        --json       print JSON instead of text
    """
    parser = _inspect_parser()
    asks_for_help = bool({"-h", "--help"} & {*argv})
    if not asks_for_help and (not argv or argv[0].startswith("-")):
        print("error: the file comes first: avel inspect FILE [OPTIONS]", file=sys.stderr)  # noqa: T201
        return USER_ERROR
    options, settings = parser.parse_known_args(argv if asks_for_help else argv[1:])
    options.file = argv[0]

    def job(config: InspectConfig) -> None:
        from distributed_avel.checks import show_media

        show_media(options, config)

    return run_job(job, settings, inspect.__doc__, InspectConfig)


def check(argv: Sequence[str]) -> int:
    """Check a data set before training.

        avel check --config ave --data.root DIR

    Finds missing, empty and duplicate files, media files that extraction will refuse or truncate,
    files in two splits, class names that differ only in spelling, wrong separators, events of zero
    length or outside the video, labels without ground truth, and classes without training videos.
    Prints the counts of each split, then the findings by kind: their number, the consequence, the
    remedy, and the first five with file and line.

    Exit status: 0 without findings; 1 with findings ("unusable" means that the pipeline refuses
    the data set); 2 if an option or the configuration is wrong.

        --json               print the whole report as JSON, with all findings
        --no-files           check only the labels, not the files of the videos
        --write-split DIR    write a split in which no two parts share a file: videos that share a
                             file with test are removed from val and train, and videos that share
                             one with val from train. Use it with --data.split DIR. The data set
                             is not changed.
    """
    options, settings = _check_parser().parse_known_args(argv)

    def job(config: RunConfig) -> int:
        from distributed_avel.checks import check_data

        return check_data(options, config)

    return run_job(job, settings, check.__doc__)


def completion(argv: Sequence[str]) -> int:
    """Print a completion script for a shell.

        avel completion SHELL      SHELL is bash, fish, tcsh or zsh

    Load it in the start-up file of the shell, for example in ~/.bashrc:

        eval "$(avel completion bash)"
    """
    from distributed_avel.completion import SHELLS, CommandOptions, completion_script

    if {"-h", "--help"} & {*argv}:
        print(cleandoc(completion.__doc__ or ""))  # noqa: T201
        return 0
    if len(argv) != 1 or argv[0] not in SHELLS:
        shells = ", ".join(SHELLS)
        print(f"error: name a shell: avel completion SHELL, one of {shells}", file=sys.stderr)  # noqa: T201
        return USER_ERROR
    own = {
        "predict": _predict_parser,
        "export": _export_parser,
        "annotate-export": _annotate_parser,
        "import-annotations": _import_parser,
        "inspect": _inspect_parser,
        "check": _check_parser,
    }
    commands = {
        name: CommandOptions(
            _summary(command),
            own.get(name, _own_options)(),
            _SETTINGS.get(name, RunConfig),
        )
        for name, command in COMMANDS.items()
    }
    print(completion_script(argv[0], commands))  # noqa: T201
    return 0


def _inspect_parser() -> ArgumentParser:
    parser = _own_options()
    parser.add_argument("--out", metavar="DIR")
    parser.add_argument("--json", action="store_true")
    return parser


def _check_parser() -> ArgumentParser:
    parser = _own_options()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--no-files", action="store_true")
    parser.add_argument("--write-split", metavar="DIR")
    return parser


def _own_options() -> ArgumentParser:
    """Return a parser for the options of one command; all others are settings."""
    return ArgumentParser(add_help=False, allow_abbrev=False)


_SETTINGS: Mapping[str, type[Config] | None] = MappingProxyType(
    {
        "tune": TuneConfig,
        "reproduce": ReproduceConfig,
        "inspect": InspectConfig,
        "predict": None,
        "export": None,
        "annotate-export": None,
        "import-annotations": None,
        "completion": None,
    }
)
"""Class of the settings of each command; of commands that are missing here, `RunConfig`."""

COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "demo": demo,
        "run": pipeline,
        "predict": predict,
        "export": export,
        "inspect": inspect,
        "check": check,
        "annotate-export": annotate_export,
        "import-annotations": import_annotations,
        "extract": extract,
        "train-base": train_base,
        "refine": refine,
        "retrain": retrain,
        "evaluate": evaluate,
        "tune": tune,
        "reproduce": reproduce,
        "doctor": doctor,
        "completion": completion,
    }
)
"""Commands by name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `avel COMMAND [OPTIONS]` and return the exit status."""
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
    """Return the output of `avel --help`: one line per command."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{_summary(command)}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: avel COMMAND [OPTIONS]",
            "",
            "Weakly-supervised audio-visual event localization with temporal label refinement.",
            "",
            *lines,
            "",
            "`avel COMMAND --help` lists the options of a command, `avel --version` the version.",
        ]
    )


def _summary(command: Command) -> str:
    return (command.__doc__ or "").splitlines()[0]
