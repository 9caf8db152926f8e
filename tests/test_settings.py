"""Every argument of every public object: what cannot be is refused, by its name."""

from __future__ import annotations

import inspect
import itertools
import json
import math

import keras
import numpy as np
import pytest
from test_registry import MEMBERS, PruningSchedule

import keras_tickets as kt
from keras_tickets import pruners

pytestmark = pytest.mark.backend_independent

# What a constructor needs before it looks at anything else.
NEEDED = {
    "Explicit": {"sparsities": {"a": 0.5}},
    "TfmotSchedule": {"schedule": PruningSchedule(0.9)},
    "growth-Random": {"seed": 0},
    "score-Random": {"seed": 0},
    "Dynamic": {"sparsity": 0.5, "growth": "random"},
    "Pruner": {"sparsity": 0.5, "score": "magnitude"},
}
NO_NUMBERS = ["x", "0.5", math.nan, math.inf, -math.inf, True, np.True_, [1], 1j]
BAD = {
    "float": NO_NUMBERS,
    "int": [*NO_NUMBERS, 1.5, -1],
    "bool": ["yes", 1, 0.0, None],
    "str": ["nonsense", 3, None, ["raise"]],
    "Mapping[str, float]": [3, "x", {"a": "x"}, {"a": 1.5}, {"(": 0.5}, {3: 0.5}],
}
# Where an argument takes many kinds of objects.
NO_OBJECTS = ["nonsense", 3, object()]
ANY = dict.fromkeys(
    (
        *("allocation", "rest", "structure", "dense", "pointwise", "others"),
        *("schedule", "decay", "growth", "optimizer", "score", "loss"),
    ),
    NO_OBJECTS,
)
FREE = {"data"}  # looked at when it is used, by the model that it must fit
OF_ANOTHER = {("TfmotSchedule", "schedule")}  # tfmot's object, tested with schedules


def listed():
    classes = [(f"{r.values[0].family}-", r.values[1]) for r in MEMBERS]
    for prefix, cls in [*classes, ("", pruners.Pruner)]:
        needed = NEEDED.get(prefix + cls.__name__, NEEDED.get(cls.__name__, {}))
        yield pytest.param(cls, needed, id=prefix + cls.__name__)


def kinds(parameter):
    return [part.strip() for part in str(parameter.annotation).split("|")]


def wrong_values(cls, parameter):
    """Return what an argument must refuse, by its annotation."""
    names = kinds(parameter)
    if parameter.name in FREE or (cls.__name__, parameter.name) in OF_ANOTHER:
        return []
    if "Any" in names:
        return ANY[parameter.name]
    values = itertools.chain.from_iterable(BAD[name] for name in names if name in BAD)
    return [v for v in values if not (v is None and "None" in names)]


@pytest.mark.parametrize(("cls", "needed"), [*listed()])
def test_what_cannot_be_is_refused_by_name(cls, needed):
    for parameter in inspect.signature(cls).parameters.values():
        for value in wrong_values(cls, parameter):
            with pytest.raises((ValueError, TypeError)) as caught:
                cls(**{**needed, parameter.name: value})
            told, where = str(caught.value), caught.traceback[-1].path
            if "Any" in kinds(parameter):  # Keras says so of its own objects
                assert str(value) in told, f"{parameter.name}={value!r}: {told}"
            else:
                assert "Received" in told
                assert parameter.name in told, f"{parameter.name}={value!r}: {told}"
                assert "keras_tickets" in str(where), f"a raw error: {told}"


@pytest.mark.parametrize(("cls", "needed"), [*listed()])
def test_numbers_of_numpy_are_numbers(cls, needed):
    plain = cls(**needed)
    for name in inspect.signature(cls).parameters:
        value = getattr(plain, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        for scalar in (np.float64, np.float32, np.int64):
            if scalar(value).item() == value:
                made = cls(**{**needed, name: scalar(value)})
                assert getattr(made, name) == value
                json.dumps(keras.saving.serialize_keras_object(made))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kt.Magnitude("0.9"), r"sparsity is the .*'0.9', a str\. For 90 %"),
        (lambda: kt.Random(0.5, seed=1.5), r"seed must be a whole number.*1\.5"),
        (lambda: kt.RigL(0.5, seed=-1), r"seed must not be negative"),
        (lambda: kt.SNIP(0.5, loss="nonsense"), r"nonsense"),
        (lambda: kt.SNIP(0.5, batch_size=0), r"batch_size .*at least 1"),
        (lambda: kt.STR(0.5, penalty=-1.0), r"penalty must not be negative.*-1\.0"),
        (lambda: kt.ESPN(0.5, warmup=-1), r"warmup must not be negative"),
        (lambda: kt.presets.get("resnet20"), r"one of \[0\.9941, 0\.9856"),
        (lambda: kt.presets.get("resnet20", "0.98"), r"sparsity .*'0\.98', a str"),
        (lambda: kt.presets.get(None, 0.98), r"no preset for None"),
    ],
)
def test_what_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_presets_are_spelled_as_names_are():
    assert kt.presets.get("ResNet20", 0.9856) is kt.presets.get("resnet20", 0.9856)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: kt.benchmark(keras.Sequential()), r"of type Sequential.*kt\.exp"),
        (lambda path: kt.mobile.compare([keras.Sequential()]), r"of type Sequential"),
        (lambda path: kt.mobile.compare(3), r"files of type int"),
        (
            lambda path: kt.mobile.compare({"a": path}, accuracy=(1, 2)),
            r"numbers by the names in `files`.*\(1, 2\).*model\.evaluate",
        ),
        (
            lambda path: kt.mobile.compare({"a": path}, accuracy={"a": "high"}),
            r"Received: \{'a': 'high'\}",
        ),
    ],
)
def test_files_and_what_is_known_of_them(call, message, tmp_path):
    path = tmp_path / "a.tflite"
    path.write_bytes(b"")
    with pytest.raises(TypeError, match=message):
        call(path)
