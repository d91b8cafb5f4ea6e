"""Search space of a sweep: window and stride, tau, and other settings of a run.

A point of the space maps dotted keys of the configuration to values; `with_values` converts it to
a configuration.

Shape suffixes used in this file:
    W = windows    T = segments
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np
import yaml

from distributed_avel.config import RunConfig, SweepConfig, validate
from distributed_avel.errors import ConfigError
from distributed_avel.method.windows import window_mask
from distributed_avel.models import model_class, model_options
from distributed_avel.randomness import generator

Point = dict[str, Any]

WINDOW, STRIDE, THRESHOLD = "refine.window", "refine.stride", "refine.threshold"
MODEL, OPTIONS = "model.name", "model.options"

_SECTIONS = ("model", "train", "refine")
_OF_ALL_MODELS = frozenset({"name", "num_workers", "cpus_per_worker", "use_gpu"})
_WINDOWS = "windows"


@dataclass(frozen=True, slots=True)
class Windows:
    """A valid combination of window and stride.

    Args:
        window: N.
        stride: s.
        num_windows: T1; the cost of Step 1 (with the auxiliary loss) and of Step 2 grows with it.
        unevenness: 1 - (fewest / most windows that contain a segment); 0 is even, 1 means that
            some segments are in no window.
    """

    window: int
    stride: int
    num_windows: int
    unevenness: float

    def __str__(self) -> str:
        return f"{self.window}:{self.stride}"


@dataclass(frozen=True, slots=True)
class Choice:
    """A setting with a list of values."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """A setting with any value from `low` to `high`, uniform on a logarithmic scale."""

    key: str
    low: float
    high: float
    is_whole: bool


class Suggest(Protocol):
    """The part of the interface of an Optuna trial that the space uses."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of the choices."""
        ...

    def suggest_float(self, name: str, low: float, high: float) -> float:
        """Suggest a number from `low` to `high`."""
        ...


