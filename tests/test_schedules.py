"""When masks are updated, and how sparse they are by then."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import types
import warnings

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_tickets import schedules
from keras_tickets.recipe.schedules import Cosine, Exponential, Once, Polynomial, Run

pytestmark = [pytest.mark.backend_independent, pytest.mark.lowest]

RAMPS = (Polynomial, Exponential, Cosine)

# -- goldens -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("final", "begin", "end", "points"),
    [
        (
            0.9,
            0,
            100,
            {
                0: 0.0,
                1: 0.026731,
                10: 0.2439,
                25: 0.5203125,
                50: 0.7875,
                75: 0.8859375,
                90: 0.8991,
                99: 0.8999991,
                100: 0.9,
            },
        ),
        (
            0.8,
            10_000,
            25_000,
            {
                0: 0.0,
                10_000: 0.0,
                11_000: 0.14957,
                12_500: 0.337037,
                15_000: 0.562963,
                17_500: 0.7,
                20_000: 0.77037,
                22_500: 0.796296,
                25_000: 0.8,
                32_000: 0.8,
            },
        ),
    ],
)
def test_cubic_golden(final, begin, end, points):
    """Zhu and Gupta's cubic, and what it is before and after the ramp."""
    cubic = Polynomial(begin, end, unit="steps")
    for step, expected in points.items():
        assert cubic.value(step, final, Run(1, 32_000)) == pytest.approx(
            expected, abs=1e-6
        )


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.3), (6250, 0.256066), (12_500, 0.15), (18_750, 0.043934), (25_000, 0.0)],
)
def test_cosine_golden(step, expected):
    """RigL's drop fraction: from 0.3 down to nothing."""
    cosine = Cosine(0, 25_000, initial=0.3, unit="steps")
    assert cosine.value(step, 0.0, Run(1, 32_000)) == pytest.approx(expected, abs=1e-6)


def test_exponential_keeps_the_same_fraction_each_time():
    """Three rounds to a density of 1/1000 keep a tenth each."""
    ramp = Exponential(0, 3, unit="steps")
    got = [ramp.value(step, 0.999, Run(1, 3)) for step in range(4)]
    assert got == pytest.approx([0.0, 0.9, 0.99, 0.999])
    halved = Exponential(0, 2, initial=0.5, unit="steps")
    assert 1 - halved.value(1, 0.98, Run(1, 2)) == pytest.approx(math.sqrt(0.5 * 0.02))


@pytest.mark.parametrize(("power", "expected"), [(1, 0.45), (2, 0.675), (3, 0.7875)])
def test_power(power, expected):
    ramp = Polynomial(0, 1, power=power)
    assert ramp.value(50, 0.9, Run(1, 100)) == pytest.approx(expected)


# -- laws over all ramps and runs ----------------------------------------------

RUNS = st.builds(Run, st.integers(1, 12), st.one_of(st.none(), st.integers(1, 40)))


@st.composite
def ramps(draw):
    """Any ramp, and the run that it is meant for."""
    run = draw(RUNS)
    cls = draw(st.sampled_from([*RAMPS, Once]))
    unit = draw(
        st.sampled_from([u for u in schedules.UNITS if u != "steps" or run.steps])
    )
    limit = {"fraction": 1.0, "epochs": run.epochs, "steps": run.length}[unit]
    begin, end = sorted(draw(st.tuples(*[st.floats(0, limit)] * 2)))
    if draw(st.booleans()) and unit == "steps":
        begin, end = int(begin), int(end)
    if cls is Once:
        return Once(end, unit), run
    every = draw(st.one_of(st.none(), st.floats(0.01, 1.0).map(lambda f: f * limit)))
    initial = draw(st.sampled_from([0.0, 0.25, 0.5]))
    return cls(begin, end, every, initial, unit), run


@settings(deadline=None, max_examples=150)
@given(ramps(), st.floats(0.5, 0.999), st.lists(st.floats(0, 500), max_size=20))
def test_monotone_and_ends_on_target(ramp, final, times):
    """Never below `initial`, never falling, and exactly `final` from the end on."""
    schedule, run = ramp
    end = run.time(schedule.end, schedule.unit)
    times = sorted([*times, 0.0, end, math.nextafter(end, 0), float(run.length)])
    values = [schedule.value(time, final, run) for time in times]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(values))
    assert values[0] >= schedule.initial - 1e-12 or end == 0
    for time, value in zip(times, values, strict=True):
        assert (value == final) >= (time >= end)
        assert value <= final + 1e-12


