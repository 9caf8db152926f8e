"""Names, configs, classes and instances of every family of small objects."""

from __future__ import annotations

import inspect
import itertools
import json
import re
import sys
from types import SimpleNamespace

import keras
import pytest

import keras_tickets as kt
from keras_tickets import allocation, growth, pruners, schedules, scores, structure
from keras_tickets._util.registry import Configurable, Registry, plain, revive, spelling
from keras_tickets.recipe.groups import WeightGroups

pytestmark = [pytest.mark.backend_independent, pytest.mark.lowest]

FAMILIES = sorted(
    {
        id(value): value
        for name, module in list(sys.modules.items())
        if name.startswith(kt.__name__)
        for value in vars(module).values()
        if isinstance(value, Registry)
    }.values(),
    key=lambda registry: registry.family,
)
MEMBERS = [
    pytest.param(registry, cls, id=f"{registry.family}-{cls.__name__}")
    for registry in FAMILIES
    for cls in registry.members.values()
]
GETTERS = {
    "allocation": allocation.get,
    "growth": growth.get,
    "pruner": pruners.get,
    "schedule": schedules.get,
    "score": scores.get,
    "structure": structure.get,
}


@keras.saving.register_keras_serializable(package="tests")
class Rows(structure.Structure):
    """A structure of a user's own, never registered with the package."""

    def __init__(self, width: int = 1):
        self.width = width

    def on(self, kernel):
        return WeightGroups(kernel.view, kernel.shape, (1, self.width, 1))


@keras.saving.register_keras_serializable(package="tests")
class PruningSchedule:
    """Has the name and the methods of a schedule of tfmot."""

    def __init__(self, target_sparsity=0.9, begin_step=0, end_step=-1):
        self.arguments = {
            "target_sparsity": target_sparsity,
            "begin_step": begin_step,
            "end_step": end_step,
        }

    def get_config(self):
        return {"class_name": type(self).__name__, "config": self.arguments}

    def __call__(self, step):
        return step == self.arguments["begin_step"], self.arguments["target_sparsity"]


# For every argument of every member a value that is not its default.
VALUES = {
    "allocation": "er",
    "at": 0.25,
    "axis": "input",
    "batch_size": 3,
    "batch_statistics": True,
    "begin": 0.1,
    "channel_sum": True,
    "cool_regression": False,
    "cost": 0.5,
    "count": "floor",
    "data": [],
    "decay": schedules.Constant(),
    "distance": 0.2,
    "drop": "sign",
    "drop_fraction": 0.2,
    "end": 0.6,
    "every": 0.05,
    "form": "vgg",
    "fraction": 0.3,
    "growth": growth.Random(5),
    "initial": 0.2,
    "loss": "mse",
    "m": 5,
    "momentum": 0.5,
    "n": 3,
    "norm": "l1",
    "number": 3,
    "on_collapse": "warn",
    "optimizer": keras.optimizers.Adam(0.02),
    "penalty": 0.5,
    "power": 2,
    "rest": "erk",
    "revive": False,
    "rewind": "learning_rate",
    "rewind_to": 2,
    "rounds": 5,
    "scale_fan": True,
    "schedule": schedules.Once(at=0.5),
    "seed": 7,
    "size": 2,
    "sparsities": {"head": 0.5, "stem": 0.0},
    "sparsity": 0.7,
    "start": -3.0,
    "structure": Rows(2),
    "temperature": 3.0,
    "unit": "epochs",
    "until": 0.4,
    "update_at_start": True,
    "update_every": 20,
    "warmup": 2,
    "window": 3,
}
NOT_SAVED = {"data"}
SPECIAL = {
    ("TfmotSchedule", "schedule"): PruningSchedule(0.5, 30),
    ("Momentum", "decay"): 0.5,
    ("GemMiner", "initial"): "model",
    ("EdgePopup", "initial"): "model",
    ("ESPN", "rewind"): True,
    ("IMP", "unit"): "steps",
    ("Rounds", "unit"): "steps",
    **{("Kinds", kind): "block_4" for kind in ("dense", "pointwise", "others")},
    ("EarlyBird", "structure"): "channel",
    ("Fisher", "structure"): "channel",  # of which channel_sum is
    **{(name, "structure"): "unstructured" for name in ("Dynamic", "RigL", "SET")},
    ("GemMiner", "structure"): "unstructured",
    ("STR", "structure"): "unstructured",
}
# They leave no choice, GemMiner with `revive=False`: refused by name in test_structure,
# and those that drop by sign.
NO_CHOICE = {
    *((name, "structure") for name in ("Dynamic", "RigL", "SET")),
    ("EarlyBird", "structure"),
    ("GemMiner", "structure"),
    ("STR", "structure"),
}