def valid_windows(
    num_segments: int, *, max_windows: int | None = None, max_unevenness: float = 1.0
) -> list[Windows]:
    """Return all windows and strides with 1 < N < (T + 1) / 2 and s | T - N, the cheapest first.

    Args:
        num_segments: T.
        max_windows: Maximum T1.
        max_unevenness: Maximum unevenness.
    """
    combinations = []
    for window in range(2, (num_segments + 1) // 2 + 1):
        if not 1 < window < (num_segments + 1) / 2:
            continue
        for stride in range(1, num_segments - window + 1):
            if (num_segments - window) % stride == 0:
                combinations.append(_windows(num_segments, window, stride))
    kept = [
        w
        for w in combinations
        if w.num_windows <= (max_windows or w.num_windows) and w.unevenness <= max_unevenness
    ]
    return sorted(kept, key=lambda w: (w.num_windows, w.window, w.stride))


def _windows(num_segments: int, window: int, stride: int) -> Windows:
    mask_WT = window_mask(num_segments, window, stride)
    cover_T = mask_WT.sum(axis=0)
    return Windows(window, stride, len(mask_WT), 1.0 - float(cover_T.min() / cover_T.max()))


def chosen_windows(config: SweepConfig, num_segments: int) -> list[Windows]:
    """Return the windows and strides that a sweep tries.

    Raises:
        ConfigError: A combination is malformed or invalid, or the limits exclude all.
    """
    everything = valid_windows(num_segments)
    if not config.windows:
        windows_in_limits = valid_windows(
            num_segments,
            max_windows=config.max_windows,
            max_unevenness=config.max_unevenness,
        )
        if not windows_in_limits:
            raise ConfigError(
                "sweep.max_windows and sweep.max_unevenness exclude all windows and strides; "
                f"there are {_list(everything)}"
            )
        return windows_in_limits
    by_name = {str(windows): windows for windows in everything}
    wrong = [name for name in config.windows if name not in by_name]
    if wrong:
        raise ConfigError(
            f"sweep.windows: {', '.join(wrong)}: not a valid N:s for {num_segments} segments "
            f"(1 < N < {(num_segments + 1) / 2:g}, s divides {num_segments} - N); "
            f"there are {_list(everything)}"
        )
    return [by_name[name] for name in dict.fromkeys(config.windows)]


def _list(windows: Sequence[Windows]) -> str:
    return ", ".join(f"{w} (T1 {w.num_windows})" for w in windows)


def with_values(config: RunConfig, point: Mapping[str, Any], source: str = "sweep") -> RunConfig:
    """Apply the values of a point to a configuration.

    Raises:
        ConfigError: There is no such key, or a value is invalid.
    """
    values = config.model_dump(mode="json")
    for key, value in point.items():
        *sections, name = key.split(".")
        section = values
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    run = validate(values, source)
    if run.model.options:
        try:
            model_options(run.model.name, run.model.options)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
    return run


def parse_dimension(text: str, config: RunConfig) -> Choice | Range:
    """Parse a dimension `KEY=VALUE,VALUE,...` or `KEY=LOW..HIGH`, and validate its values.

    Raises:
        ConfigError: There is no such setting, a sweep cannot vary it, or a value is invalid.
    """
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise ConfigError(f"sweep.vary: {text!r}: expected KEY=VALUE,VALUE,... or KEY=LOW..HIGH")
    if key.partition(".")[0] not in _SECTIONS:
        raise ConfigError(
            f"sweep.vary: {key}: a sweep can vary settings of {', '.join(_SECTIONS)}; trials share "
            "data and features, and sweep.num_seeds sets the seeds"
        )
    if key in (WINDOW, STRIDE, THRESHOLD):
        raise ConfigError(f"sweep.vary: {key}: use sweep.windows and sweep.thresholds")
    if key == OPTIONS:
        raise ConfigError(f"sweep.vary: {key}: name one option, as in {OPTIONS}.NAME=VALUE,VALUE")
    low, dots, high = values.partition("..")
    checked = [
        _checked(config, key, yaml.safe_load(part))
        for part in ((low, high) if dots else values.split(","))
    ]
    if not dots:
        return Choice(key, tuple(dict.fromkeys(checked)))
    are_numbers = all(isinstance(value, int | float) for value in checked)
    if not are_numbers or not 0 < checked[0] < checked[1]:
        raise ConfigError(f"sweep.vary: {key}: a range needs two numbers with 0 < LOW < HIGH")
    is_whole = all(isinstance(value, int) for value in checked)
    return Range(key, float(checked[0]), float(checked[1]), is_whole)


def parse_model_settings(texts: Sequence[str], config: RunConfig) -> dict[str, Point]:
    """Parse and validate settings of single base models, `MODEL:KEY=VALUE`, by model.

    Raises:
        ConfigError: There is no such model or setting, the tables fix it, or a value is invalid.
    """
    by_model: dict[str, Point] = {}
    for text in texts:
        model, _, setting = text.partition(":")
        key, equals, value = setting.partition("=")
        section, _, name = key.partition(".")
        if not equals or section not in ("model", "train") or name in _OF_ALL_MODELS:
            raise ConfigError(
                f"by_model: {text!r}: expected MODEL:KEY=VALUE with a setting of model or train "
                f"that may differ between models (not {', '.join(sorted(_OF_ALL_MODELS))}), such "
                "as psp:train.batch_size=128"
            )
        model_class(model)
        by_model.setdefault(model, {})[key] = yaml.safe_load(value)
    for model, settings in by_model.items():
        with_values(config, {"model.name": model, **settings}, f"by_model, {model}")
    return by_model


def _checked(config: RunConfig, key: str, value: Any) -> Any:
    """Return the value after validation, with the type of the setting."""
    run = with_values(config, {key: value}, "sweep.vary")
    result: Any = run
    if key.startswith(f"{OPTIONS}."):
        result = model_options(run.model.name, run.model.options)
        key = key.removeprefix(f"{OPTIONS}.")
    for part in key.split("."):
        result = getattr(result, part)
    return result


def refuse_options_of_others(dimensions: Sequence[Choice | Range], config: RunConfig) -> None:
    """Refuse options that one of the base models of a sweep does not have.

    Raises:
        ConfigError: It names the option and the base model.
    """
    names = [
        name for d in dimensions if isinstance(d, Choice) and d.key == MODEL for name in d.values
    ]
    for name in names:
        for dimension in dimensions:
            if dimension.key.startswith(f"{OPTIONS}."):
                value = dimension.low if isinstance(dimension, Range) else dimension.values[0]
                with_values(config, {MODEL: name, dimension.key: value}, "sweep.vary")


@dataclass(frozen=True, kw_only=True)
class Space:
    """Search space of a sweep.

    Args:
        windows: Windows and strides.
        thresholds: Values of tau of a grid.
        threshold_range: Range of tau for the other searches.
        dimensions: Other settings.
    """

    windows: tuple[Windows, ...]
    thresholds: tuple[float, ...] = ()
    threshold_range: tuple[float, float] = (0.001, 0.999)
    dimensions: tuple[Choice | Range, ...] = ()

    def grid(self) -> list[Point]:
        """Return all combinations.

        Raises:
            ConfigError: A dimension is a range.
        """
        ranges = [d.key for d in self.dimensions if isinstance(d, Range)]
        if ranges:
            raise ConfigError(
                f"sweep.vary: {', '.join(ranges)}: a grid needs values, not a range; list them or "
                "choose sweep.search random, optuna or asha"
            )
        return [
            {**shared, THRESHOLD: tau}
            for shared in self.shared(all_dimensions=True)
            for tau in self.thresholds
        ]

    def shared(self, *, all_dimensions: bool) -> list[Point]:
        """Return the points without tau, whose Steps 1 and 2 all values of tau share.

        Args:
            all_dimensions: Include all combinations of `dimensions`; otherwise only windows.
        """
        choices = [d for d in self.dimensions if isinstance(d, Choice) and all_dimensions]
        combinations = [
            dict(zip([d.key for d in choices], values, strict=True))
            for values in product(*(d.values for d in choices))
        ]
        return [
            {**_as_point(windows), **values} for windows in self.windows for values in combinations
        ]

    def sample(self, count: int, seed: int) -> list[Point]:
        """Draw random points; point i does not depend on `count`."""
        return [self._draw(generator(seed, "sweep", "point", i)) for i in range(count)]

    def _draw(self, rng: np.random.Generator) -> Point:
        windows = self.windows[int(rng.integers(len(self.windows)))]
        point = _as_point(windows)
        for dimension in self.dimensions:
            if isinstance(dimension, Choice):
                point[dimension.key] = dimension.values[int(rng.integers(len(dimension.values)))]
            else:
                point[dimension.key] = _from_log(dimension, rng.uniform(*_log_ends(dimension)))
        low, high = self.threshold_range
        point[THRESHOLD] = _expit(rng.uniform(logit(low), logit(high)))
        return point

    def suggest(self, trial: Suggest) -> None:
        """Suggest one value per dimension to an Optuna trial (define-by-run); see `suggested`."""
        trial.suggest_categorical(_WINDOWS, [str(windows) for windows in self.windows])
        low, high = self.threshold_range
        trial.suggest_float(THRESHOLD, logit(low), logit(high))
        for dimension in self.dimensions:
            if isinstance(dimension, Choice):
                trial.suggest_categorical(dimension.key, list(dimension.values))
            else:
                trial.suggest_float(dimension.key, *_log_ends(dimension))

    def suggested(self, values: Mapping[str, Any]) -> Point:
        """Convert values of `suggest` to a point."""
        windows = next(w for w in self.windows if str(w) == values[_WINDOWS])
        point = _as_point(windows)
        for dimension in self.dimensions:
            value = values[dimension.key]
            is_choice = isinstance(dimension, Choice)
            point[dimension.key] = value if is_choice else _from_log(dimension, value)
        point[THRESHOLD] = _expit(values[THRESHOLD])
        return point

    def asked(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Convert a point to values of `suggest`; the inverse of `suggested` up to rounding."""
        windows = next(w for w in self.windows if _as_point(w).items() <= point.items())
        low, high = self.threshold_range
        tau = _within(logit(point[THRESHOLD]), (logit(low), logit(high)))
        values = {_WINDOWS: str(windows), THRESHOLD: tau}
        for dimension in self.dimensions:
            value = point[dimension.key]
            if isinstance(dimension, Range):
                value = _within(math.log(value), _log_ends(dimension))
            values[dimension.key] = value
        return values


def describe(point: Mapping[str, Any]) -> str:
    """Format a point, such as `N 4, s 2, tau 0.95`."""
    names = {WINDOW: "N", STRIDE: "s", THRESHOLD: "tau"}
    words = []
    for key, value in point.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        words.append(f"{names.get(key, key)} {shown}")
    return ", ".join(words)


def spread_thresholds(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return `count` values of tau from `low` to `high`, evenly spaced on the logit scale.

    Duplicates are removed, so there are fewer if `low` and `high` are (nearly) equal.
    """
    if count == 1:
        return (_expit((logit(low) + logit(high)) / 2),)
    return tuple(dict.fromkeys(_expit(x) for x in np.linspace(logit(low), logit(high), count)))


def logit(probability: float) -> float:
    """Compute log(p / (1 - p))."""
    return math.log(probability / (1.0 - probability))


def _expit(x: float) -> float:
    """Compute the inverse of `logit`, rounded to six decimals to be easy to type."""
    return round(1.0 / (1.0 + math.exp(-x)), 6)


def _as_point(windows: Windows) -> Point:
    return {WINDOW: windows.window, STRIDE: windows.stride}


def _within(value: float, ends: tuple[float, float]) -> float:
    return min(max(value, ends[0]), ends[1])


def _log_ends(dimension: Range) -> tuple[float, float]:
    return math.log(dimension.low), math.log(dimension.high)


def _from_log(dimension: Choice | Range, value: float) -> float | int:
    assert isinstance(dimension, Range)
    number = min(max(math.exp(value), dimension.low), dimension.high)
    return round(number) if dimension.is_whole else float(f"{number:.6g}")
