"""When masks are updated, and how sparse they are by then.

A schedule ramps from `initial` to the pruner's sparsity between `begin` and `end`.
These points are fractions of the run by default, so that a schedule fits any number
of epochs; `unit="epochs"` and `unit="steps"` are there for recipes that need them.
"""

from __future__ import annotations

import copy
import importlib
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import keras

from keras_tickets._util import arguments
from keras_tickets._util.registry import Configurable, Registry, config_read

UNITS = ("fraction", "epochs", "steps")


@dataclass(frozen=True)
class Run:
    """The length of one `fit`.

    Time is counted in training steps; when the data does not tell how many steps an
    epoch has, in epochs.

    Args:
        epochs: Number of epochs.
        steps: Steps per epoch, or `None` when unknown.
    """

    epochs: int
    steps: int | None

    @property
    def length(self) -> int:
        """The time at which the run ends."""
        return self.epochs * (self.steps or 1)

    def time(self, value: float, unit: str) -> float:
        """Return the time that `value`, given in `unit`, stands for.

        Raises:
            ValueError: If it is given in steps and the steps per epoch are unknown.
        """
        if unit == "fraction":
            return value * self.length
        if unit == "epochs":
            return value * (self.steps or 1)
        if self.steps is None:
            raise ValueError(
                f"A schedule counts in steps ({value:g}), but the data does not tell "
                "how many steps an epoch has. Pass steps_per_epoch to fit, or give "
                'the schedule in unit="epochs" or unit="fraction".'
            )
        return value


class Schedule(Configurable, ABC):
    """A ramp between two points of the run.

    Args:
        begin: Where the ramp begins.
        end: Where it reaches its final value.
        every: Distance between two mask updates; by default a hundredth of the ramp
            and at least one step.
        initial: The value at `begin`.
        unit: What `begin`, `end` and `every` are given in: `"fraction"` of the run,
            `"epochs"` or `"steps"`.

    Raises:
        ValueError: If the points are out of order or the unit is unknown.
    """

    def __init__(
        self,
        begin: float = 0.0,
        end: float = 0.75,
        every: float | None = None,
        initial: float = 0.0,
        unit: str = "fraction",
    ) -> None:
        self.unit = arguments.word("unit", unit, UNITS)
        first, last = arguments.as_number(begin), arguments.as_number(end)
        limit = 1.0 if unit == "fraction" else sys.float_info.max
        if first is None or last is None or not 0 <= first <= last <= limit:
            raise ValueError(
                f"{type(self).__name__} needs 0 <= begin <= end"
                + (" <= 1 (a fraction of the run)" if unit == "fraction" else "")
                + f". Received: begin={begin!r}, end={end!r}, unit={unit!r}."
            )
        self.begin = first
        self.end = last
        self.every = (
            None if every is None else arguments.number("every", every, "(0, inf)")
        )
        self.initial = arguments.number("initial", initial, "[0, 1)")

    final: float | None = None
    """The final value, for a schedule that states its own."""

    @abstractmethod
    def curve(self, progress: float, start: float, stop: float) -> float:
        """Return the value at `progress` in [0, 1] on the way from start to stop."""

    def span(self, run: Run) -> tuple[float, float]:
        """Return the times at which the ramp begins and ends."""
        return run.time(self.begin, self.unit), run.time(self.end, self.unit)

    def value(self, time: float, final: float, run: Run) -> float:
        """Return the scheduled value at `time`; `initial` before the ramp."""
        begin, end = self.span(run)
        if time >= end:
            return final
        progress = (time - begin) / (end - begin) if time > begin else 0.0
        return self.curve(progress, self.initial, final)

    def starting_at(self, sparsity: float) -> Self:
        """Return this schedule, its ramp beginning no lower than at `sparsity`.

        Example:
        >>> from_half = Polynomial(begin=0, end=100, unit="steps").starting_at(0.5)
        >>> [round(from_half.value(t, 0.9, Run(1, 100)), 4) for t in (0, 10, 50, 100)]
        [0.5, 0.6084, 0.85, 0.9]
        """
        if sparsity <= self.initial:
            return self
        raised = copy.copy(self)
        raised.initial = sparsity
        return raised

    def due(self, before: float, now: float, run: Run) -> bool:
        """Return whether an update falls in the half-open span `(before, now]`.

        A span, not a point: with `steps_per_execution` a callback sees every N-th
        step only.
        """
        begin, end = self.span(run)
        if before < end <= now:
            return True
        if now < begin or before >= end:
            return False
        every = self._every(begin, end, run)
        return math.floor((now - begin) / every) > math.floor((before - begin) / every)

    def finished(self, time: float, run: Run) -> bool:
        """Return whether the ramp has reached its end at `time`."""
        return time >= self.span(run)[1]

    def _every(self, begin: float, end: float, run: Run) -> float:
        if self.every is not None:
            return run.time(self.every, self.unit)
        return max(1.0, (end - begin) / 100)


