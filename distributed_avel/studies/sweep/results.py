"""What came of a sweep: kept, logged as trials end, and written for people at the end."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import yaml

from distributed_avel.arms import ARMS
from distributed_avel.artifacts import Location, read_sealed, sealed
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
from distributed_avel.studies.sweep.page import SweepReport, render_sweep, sweep_figures
from distributed_avel.tasks import task_class, task_of

BEST = "best.yaml"
TRIALS = "sweep.json"
PAGE = "sweep.html"
_TRIALS = "trials"
SEED = "seed"
"""The key of a point that asks for another seed than that of the run."""


@dataclass
class Record:
    """How the trials of a sweep ended.

    Args:
        run_dir: Where the stages of the trials lie.
        folder: Of the sweep's own files.
    """

    config: TuneConfig
    tracker: Tracker
    run_dir: Location
    folder: Location
    trials: dict[str, Trial] = field(default_factory=dict)

    def key(self, point: Point) -> str:
        """What tells the trial of a point, with its seed, from the others."""
        items = sorted({SEED: self.config.seed, **point}.items())
        return hashlib.sha256(repr([items]).encode()).hexdigest()[:12]

    def note(self, outcome: Outcome) -> str:
        """Keep how a trial ended, and log it once; returns its key."""
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

    def keep(self, outcome: Outcome) -> None:
        """Write down a trial that ended without an error, for a rerun of the sweep."""
        file = self.folder / _TRIALS / f"{self.key(outcome.point)}.json"
        file.write_json(sealed({"point": outcome.point, "report": outcome.report}))

    def ended(self) -> list[Outcome]:
        """The trials that ended in earlier runs, as they were written down."""
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
        """The points by their mean criterion, the best first."""
        return rank(self.trials.values(), self.config.sweep.criterion)

    def best_so_far(self) -> str:
        """For a line of progress."""
        best = self.ranked()
        return f"best {best[0].mean:.2f} at {describe(best[0].point)}" if best else ""

    def choose(self) -> Candidate:
        """The best point over its seeds.

        Raises:
            AvelError: No trial finished with a criterion; the message has the reasons.
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
        """The run that repeats a point, with the arm that the sweep was about."""
        arm, other = ("A+LR", "LR") if self.config.sweep.auxiliary else ("LR", "A+LR")
        others = (a for a in self.config.arms if a != other and not ARMS[a].needs_modalities)
        arms = tuple(dict.fromkeys([*others, arm]))
        return with_values(self.config.run, {**chosen.point, "arms": arms})

    def write(self, chosen: Candidate, videos: VideoSet, windows: tuple[Windows, ...]) -> None:
        """The configuration that was chosen, all trials, the page and its figures."""
        said = (
            f"# Chosen by a sweep over {len(self.trials)} trials on the validation split of "
            f"{videos.name}.\n# avel run --config {BEST}\n"
        )
        values = self.chosen_config(chosen).model_dump(mode="json")
        text = said + yaml.safe_dump(values, sort_keys=False)
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
        """What the figures depend on: g, the rule for tau, and whether the model is verified."""
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
        """Trials of the search, without those for more seeds."""
        return [trial for trial in self.trials.values() if trial.seed == self.config.seed]

    def say(self, chosen: Candidate, computed: Sequence[str]) -> None:
        """What was chosen, what it cost, and what sharing saved.

        Args:
            computed: Name of each stage that was computed in this session.
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
