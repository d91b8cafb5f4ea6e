"""The space of a sweep: pairs of window and stride, tau, and any other settings of a run.

A point of the space is a dictionary from dotted keys of the configuration to values, so that
`with_values` makes a run of it and nothing about a dimension has to be known twice.
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
from distributed_avel.models import model_class, model_options
from distributed_avel.randomness import generator
from distributed_avel.refine.windows import window_mask

Point = dict[str, Any]

WINDOW, STRIDE, THRESHOLD = "refine.window", "refine.stride", "refine.threshold"
MODEL, OPTIONS = "model.name", "model.options"

_SECTIONS = ("model", "train", "refine")
_OF_ALL_MODELS = frozenset({"name", "num_workers", "cpus_per_worker", "use_gpu"})
_WINDOWS = "windows"


@dataclass(frozen=True, slots=True)
class Windows:
    """A valid pair of window N and stride s, with what it costs and how evenly it looks.

    Args:
        num_windows: T1, which the costs of Steps 1 (with the auxiliary loss) and 2 grow with.
        unevenness: 1 - least / most windows that a segment is in: 0 is even, and 1 means that
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
    """A setting that takes one of some values."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """A setting that takes any value from `low` to `high`, evenly on a logarithmic scale."""

    key: str
    low: float
    high: float
    is_whole: bool


class Suggest(Protocol):
    """What the space asks of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""
        ...

    def suggest_float(self, name: str, low: float, high: float) -> float:
        """A number between these."""
        ...