_registry = Registry(
    "schedule",
    Schedule,
    adapt=lambda value: TfmotSchedule(value) if _is_tfmot(value) else None,
)


@_registry.register
class Once(Schedule):
    """One update to the final sparsity.

    Args:
        at: When.
        unit: What `at` is given in: `"fraction"`, `"epochs"` or `"steps"`.
    """

    def __init__(self, at: float = 0.0, unit: str = "fraction") -> None:
        super().__init__(arguments.number("at", at, "[0, inf)"), at, unit=unit)
        self.at = self.begin

    def curve(self, progress: float, start: float, stop: float) -> float:
        """Return `start`: before the one update nothing happens."""
        return start


@_registry.register
class Polynomial(Schedule):
    """`s_t = s_f + (s_i - s_f) * (1 - progress) ** power`; cubic by default.

    Fast while the network has weights to spare, slow near the end.

    Args:
        begin: Where the ramp begins.
        end: Where it reaches the final sparsity.
        every: Distance between two mask updates.
        initial: Sparsity at `begin`.
        unit: `"fraction"`, `"epochs"` or `"steps"`.
        power: The exponent.

    Reference:
        Zhu and Gupta, "To prune, or not to prune", 2017.

    Example:
    >>> cubic = Polynomial(begin=0, end=100, unit="steps")
    >>> [round(cubic.value(t, 0.9, Run(1, 100)), 4) for t in (0, 10, 50, 100)]
    [0.0, 0.2439, 0.7875, 0.9]
    """

    def __init__(
        self,
        begin: float = 0.0,
        end: float = 0.75,
        every: float | None = None,
        initial: float = 0.0,
        unit: str = "fraction",
        power: float = 3,
    ) -> None:
        super().__init__(begin, end, every, initial, unit)
        self.power = arguments.number("power", power, "[0, inf)")

    def curve(self, progress: float, start: float, stop: float) -> float:
        """Return `stop + (start - stop) * (1 - progress) ** power`."""
        return stop + (start - stop) * (1 - progress) ** self.power


@_registry.register
class Exponential(Schedule):
    """Each update keeps the same fraction of what the last one kept.

    `1 - s_t = (1 - s_i) * ((1 - s_f) / (1 - s_i)) ** progress`.

    Reference:
        Tanaka et al., "Pruning neural networks without any data by iteratively
        conserving synaptic flow", 2020.
    """

    def curve(self, progress: float, start: float, stop: float) -> float:
        """Return the geometric mean of the kept fractions, as a sparsity."""
        return 1 - (1 - start) * ((1 - stop) / (1 - start)) ** progress


@_registry.register
class Freezing(Exponential):
    """Gem-Miner's: every few epochs of mining, the same fraction of what is left.

    Of `E` epochs of mining `n = floor((E - 1) / every)` end in a freeze, the first one
    epoch `every + 1`; each keeps `(1 - sparsity)^(1/n)` of what the last one kept.

    Args:
        every: Epochs from one freeze to the next.
        until: The fraction of the run that is mining.

    Reference:
        Sreenivasan et al., "Rare Gems: Finding Lottery Tickets at Initialization",
        2022.

    Example:
    >>> freezing, run = Freezing(every=5, until=1.0), Run(epochs=150, steps=None)
    >>> freezing.span(run)
    (1, 146)
    >>> [round(268336 * (1 - freezing.value(t, 0.9856, run))) for t in (1, 6, 11, 146)]
    [268336, 231832, 200295, 3864]
    """

    def __init__(self, every: float = 5, until: float = 0.5) -> None:
        super().__init__(unit="epochs")
        self.end = math.inf
        self.every = self._period = arguments.number("every", every, "(0, inf)")
        self.until = arguments.number(
            "until is a fraction of the run and", until, "(0, 1]"
        )

    def span(self, run: Run) -> tuple[float, float]:
        """Return the time one period before the first freeze, and that of the last."""
        mining = run.epochs * self.until
        number = math.floor((mining - 1) / self._period)
        if number < 1:
            raise ValueError(
                f"Mining takes {mining:g} of {run.epochs} epochs, and with every="
                f"{self._period:g} the first freeze is due after {1 + self._period:g}. "
                "Train for more epochs, mine for longer (until=), or freeze more often "
                "(every=)."
            )
        return run.time(1, "epochs"), run.time(1 + number * self._period, "epochs")

    def _every(self, begin: float, end: float, run: Run) -> float:
        return run.time(self._period, "epochs")