def arguments_of(cls) -> dict:
    """Return a value for each argument of `cls`'s constructor."""
    names = inspect.signature(cls).parameters
    return {n: SPECIAL.get((cls.__name__, n), VALUES.get(n)) for n in names}


def required_of(cls) -> dict:
    """Return the arguments that `cls` cannot be made without."""
    parameters = inspect.signature(cls).parameters
    given = arguments_of(cls)
    return {n: given[n] for n, p in parameters.items() if p.default is p.empty}


# What pruners share that differ by a class attribute: not pruners of their own.
SHARED = {"OneShot", "WithData", "DynamicVariant"}


def test_every_family_is_found():
    assert [registry.family for registry in FAMILIES] == sorted(GETTERS)


@pytest.mark.parametrize("registry", FAMILIES, ids=lambda registry: registry.family)
def test_nothing_is_left_unregistered(registry):
    """Each class of the package that can be made has a name."""
    found, todo = set(), [registry.base]
    while todo:
        for cls in todo.pop().__subclasses__():
            todo.append(cls)
            ours = cls.__module__.startswith(f"{kt.__name__}.")
            if ours and not inspect.isabstract(cls) and cls.__name__ not in SHARED:
                found.add(cls)
    assert found == set(registry.members.values())


# -- configs -------------------------------------------------------------------


@pytest.mark.parametrize(("registry", "cls"), MEMBERS)
def test_config_covers_every_argument(registry, cls):
    """What the constructor takes is in the config, as given and not as defaulted."""
    given = arguments_of(cls)
    assert None not in given.values(), f"give VALUES a value for each of {given}"
    config = cls(**given).get_config()
    assert set(config) == set(given)
    default = cls(**required_of(cls)).get_config()
    fixed = {name for owner, name in NO_CHOICE if owner == cls.__name__}
    for name in set(given) - set(required_of(cls)) - NOT_SAVED - fixed:
        assert config[name] != default[name], name


@pytest.mark.parametrize(("registry", "cls"), MEMBERS)
def test_config_round_trip(registry, cls):
    """`from_config(get_config())` is the same object again, through JSON too."""
    member = cls(**arguments_of(cls))
    config = member.get_config()
    for again in (
        cls.from_config(config),
        cls.from_config(json.loads(json.dumps(config))),
    ):
        assert type(again) is cls
        assert again.get_config() == config
    assert member.get_config() == config


@pytest.mark.parametrize(("registry", "cls"), MEMBERS)
def test_keras_saves_and_loads(registry, cls):
    """A saved model revives its members without `custom_objects`."""
    member = cls(**arguments_of(cls))
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(member)))
    for again in (
        keras.saving.deserialize_keras_object(saved),
        GETTERS[registry.family](saved),
    ):
        assert type(again) is cls
        assert again.get_config() == member.get_config()


def test_saved_names_are_unique():
    """No two classes are saved under one name: the last one would answer for both."""
    names = [
        keras.saving.get_registered_name(cls)
        for registry in FAMILIES
        for cls in registry.members.values()
    ]
    assert [name for name in set(names) if names.count(name) > 1] == []


def test_nested_members_come_back_as_objects():
    rule = allocation.Explicit({"head": 0.5}, rest=allocation.ERK())
    config = rule.get_config()
    assert config["sparsities"] == {"head": 0.5}
    again = allocation.Explicit.from_config(config)
    assert isinstance(again.rest, allocation.ERK)

    class Holder(Configurable):
        def __init__(self, part):
            self.part = part

    again = Holder.from_config(Holder(Rows(3)).get_config())
    assert isinstance(again.part, Rows)
    assert again.part.width == 3
    assert plain(3) == 3
    assert revive({"head": 0.5}) == {"head": 0.5}


def test_repr_shows_the_arguments():
    assert repr(scores.Random(seed=3)) == "Random(seed=3)"
    assert repr(allocation.ERK()) == "ERK()"
    assert repr(Rows(2)) == "Rows(width=2)"


# -- get -----------------------------------------------------------------------


