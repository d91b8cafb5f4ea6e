"""Results of a sweep: store and log each trial as it ends; write the report at the end."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import yaml

from distributed_avel.arms import ARMS
from distributed_avel.artifacts import read_sealed, sealed
from distributed_avel.cluster.progress import say
from distributed_avel.cluster.tracking import Tracker
from distributed_avel.cluster.trials import (
    CRITERION,
    FINISHED,
    STAGE_USES,
    VALIDATION_METRICS,
    Outcome,
)
from distributed_avel.config import RunConfig, TuneConfig
from distributed_avel.datasets import VideoSet
from distributed_avel.errors import ArtifactError, AvelError
from distributed_avel.models import UNVERIFIED, is_verified
from distributed_avel.search.selection import (
    Candidate,
    StageUse,
    Trial,
    choose,
    count_stages,
    criterion,
    rank,
)
from distributed_avel.search.space import Point, Windows, describe, with_values
from distributed_avel.stages.training import CURVES_FILE
from distributed_avel.storage import Location
from distributed_avel.studies.sweep.page import SweepReport, render_sweep, sweep_figures
from distributed_avel.tasks import task_class, task_of

BEST = "best.yaml"
TRIALS = "sweep.json"
PAGE = "sweep.html"
_TRIALS = "trials"
SEED = "seed"
"""Key of a point for a seed other than that of the run."""


@dataclass
class TrialStore:
    """Outcomes of the trials of a sweep.

    Args:
        config: Configuration of the sweep.
        tracker: MLflow run of the sweep.
        run_dir: Run directory with the artifacts of the trials.
        folder: Folder of the sweep's own files.
        trials: Trials that ended, by key.
    """

    config: TuneConfig
    tracker: Tracker
    run_dir: Location
    folder: Location
    trials: dict[str, Trial] = field(default_factory=dict)

    def key(self, point: Point) -> str:
        """Return the key of a trial: a hash of its point and seed."""
        items = sorted({SEED: self.config.seed, **point}.items())
        return hashlib.sha256(repr([items]).encode()).hexdigest()[:12]

    def add(self, outcome: Outcome) -> str:
        """Add the outcome of a trial, log it to MLflow once, and return its key."""
        point = {key: value for key, value in outcome.point.items() if key != SEED}
        seed = outcome.point.get(SEED, self.config.seed)
        key, report = self.key(outcome.point), outcome.report
        if report is None or not report[FINISHED]:
            trial = Trial(point=point, seed=seed, error=outcome.error)
        else:
            stages = tuple(StageUse(*use) for use in report[STAGE_USES])
            trial = Trial(point=point, seed=seed, metrics=report[VALIDATION_METRICS], stages=stages)
        if self.trials.get(key) != trial:
            self.trials[key] = trial
            self._log(key, trial)
        return key

    def save(self, outcome: Outcome) -> None:
        """Write an outcome without an error to the sweep's folder, for a rerun of the sweep."""
        file = self.folder / _TRIALS / f"{self.key(outcome.point)}.json"
        file.write_json(sealed({"point": outcome.point, "report": outcome.report}))

    def saved(self) -> list[Outcome]:
        """Read the outcomes of earlier runs; warn about damaged files."""
        outcomes = []
        for file in (self.folder / _TRIALS).children():
            try:
                trial = read_sealed(file)
                outcomes.append(Outcome(point=trial["point"], report=trial["report"], error=None))
            except (ArtifactError, KeyError):
                say(f"WARNING: {file} is damaged; the trial is run again")
        return outcomes

    def _log(self, key: str, trial: Trial) -> None:
        run, is_logged = self.tracker.trial(key, describe({**trial.point, SEED: trial.seed}))
        if is_logged:
            return
        run.params({**trial.point, SEED: trial.seed})
        if trial.metrics is None:
            run.tags({"outcome": trial.error or "stopped early"})
        else:
            value = criterion(trial.metrics, self.config.sweep.criterion)
            run.metrics({**trial.metrics, CRITERION: value})
            retrained = self.run_dir / "retrain" / trial.stages[-1].fingerprint
            run.curves((retrained / CURVES_FILE).read_table())
        run.ended(failed=trial.error is not None)

    def ranked(self) -> list[Candidate]:
        """Return the points, sorted by mean criterion, the best first."""
        return rank(self.trials.values(), self.config.sweep.criterion)

    def best_so_far(self) -> str:
        """Describe the best point so far, for progress messages."""
        best = self.ranked()
        return f"best {best[0].mean:.2f} at {describe(best[0].point)}" if best else ""

    def choose(self) -> Candidate:
        """Choose the point with the best mean criterion over its seeds.

        Raises:
            AvelError: The criterion is defined for no finished trial; the message has the reasons.
        """
        sweep = self.config.sweep
        candidates = choose(list(self.trials.values()), sweep.criterion, sweep.num_seeds)
        if not candidates:
            errors = sorted({trial.error for trial in self.trials.values() if trial.error})
            if not errors:
                names = " and ".join(sweep.criterion)
                errors = [
                    f"{names} is undefined on the validation split for every trial; choose another "
                    "sweep.criterion, or annotate validation videos with and without events"
                ]
            raise AvelError("no trial of the sweep can be chosen:\n  " + "\n  ".join(errors))
        return candidates[0]

    def chosen_config(self, chosen: Candidate) -> RunConfig:
        """Return the configuration of a run with the chosen point and the arm of the sweep."""
        arm, other = ("A+LR", "LR") if self.config.sweep.auxiliary else ("LR", "A+LR")
        others = (a for a in self.config.arms if a != other and not ARMS[a].needs_modalities)
        arms = tuple(dict.fromkeys([*others, arm]))
        return with_values(self.config.run, {**chosen.point, "arms": arms})

    def write(self, chosen: Candidate, videos: VideoSet, windows: tuple[Windows, ...]) -> None:
        """Write the chosen configuration, all trials, the page and its figures, also to MLflow."""
        header = (
            f"# Chosen by a sweep over {len(self.trials)} trials on the validation split of "
            f"{videos.name}.\n# avel run --config {BEST}\n"
        )
        values = self.chosen_config(chosen).model_dump(mode="json")
        text = header + yaml.safe_dump(values, sort_keys=False)
        report = self._report(chosen, videos, windows)
        for folder in (self.folder, self.run_dir):
            (folder / BEST).write_bytes(text.encode())
            (folder / TRIALS).write_json(report.to_json())
            (folder / PAGE).write_bytes(render_sweep(report).encode())
        for name in (BEST, TRIALS, PAGE):
            self.tracker.parent.file(self.folder / name)
        for name, figure in sweep_figures(report).items():
            file = self.folder / "figures" / f"{name}.svg"
            file.write_bytes(figure.encode())
            self.tracker.parent.file(file, "figures")
        self.tracker.parent.metrics({f"best/{CRITERION}": chosen.mean})
        self.tracker.trial(self.key(chosen.point), describe(chosen.point))[0].tags({"best": "true"})

    def _report(
        self, chosen: Candidate, videos: VideoSet, windows: tuple[Windows, ...]
    ) -> SweepReport:
        trials = sorted(self.trials.values(), key=lambda t: (describe(t.point), t.seed))
        task = task_class(self.config.model.name)
        return SweepReport(
            dataset=videos.name,
            synthetic=videos.synthetic,
            windows=windows,
            trials=tuple(trials),
            metrics=task.metrics,
            trade_off=task.criterion,
            criterion=self.config.sweep.criterion,
            seed=self.config.seed,
            chosen=chosen,
            finalists=tuple(c for c in self.ranked() if len(c.values) > 1),
            counts=tuple(count_stages(self._searched())),
            settings=self.config.model_dump(mode="json"),
            conditions=self._conditions(),
        )

    def _conditions(self) -> dict[str, str]:
        """Conditions of the results: g, the rule for tau, and whether the models are verified."""
        config, sweep = self.config, self.config.sweep
        tau = "given" if sweep.thresholds else "between the ends that validation windows allow"
        models = {
            trial.point.get("model.name", config.model.name) for trial in self.trials.values()
        }
        return {
            "g": task_of(config.model, config.train).loss_name,
            "tau": f"{tau}, then the best Step 3 on validation",
            **{name: UNVERIFIED for name in sorted(models) if not is_verified(name)},
        }

    def _searched(self) -> list[Trial]:
        """Return the trials of the search, without those with further seeds."""
        return [trial for trial in self.trials.values() if trial.seed == self.config.seed]

    def say(self, chosen: Candidate, computed: Sequence[str]) -> None:
        """Print the chosen point, its cost, and the time that sharing stages saved.

        Args:
            chosen: The chosen point.
            computed: Names of the stages that were computed in this session.
        """
        counts = count_stages(self._searched())
        for count in counts:
            say(
                f"{count.name}: {count.used} trials needed {count.different}, which took "
                f"{count.seconds:.0f} s rather than {count.naive_seconds:.0f} s; computed now: "
                f"{computed.count(count.name)}, those for more seeds included"
            )
        naive, spent = sum(c.naive_seconds for c in counts), sum(c.seconds for c in counts)
        say(f"sharing saved {naive - spent:.0f} s of {naive:.0f} s of work")
        spread = "" if chosen.sd is None else f" ± {chosen.sd:.2f}"
        names = " and ".join(self.config.sweep.criterion)
        say(
            f"chosen: {describe(chosen.point)}: {chosen.mean:.2f}{spread}, mean of {names} on the "
            f"validation split over {len(chosen.values)} seed(s)"
        )