@_registry.register
class Rounds(Exponential):
    """Rounds of equal length: train, prune, and again; the last one only trains.

    Args:
        number: Number of pruning steps.
        fraction: What part of the rest each round drops, the last one what remains;
            by default such that all drop the same.
        begin: The time that each round goes back to; the first begins earlier.
        unit: What `begin` is given in: `"fraction"`, `"epochs"` or `"steps"`.

    Reference:
        Frankle and Carbin, "The lottery ticket hypothesis", 2019.

    Example:
    >>> thirds = Rounds(number=2, fraction=0.2)
    >>> [thirds.value(t, 0.5, Run(epochs=30, steps=None)) for t in (9, 10, 20)]
    [0.0, 0.19999999999999996, 0.5]
    """

    def __init__(
        self,
        number: int = 5,
        fraction: float | None = None,
        begin: float = 0.0,
        unit: str = "epochs",
    ) -> None:
        last = 1.0 if unit == "fraction" else sys.float_info.max
        super().__init__(begin, last, unit=unit)
        self.end = 1.0 if unit == "fraction" else math.inf
        self.number = arguments.whole("number", number, least=1)
        self.fraction = (
            None
            if fraction is None
            else arguments.number("fraction", fraction, "(0, 1)")
        )

    def span(self, run: Run) -> tuple[float, float]:
        """Return the times that rounds go back to and that of the last pruning."""
        begin = run.time(self.begin, self.unit)
        end = run.length - self._every(begin, run.length, run)
        if begin >= end:
            raise ValueError(
                f"Rounds are to go back to {self.begin:g} {self.unit}, which is not "
                f"before the end of the first one: the run has {run.epochs} epochs"
                + (f" of {run.steps} steps" if run.steps else "")
                + f" for {self.number} rounds. Go back to an earlier point, or train "
                "for longer."
            )
        return begin, end

    def over(self, time: float, run: Run) -> int:
        """Return the number of pruning steps done by `time`."""
        begin, end = self.span(run)
        passed = (time - begin) / self._every(begin, end, run)
        return max(0, min(self.number, math.floor(passed + 1e-6)))

    def value(self, time: float, final: float, run: Run) -> float:
        """Return the sparsity after the rounds that are over by `time`."""
        over = self.over(time, run)
        if over == self.number:
            return final
        if self.fraction is None:
            return self.curve(over / self.number, self.initial, final)
        return min(final, 1 - (1 - self.fraction) ** over)

    def due(self, before: float, now: float, run: Run) -> bool:
        """Return whether a round ends in the half-open span `(before, now]`."""
        return self.over(now, run) > self.over(before, run)

    def finished(self, time: float, run: Run) -> bool:
        """Return whether only the last round is left at `time`."""
        return self.over(time, run) == self.number

    def _every(self, begin: float, end: float, run: Run) -> float:
        return (run.length - begin) / (self.number + 1)


@_registry.register
class Cosine(Schedule):
    """Half a cosine from the initial to the final value.

    Reference:
        Dettmers and Zettlemoyer, "Sparse networks from scratch", 2019.
    """

    def curve(self, progress: float, start: float, stop: float) -> float:
        """Return `stop + (start - stop) * (1 + cos(pi * progress)) / 2`."""
        return stop + (start - stop) * (1 + math.cos(math.pi * progress)) / 2


@_registry.register
class Constant(Schedule):
    """The initial value all the way, and the final one at the end."""

    def curve(self, progress: float, start: float, stop: float) -> float:
        """Return `start`."""
        return start