@pytest.mark.parametrize("cls", RAMPS)
def test_initial_until_the_ramp_begins(cls):
    ramp = cls(begin=0.5, end=1.0, initial=0.25)
    for time in (0, 10, 49, 50):
        assert ramp.value(time, 0.9, Run(1, 100)) == pytest.approx(0.25)
    assert 0.25 < ramp.value(51, 0.9, Run(1, 100)) < 0.9


def points(schedule, run) -> list[float]:
    """Return every time at which an update is due: the plain definition of it."""
    begin = run.time(schedule.begin, schedule.unit)
    end = run.time(schedule.end, schedule.unit)
    if schedule.every is None:
        every = max(1.0, (end - begin) / 100)
    else:
        every = run.time(schedule.every, schedule.unit)
    inner = (begin + k * every for k in range(math.ceil((end - begin) / every) + 1))
    return [*(time for time in inner if time < end), end]


@st.composite
def steppings(draw):
    """A ramp, its run, and the times at which a callback looks at the clock."""
    schedule, run = draw(ramps())
    jump = draw(st.integers(1, 50))
    every_so_often = list(range(0, run.length, jump))
    anywhere = draw(st.lists(st.integers(0, run.length), max_size=10))
    chosen = draw(st.sampled_from([every_so_often, sorted(set(anywhere))]))
    return schedule, run, sorted({0, *chosen, run.length})


@settings(deadline=None, max_examples=300)
@given(steppings())
def test_due_sees_every_point_once(stepping):
    """A span is due exactly if an update point falls in it, for any stepping."""
    schedule, run, times = stepping
    due = [time for time in points(schedule, run) if time <= run.length]
    # Points that rounding could put on either side of a time are left out.
    near = any(0 < abs(time - point) < 1e-6 for time in times for point in due)
    for before, now in itertools.pairwise([-1, *times]):
        inside = [point for point in due if before < point <= now]
        if not near:
            assert schedule.due(before, now, run) == bool(inside)
    end = run.time(schedule.end, schedule.unit)
    spans = list(itertools.pairwise([-1, *times]))
    assert sum(schedule.due(*span, run) for span in spans if span[0] < end <= span[1])
    assert not any(schedule.due(*span, run) for span in spans if span[0] >= end)


@settings(deadline=None, max_examples=200)
@given(steppings(), st.floats(0.5, 0.999))
def test_updates_reach_the_end(stepping, final):
    """Whatever steps are seen, the last update of a full run is at the target."""
    schedule, run, times = stepping
    reached = None
    for before, now in itertools.pairwise([-1, *times]):
        if schedule.due(before, now, run):
            reached = schedule.value(now, final, run)
    assert reached == final
    assert schedule.finished(run.length, run)


def test_due_is_asked_for_spans():
    """With four steps at a time, updates every ten steps fall on 12, 20, 32, 40."""
    ramp = Polynomial(0, 40, every=10, unit="steps")
    run = Run(1, 60)
    seen = [now for now in range(4, 61, 4) if ramp.due(now - 4, now, run)]
    assert seen == [12, 20, 32, 40]
    single = [now for now in range(1, 61) if ramp.due(now - 1, now, run)]
    assert single == [10, 20, 30, 40]
    assert ramp.due(-1, 0, run)
    assert not ramp.due(40, 60, run)


def test_default_distance_is_a_hundredth_of_the_ramp():
    ramp = Polynomial(0.0, 0.5)
    for steps, expected in [(10_000, 100), (1000, 100), (60, 30)]:
        run = Run(1, steps)
        due = [now for now in range(1, steps + 1) if ramp.due(now - 1, now, run)]
        assert len(due) == expected


def test_once_is_due_once():
    run = Run(2, 10)
    for at, unit, when in [
        (0, "fraction", 0),
        (0.5, "fraction", 10),
        (1, "epochs", 10),
        (7, "steps", 7),
        (1.0, "fraction", 20),
    ]:
        once = Once(at, unit)
        spans = zip([-1, *range(20)], range(21), strict=True)
        assert [now for before, now in spans if once.due(before, now, run)] == [when]
        assert once.value(when, 0.9, run) == 0.9
        if when:
            assert once.value(when - 1, 0.9, run) == 0.0


# -- units ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "begin", "end"),
    [("fraction", 0.25, 0.75), ("epochs", 1, 3), ("steps", 50, 150)],
)
def test_units_agree(unit, begin, end):
    """A quarter of four epochs of fifty steps is one epoch, or fifty steps."""
    ramp, run = Cosine(begin, end, unit=unit), Run(4, 50)
    reference = Cosine(50, 150, unit="steps")
    for time in range(0, 201, 5):
        assert ramp.value(time, 0.9, run) == pytest.approx(
            reference.value(time, 0.9, run)
        )
        assert ramp.finished(time, run) == (time >= 150)