@pytest.mark.parametrize(("registry", "cls"), MEMBERS)
def test_get_by_any_spelling(registry, cls):
    """`"GradualMagnitude"`, `"gradual_magnitude"` and `"gradualmagnitude"`."""
    camel = cls.__name__
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", camel).lower()
    required = required_of(cls)
    for name in (camel, snake, camel.lower(), camel.upper()):
        assert type(registry.get(name, **required)) is cls


@pytest.mark.parametrize(("registry", "cls"), MEMBERS)
def test_get_by_class_and_instance(registry, cls):
    """A class is made with the arguments, an instance is passed through."""
    member = registry.get(cls, **arguments_of(cls))
    assert type(member) is cls
    assert member.get_config() == cls(**arguments_of(cls)).get_config()
    assert registry.get(member) is member


@pytest.mark.parametrize("family", sorted(GETTERS))
def test_module_get_is_the_familys(family):
    (registry,) = (r for r in FAMILIES if r.family == family)
    cls = next(c for c in registry.members.values() if not required_of(c))
    assert type(GETTERS[family](cls.__name__)) is cls


def test_get_passes_arguments_on():
    assert pruners.get("gradual_magnitude", sparsity=0.8).sparsity == 0.8
    assert pruners.get(kt.Random, seed=3).seed == 3
    assert scores.get("random", seed=5).seed == 5


def test_get_takes_classes_of_the_user():
    """A class that the package has not heard of: by class, instance or config."""
    assert type(structure.get(Rows)) is Rows
    assert structure.get(Rows(3)).width == 3
    saved = keras.saving.serialize_keras_object(Rows(4))
    assert structure.get(saved).width == 4
    pruner = kt.Magnitude(0.5, structure=Rows(5))
    again = pruners.get(keras.saving.serialize_keras_object(pruner))
    assert again.structure.width == 5


@pytest.mark.parametrize(
    ("family", "name", "meant"),
    [
        ("pruner", "gradual_magnitud", "GradualMagnitude"),
        ("pruner", "magnitde", "Magnitude"),
        ("schedule", "polinomial", "Polynomial"),
        ("allocation", "unifrom", "Uniform"),
        ("structure", "unstructred", "Unstructured"),
        ("score", "rndom", "Random"),
    ],
)
def test_unknown_name(family, name, meant):
    """The error names the family, all its members and the one that was meant."""
    with pytest.raises(ValueError, match=f"^{name!r} is not an? {family}") as caught:
        GETTERS[family](name)
    (registry,) = (r for r in FAMILIES if r.family == family)
    message = str(caught.value)
    assert message.endswith(f"Did you mean {meant!r}?")
    for cls in registry.members.values():
        assert repr(cls.__name__) in message
    assert f" {registry.base.__name__} or its config" in message


@pytest.mark.parametrize("family", sorted(GETTERS))
@pytest.mark.parametrize("wrong", ["zzz", 3, None, object, SimpleNamespace()], ids=repr)
def test_what_is_no_member(family, wrong):
    with pytest.raises(ValueError, match=f"is not an? {family}") as caught:
        GETTERS[family](wrong)
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize(("family", "other"), [*itertools.permutations(GETTERS, 2)])
def test_members_of_another_family(family, other):
    """A schedule is no allocation: not as an object, a class or a config."""
    (registry,) = (r for r in FAMILIES if r.family == other)
    for cls in registry.members.values():
        member = cls(**arguments_of(cls))
        for wrong in (member, cls, keras.saving.serialize_keras_object(member)):
            with pytest.raises(ValueError, match=f"is not an? {family}"):
                GETTERS[family](wrong)


# -- a family of one's own -----------------------------------------------------


class Fruit(Configurable):
    """A family of its own, so that the package's families stay as they are."""


def test_registry():
    """`register` gives a name; `adapt` is asked when nothing else answers."""

    class Pear(Fruit):
        def __init__(self, ripe: bool = False):
            self.ripe = ripe

    fruits = Registry("fruit", Fruit, adapt=lambda v: Pear(v) if v is True else None)
    assert fruits.register(Pear) is Pear
    assert fruits.members == {"pear": Pear}
    assert fruits.get("pear").ripe is False
    assert fruits.get("PEAR", ripe=True).ripe is True
    assert fruits.get(True).ripe is True
    with pytest.raises(ValueError, match="False is not a fruit"):
        fruits.get(False)
    assert repr(Pear(True)) == "Pear(ripe=True)"


@pytest.mark.parametrize("name", ["GradualMagnitude", "gradual_magnitude"])
def test_spelling(name):
    assert spelling(name) == "gradualmagnitude"