def _is_tfmot(value: Any) -> bool:
    """Return whether `value` is a `PruningSchedule` of tfmot, without importing it."""
    return _is_tfmot_class(type(value))


def _is_tfmot_class(cls: Any) -> bool:
    bases = cls.__mro__ if isinstance(cls, type) else ()
    return any(base.__name__ == "PruningSchedule" for base in bases)


TFMOT = "tensorflow_model_optimization"
TFMOT_SCHEDULES = ("ConstantSparsity", "PolynomialDecay")


def _is_theirs(module: Any, name: Any) -> bool:
    return str(module).partition(".")[0] == TFMOT and name in TFMOT_SCHEDULES


def _tfmot_class(config: Mapping[str, Any]) -> type:
    """Return the class that `config` names: tfmot's own, or a registered one.

    The strings of a config come from a file, perhaps of somebody else. They choose
    among classes that are known here; they never name a module to import.

    Raises:
        ValueError: If `config` names anything else.
    """
    if _is_theirs(config.get("module"), config.get("class_name")):
        library = importlib.import_module(f"{TFMOT}.sparsity.keras")
        return getattr(library, config["class_name"])
    cls = keras.saving.get_registered_object(str(config.get("registered_name")))
    if _is_tfmot_class(cls):
        return cls
    raise ValueError(
        f"The config of a tfmot schedule names {config.get('class_name')!r} of the "
        f"module {config.get('module')!r}. Expected one of {list(TFMOT_SCHEDULES)} of "
        f"{TFMOT}, or a class of your own that is registered before it is read: "
        '@keras.saving.register_keras_serializable(package="...").'
    )


@_registry.register
class TfmotSchedule(Schedule):
    """A `PruningSchedule` of tensorflow-model-optimization, run as it is.

    Whatever accepts a schedule accepts the tfmot object itself; this is the class it
    becomes. The schedule counts in steps and brings its own final sparsity, which
    must be the pruner's.

    Args:
        schedule: The tfmot object, or its config as `get_config()` here returns it. A
            subclass of your own has to be registered with
            `keras.saving.register_keras_serializable`, so that it can be read back.

    Raises:
        ValueError: If the class is neither tfmot's own nor registered.
    """

    def __init__(self, schedule: Any) -> None:
        if isinstance(schedule, Mapping):
            schedule = _tfmot_class(schedule)(**schedule["arguments"])
        self.schedule = schedule
        _tfmot_class(self._names())  # what could not be read back is not begun
        arguments = schedule.get_config()["config"]
        begin = arguments.get("begin_step", 0)
        end = arguments.get("end_step", begin)
        super().__init__(begin, max(begin, end), unit="steps")
        self.final = arguments.get("final_sparsity", arguments.get("target_sparsity"))

    def _names(self) -> dict[str, str]:
        cls = type(self.schedule)
        names = {"module": cls.__module__, "class_name": cls.__name__}
        if not _is_theirs(cls.__module__, cls.__name__):
            names["registered_name"] = keras.saving.get_registered_name(cls)
        return names

    def get_config(self) -> dict[str, Any]:
        """Return the tfmot schedule's class and arguments."""
        arguments = self.schedule.get_config()["config"]
        return {"schedule": {**self._names(), "arguments": arguments}}

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """Rebuild the tfmot object and adapt it again."""
        with config_read(cls.__name__, config):
            return cls(config["schedule"])

    def curve(self, progress: float, start: float, stop: float) -> float:
        """Return `start`; not used: tfmot's schedule is asked at the step itself."""
        return start

    def value(self, time: float, final: float, run: Run) -> float:
        """Return the sparsity that the tfmot schedule states for the step."""
        stated = float(self.schedule(int(time))[1])
        # tfmot computes in float32: 0.9 comes back as 0.89999998.
        return final if math.isclose(stated, final, rel_tol=1e-6) else stated

    def due(self, before: float, now: float, run: Run) -> bool:
        """Return whether the tfmot schedule prunes in one of the steps passed.

        Its end counts too, when its frequency steps over it.
        """
        if before < self.end <= now:
            return True
        first = max(0, math.floor(before) + 1)
        return any(
            bool(self.schedule(step)[0]) for step in range(first, math.floor(now) + 1)
        )


def get(identifier: Any) -> Schedule:
    """Return the schedule that a name, config, instance or tfmot object stands for."""
    return _registry.get(identifier)