@pytest.mark.parametrize(
    ("value", "unit", "steps", "expected"),
    [
        (0.5, "fraction", 30, 60),
        (0.5, "epochs", 30, 15),
        (7, "steps", 30, 7),
        (0.5, "fraction", None, 2),
        (3, "epochs", None, 3),
    ],
)
def test_time(value, unit, steps, expected):
    assert Run(4, steps).time(value, unit) == expected


def test_unknown_steps_count_in_epochs():
    """A generator of unknown length: one update for each epoch of the ramp."""
    ramp, run = Polynomial(0.0, 0.75), Run(8, None)
    assert run.length == 8
    assert [e for e in range(1, 9) if ramp.due(e - 1, e, run)] == [1, 2, 3, 4, 5, 6]
    assert ramp.value(6, 0.9, run) == 0.9
    assert ramp.value(3, 0.9, run) == pytest.approx(0.7875)


def test_steps_of_a_run_that_does_not_know_them():
    ramp = Polynomial(0, 250, unit="steps")
    message = (
        r"counts in steps \(0\), but the data .* steps_per_epoch .* unit=\"epochs\""
    )
    with pytest.raises(ValueError, match=message):
        ramp.value(1, 0.9, Run(8, None))
    with pytest.raises(ValueError, match="counts in steps"):
        ramp.due(0, 1, Run(8, None))


# -- bad input -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unit": "batches"}, r"one of \('fraction', 'epochs', 'steps'\).*'batches'"),
        ({"end": 1.5}, r"<= 1 \(a fraction of the run\)\. Received: .*end=1.5"),
        ({"begin": -0.1}, r"0 <= begin <= end .*begin=-0.1"),
        ({"begin": 0.8, "end": 0.2}, r"begin=0.8, end=0.2"),
        (
            {"begin": 30, "end": 20, "unit": "steps"},
            r"begin <= end\. Received: begin=30",
        ),
        ({"begin": math.nan}, r"begin=nan"),
        ({"end": 100}, r"Received: .*end=100, unit='fraction'"),
        ({"every": 0}, r"every must be positive\. Received: 0"),
        ({"every": -1.0}, r"every must be positive"),
        ({"initial": 1.0}, r"initial must lie in \[0, 1\)\. Received: 1.0"),
        ({"initial": -0.1}, r"initial must lie in \[0, 1\)"),
    ],
)
@pytest.mark.parametrize("cls", RAMPS)
def test_bad_arguments(cls, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        cls(**arguments)
    if "begin" in arguments or "end" in arguments:
        assert str(caught.value).startswith(cls.__name__)


@pytest.mark.parametrize("wrong", ["cubics", 0.9, None, types.SimpleNamespace()])
def test_unknown_schedule(wrong):
    with pytest.raises(ValueError, match=r"is not a schedule.*'Polynomial'"):
        schedules.get(wrong)


# -- configs -------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule",
    [
        Once(),
        Once(3, "epochs"),
        Polynomial(0.1, 0.6, 0.05, 0.2, power=2),
        Exponential(1, 4, 1, unit="epochs"),
        Cosine(10, 400, 20, 0.3, "steps"),
    ],
)
def test_config_round_trip(schedule):
    """Through JSON and back: the same values and the same updates."""
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
    again = schedules.get(config)
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    run = Run(5, 100)
    for time in range(0, 501, 3):
        assert again.value(time, 0.9, run) == schedule.value(time, 0.9, run)
        assert again.due(time - 3, time, run) == schedule.due(time - 3, time, run)


# -- schedules of tensorflow-model-optimization ---------------------------------