def valid_windows(
    num_segments: int, *, max_windows: int | None = None, max_unevenness: float = 1.0
) -> list[Windows]:
    """All pairs with 1 < N < (T + 1) / 2 and s a divisor of T - N, the cheapest first.

    Args:
        num_segments: T.
        max_windows: The largest T1 that is wanted.
        max_unevenness: The largest unevenness that is wanted.
    """
    found = []
    for window in range(2, (num_segments + 1) // 2 + 1):
        if not 1 < window < (num_segments + 1) / 2:
            continue
        for stride in range(1, num_segments - window + 1):
            if (num_segments - window) % stride == 0:
                found.append(_windows(num_segments, window, stride))
    kept = [
        w
        for w in found
        if w.num_windows <= (max_windows or w.num_windows) and w.unevenness <= max_unevenness
    ]
    return sorted(kept, key=lambda w: (w.num_windows, w.window, w.stride))


def _windows(num_segments: int, window: int, stride: int) -> Windows:
    mask_WT = window_mask(num_segments, window, stride)
    cover_T = mask_WT.sum(axis=0)
    return Windows(window, stride, len(mask_WT), 1.0 - float(cover_T.min() / cover_T.max()))


def chosen_windows(config: SweepConfig, num_segments: int) -> list[Windows]:
    """The pairs that a sweep tries.

    Raises:
        ConfigError: A pair is not one or is not valid, or the limits leave none.
    """
    everything = valid_windows(num_segments)
    if not config.windows:
        found = valid_windows(
            num_segments,
            max_windows=config.max_windows,
            max_unevenness=config.max_unevenness,
        )
        if not found:
            raise ConfigError(
                "sweep.max_windows and sweep.max_unevenness leave no pair of window and stride; "
                f"there are {_list(everything)}"
            )
        return found
    by_name = {str(windows): windows for windows in everything}
    wrong = [name for name in config.windows if name not in by_name]
    if wrong:
        raise ConfigError(
            f"sweep.windows: {', '.join(wrong)}: not a valid pair N:s for {num_segments} segments "
            f"(1 < N < {(num_segments + 1) / 2:g}, s divides {num_segments} - N); "
            f"there are {_list(everything)}"
        )
    return [by_name[name] for name in dict.fromkeys(config.windows)]


def _list(windows: Sequence[Windows]) -> str:
    return ", ".join(f"{w} (T1 {w.num_windows})" for w in windows)


def with_values(config: RunConfig, point: Mapping[str, Any], source: str = "sweep") -> RunConfig:
    """The run that a point of the space stands for.

    Raises:
        ConfigError: The configuration has no such key, or refuses the value.
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
    """A dimension from `KEY=VALUE,VALUE,...` or `KEY=LOW..HIGH`, checked against the configuration.

    Raises:
        ConfigError: There is no such setting, a sweep cannot vary it, or a value is refused.
    """
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise ConfigError(f"sweep.vary: {text!r}: expected KEY=VALUE,VALUE,... or KEY=LOW..HIGH")
    if key.partition(".")[0] not in _SECTIONS:
        raise ConfigError(
            f"sweep.vary: {key}: a sweep varies settings of {', '.join(_SECTIONS)}; the trials "
            "share data and features, and seeds are those of sweep.num_seeds"
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
    """Settings of single base models from `MODEL:KEY=VALUE`, by the model, checked together.

    Raises:
        ConfigError: There is no such model or setting, the tables fix it, or a value is refused.
    """
    found: dict[str, Point] = {}
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
        found.setdefault(model, {})[key] = yaml.safe_load(value)
    for model, settings in found.items():
        with_values(config, {"model.name": model, **settings}, f"by_model, {model}")
    return found


def _checked(config: RunConfig, key: str, value: Any) -> Any:
    """The value as the configuration holds it."""
    run = with_values(config, {key: value}, "sweep.vary")
    found: Any = run
    if key.startswith(f"{OPTIONS}."):
        found = model_options(run.model.name, run.model.options)
        key = key.removeprefix(f"{OPTIONS}.")
    for part in key.split("."):
        found = getattr(found, part)
    return found


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
    """All points that a sweep may try.

    Args:
        thresholds: Values of tau for a grid.
        threshold_range: Where tau lies otherwise.
    """

    windows: tuple[Windows, ...]
    thresholds: tuple[float, ...] = ()
    threshold_range: tuple[float, float] = (0.001, 0.999)
    dimensions: tuple[Choice | Range, ...] = ()

    def grid(self) -> list[Point]:
        """Every combination.

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
        """The settings that Steps 1 and 2 depend on, which those of every tau share.

        Args:
            all_dimensions: Every combination; otherwise only the pairs of window and stride.
        """
        choices = [d for d in self.dimensions if isinstance(d, Choice) and all_dimensions]
        combinations = [
            dict(zip([d.key for d in choices], values, strict=True))
            for values in product(*(d.values for d in choices))
        ]
        return [{**_pair(windows), **chosen} for windows in self.windows for chosen in combinations]

    def sample(self, count: int, seed: int) -> list[Point]:
        """Points drawn at random; the first ones do not depend on how many there are."""
        return [self._draw(generator(seed, "sweep", "point", i)) for i in range(count)]

    def _draw(self, rng: np.random.Generator) -> Point:
        windows = self.windows[int(rng.integers(len(self.windows)))]
        point = _pair(windows)
        for dimension in self.dimensions:
            if isinstance(dimension, Choice):
                point[dimension.key] = dimension.values[int(rng.integers(len(dimension.values)))]
            else:
                point[dimension.key] = _from_log(dimension, rng.uniform(*_log_ends(dimension)))
        low, high = self.threshold_range
        point[THRESHOLD] = _expit(rng.uniform(logit(low), logit(high)))
        return point

    def suggest(self, trial: Suggest) -> None:
        """Define by run: ask an Optuna trial for one value a dimension; see `suggested`."""
        trial.suggest_categorical(_WINDOWS, [str(windows) for windows in self.windows])
        low, high = self.threshold_range
        trial.suggest_float(THRESHOLD, logit(low), logit(high))
        for dimension in self.dimensions:
            if isinstance(dimension, Choice):
                trial.suggest_categorical(dimension.key, list(dimension.values))
            else:
                trial.suggest_float(dimension.key, *_log_ends(dimension))

    def suggested(self, values: Mapping[str, Any]) -> Point:
        """The point that values stand for which `suggest` asked for."""
        windows = next(w for w in self.windows if str(w) == values[_WINDOWS])
        point = _pair(windows)
        for dimension in self.dimensions:
            value = values[dimension.key]
            is_choice = isinstance(dimension, Choice)
            point[dimension.key] = value if is_choice else _from_log(dimension, value)
        point[THRESHOLD] = _expit(values[THRESHOLD])
        return point

    def asked(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """The values that `suggested` made a point of, up to its rounding."""
        windows = next(w for w in self.windows if _pair(w).items() <= point.items())
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
    """A point in a few words, such as `N 4, s 2, tau 0.95`."""
    names = {WINDOW: "N", STRIDE: "s", THRESHOLD: "tau"}
    words = []
    for key, value in point.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        words.append(f"{names.get(key, key)} {shown}")
    return ", ".join(words)


def spread_thresholds(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` different values of tau from `low` to `high`, evenly spaced on the logit scale.

    Fewer where the two are (nearly) one.
    """
    if count == 1:
        return (_expit((logit(low) + logit(high)) / 2),)
    return tuple(dict.fromkeys(_expit(x) for x in np.linspace(logit(low), logit(high), count)))


def logit(probability: float) -> float:
    """log(p / (1 - p))."""
    return math.log(probability / (1.0 - probability))


def _expit(x: float) -> float:
    """The inverse of `logit`, to six decimals, so that people can type it."""
    return round(1.0 / (1.0 + math.exp(-x)), 6)


def _pair(windows: Windows) -> Point:
    return {WINDOW: windows.window, STRIDE: windows.stride}


def _within(value: float, ends: tuple[float, float]) -> float:
    return min(max(value, ends[0]), ends[1])


def _log_ends(dimension: Range) -> tuple[float, float]:
    return math.log(dimension.low), math.log(dimension.high)


def _from_log(dimension: Choice | Range, value: float) -> float | int:
    assert isinstance(dimension, Range)
    number = min(max(math.exp(value), dimension.low), dimension.high)
    return round(number) if dimension.is_whole else float(f"{number:.6g}")
