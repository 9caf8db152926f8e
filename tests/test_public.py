"""The names that users have: none goes without a release that warns of it."""

from __future__ import annotations

import importlib

import keras
import pytest

import keras_tickets as kt
from keras_tickets._util.shown import Shown

NAMES = """
BenchmarkReport BestOnTarget Challenge Comparison ConversionError Cost ESPN EarlyBird
EdgePopup ExportReport Fisher GemMiner GraSP GradualMagnitude IMP LayerCollapseError
Magnitude Masked Random RigL SET SNFS SNIP STR ShrinkPlan Static SynFlow Ticket
UnavailableError VerificationError allocation benchmark challenge diagnose export flops
flow growth load_ticket mobile presets prunable pruners schedules scores shrink
shrink_plan strip structure summary verify wrap
"""
MOBILE = """
BenchmarkReport ComparisonTable Eligible InstructionCount PreparePlan SparseKernel
SparsePath benchmark compare diagnose eligible instructions prepare prepare_plan
sparse_path structure verify
"""
MODULES = {
    "allocation": """
        Allocation ER ERK Explicit Global Group Proportional SmartRatio Uniform budget
        get round_shares""",
    "flow": "Network NotLinearError rule",
    "growth": "Gradient Growth Momentum Random get magnitude registry",
    "presets": "ARCHITECTURES Architecture Preset get",
    "prunable": """
        Exclusion Kernel MatmulView ModelFilter Selection choose_kernels find_kernels
        matmul_view owners positions why_not""",
    "pruners": """
        Curve Dynamic ESPN EarlyBird EdgePopup Fisher GemMiner GraSP GradualMagnitude
        IMP LayerCollapseError Magnitude Pruner Random RigL SET SNFS SNIP STR Static
        SynFlow get""",
    "schedules": """
        Constant Cosine Exponential Freezing Once Polynomial Rounds Run Schedule
        TfmotSchedule UNITS get""",
    "scores": """
        Fisher GraSP Learned Magnitude Random SNIP Score Scored StaticScore SynFlow Task
        get""",
    "structure": "AXES Block Channel Kinds NM Structure Unstructured get",
}


def test_the_package_has_these_names():
    assert sorted(kt.__all__) == NAMES.split()


def test_the_phone_has_these_names():
    assert sorted(kt.mobile.__all__) == MOBILE.split()


def test_public_modules_have_these_names():
    for module, names in MODULES.items():
        missing = [n for n in names.split() if not hasattr(getattr(kt, module), n)]
        assert missing == [], module


def test_registered_names_are_those_of_the_released_version():
    """A saved ticket names its classes by them."""
    registries = {
        "allocation": kt.allocation.ERK,
        "growth": kt.growth.Gradient,
        "pruner": kt.RigL,
        "schedule": kt.schedules.Cosine,
        "score": kt.scores.SynFlow,
        "structure": kt.structure.NM,
    }
    for family, cls in registries.items():
        name = f"keras_tickets.{family}>{cls.__name__}"
        assert keras.saving.get_registered_name(cls) == name
    assert keras.saving.get_registered_name(kt.Ticket) == "keras_tickets>Ticket"
    assert keras.saving.get_registered_name(kt.Masked) == "keras_tickets>Masked"


@pytest.mark.parametrize("name", [n for n in kt.__all__ if n.endswith("Error")])
def test_errors_are_still_caught_as_what_they_were(name):
    kind = {"LayerCollapseError": ValueError}.get(name, RuntimeError)
    assert issubclass(getattr(kt, name), kind)


@pytest.mark.backend_independent
def test_every_report_shows_its_text():
    """At a prompt and in a notebook; a dataclass would show its fields."""
    for name in ("convert.report", "mobile.comparing", "mobile.preparing"):
        importlib.import_module(f"keras_tickets.{name}")
    names = {"Inspection", "Diagnosis", *(NAMES + MOBILE).split()}
    found = [cls for cls in Shown.__subclasses__() if cls.__name__ in names]
    assert len(found) == 11
    for cls in found:
        assert cls.__repr__ is Shown.__repr__
        assert cls.__str__ is not object.__str__