@pytest.fixture(scope="module")
def tfmot():
    """Return tfmot's module of schedules; it runs on TensorFlow only."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tensorflow-model-optimization needs TensorFlow")
    name = "tensorflow_model_optimization"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(name)
        return importlib.import_module(f"{name}.sparsity.keras")


RUN = Run(1, 150)


@pytest.mark.parametrize(("begin", "end", "frequency"), [(0, 100, 10), (40, 140, 25)])
@pytest.mark.parametrize("initial", [0.0, 0.3])
def test_tfmot_polynomial_decay(tfmot, begin, end, frequency, initial):
    """As it is and as our cubic: the same sparsity at every step, the same updates."""
    theirs = tfmot.PolynomialDecay(initial, 0.9, begin, end, frequency=frequency)
    adapted = schedules.get(theirs)
    ours = Polynomial(begin, end, frequency, initial, "steps")
    assert isinstance(adapted, schedules.TfmotSchedule)
    assert adapted.final == 0.9
    for step in range(RUN.length + 1):
        due = ours.due(step - 1, step, RUN)
        assert due == bool(theirs(step)[0])
        assert due == adapted.due(step - 1, step, RUN)
        if step >= begin:
            value = ours.value(step, 0.9, RUN)
            assert value == pytest.approx(float(theirs(step)[1]), abs=1e-6)
            assert adapted.value(step, 0.9, RUN) == pytest.approx(value, abs=1e-6)
        assert adapted.finished(step, RUN) == ours.finished(step, RUN)
    assert adapted.value(end, 0.9, RUN) == 0.9


@pytest.mark.parametrize("begin", [0, 30])
def test_tfmot_constant_sparsity(tfmot, begin):
    """The whole sparsity from the first update on: our `Once` at `begin`."""
    theirs = tfmot.ConstantSparsity(0.5, begin, frequency=20)
    adapted, ours = schedules.get(theirs), Once(begin, "steps")
    assert adapted.final == 0.5
    for step in range(RUN.length + 1):
        assert adapted.due(step - 1, step, RUN) == bool(theirs(step)[0])
        assert adapted.finished(step, RUN) == ours.finished(step, RUN)
        if step >= begin:
            assert adapted.value(step, 0.5, RUN) == ours.value(step, 0.5, RUN) == 0.5
    assert adapted.due(begin - 1, begin, RUN)


@pytest.mark.parametrize("jump", [1, 4, 7, 60])
def test_tfmot_updates_are_not_jumped_over(tfmot, jump):
    """Each tfmot update is seen in the span that holds it."""
    theirs = tfmot.PolynomialDecay(0.0, 0.9, 20, 120, frequency=10)
    adapted = schedules.get(theirs)
    for now in range(jump, RUN.length + 1, jump):
        steps = range(now - jump + 1, now + 1)
        expected = any(bool(theirs(step)[0]) for step in steps)
        assert adapted.due(now - jump, now, RUN) == expected


def test_tfmot_config_round_trip(tfmot):
    for theirs in (
        tfmot.PolynomialDecay(0.1, 0.9, 20, 120, power=2, frequency=10),
        tfmot.ConstantSparsity(0.5, 10, frequency=20),
    ):
        adapted = schedules.get(theirs)
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(adapted)))
        again = schedules.get(config)
        assert type(again.schedule) is type(theirs)
        assert again.schedule.get_config() == theirs.get_config()
        for step in range(0, RUN.length, 5):
            assert again.value(step, 0.9, RUN) == adapted.value(step, 0.9, RUN)


class PruningSchedule:
    """A schedule for tfmot that nobody registered; counts how often it is made."""

    made = 0

    def __init__(self, target_sparsity=0.5):
        type(self).made += 1

    def get_config(self):
        return {"config": {"target_sparsity": 0.5}}


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("subprocess", "getoutput", {"cmd": "touch {ran}"}),
        ("builtins", "exec", {"source": "open({ran!r}, 'w')"}),
        ("tensorflow_model_optimization.planted", "PolynomialDecay_", {}),
        ("tensorflow_model_optimization_planted", "PolynomialDecay", {}),
        ("planted", "PolynomialDecay", {}),
        (__name__, "PruningSchedule", {}),
        ("keras", "Sequential", {}),
        (None, None, {}),
    ],
)
def test_a_config_runs_no_program(module, name, arguments, tmp_path, monkeypatch):
    """It names a class of tfmot or a registered one; no module is imported for it."""
    ran = tmp_path / "ran"
    (tmp_path / "planted.py").write_text(f"open({str(ran)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    filled = {key: value.format(ran=str(ran)) for key, value in arguments.items()}
    inner = {"module": module, "class_name": name, "arguments": filled}
    if name == "Sequential":  # known to Keras, and no schedule
        inner["registered_name"] = "Sequential"
    config = keras.saving.serialize_keras_object(schedules.Once())
    config |= {
        "class_name": "TfmotSchedule",
        "registered_name": "keras_tickets.schedule>TfmotSchedule",
        "config": {"schedule": inner},
    }
    made = PruningSchedule.made
    with pytest.raises(ValueError, match=r"names .* of the module .* Expected one of"):
        schedules.get(json.loads(json.dumps(config)))
    assert not ran.exists()
    assert PruningSchedule.made == made


def test_what_cannot_be_read_back_is_refused():
    """A subclass of the user's own has to be registered before it is saved."""
    with pytest.raises(ValueError, match=r"'PruningSchedule'.*registered before"):
        schedules.get(PruningSchedule())
