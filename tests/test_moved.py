"""Old module paths import for one release, and say where their names are now."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import keras
import pytest

import keras_tickets as kt
from keras_tickets.moved import MOVED

pytestmark = pytest.mark.backend_independent

# What users of version 0.1.0 may have imported: classes and functions of the API by the
# module that defined them.
IMPORTED = {
    "accounting": "Cost flops",
    "allocation": "ERK Global get",
    "convert.comparison": "Comparison",
    "convert.pipeline": "export",
    "convert.report": "ExportReport",
    "companion": "Companion",
    "granules": "Granules",
    "growth": "Momentum get",
    "masked": "Masked masked_layers",
    "mobile.benchmark": "benchmark BenchmarkReport",
    "mobile.compare": "compare",
    "mobile.comparison_table": "ComparisonTable",
    "mobile.diagnose": "diagnose",
    "mobile.eligible": "eligible Eligible structure",
    "mobile.instructions": "instructions InstructionCount",
    "mobile.prepare": "prepare prepare_plan PreparePlan",
    "mobile.probe": "sparse_path SparsePath",
    "mobile.runners": "RUNNERS Runner Runs Timing get",
    "mobile.verify": "verify",
    "presets": "get Preset",
    "prunable": "find_kernels Kernel",
    "pruners.early_bird": "EarlyBird",
    "pruners.gem_miner": "GemMiner",
    "pruners.magnitude": "Magnitude GradualMagnitude",
    "pruners.random": "Random Static",
    "pruners.rigl": "RigL",
    "pruners.set": "SET",
    "pruners.snfs": "SNFS",
    "pruners.snip": "SNIP",
    "report": "summary",
    "sanity": "challenge Challenge",
    "schedules": "Cosine Polynomial get",
    "shrink": "shrink shrink_plan ShrinkPlan",
    "split": "Split",
    "strip": "strip",
    "structure": "NM Block get",
    "ticket": "Ticket wrap",
    "ticket_file": "load_ticket save_ticket",
    "xnnpack.diagnosis": "Diagnosis",
}


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_leads_to_modules_that_are_there(old):
    module = importlib.import_module(f"keras_tickets.{old}")
    assert module.__name__ == f"keras_tickets.{old}"
    for new in MOVED[old]:
        importlib.import_module(f"keras_tickets.{new}")


@pytest.mark.parametrize(("old", "names"), IMPORTED.items(), ids=list(IMPORTED))
def test_what_was_imported_still_is_with_a_warning(old, names):
    module = importlib.import_module(f"keras_tickets.{old}")
    for name in names.split():
        if name in vars(module):  # where it was, it is
            continue
        with pytest.warns(FutureWarning, match=r"has moved: import '\w+' from"):
            found = getattr(module, name)
        if old.startswith("mobile."):
            assert found is getattr(kt.mobile, name, found)
        else:
            assert found is getattr(kt, name, found)


@pytest.mark.slow
def test_functions_keep_their_names_beside_old_modules():
    """`kt.strip` was the module `keras_tickets.strip`, too."""
    code = (
        "import keras_tickets.strip, keras_tickets.shrink\n"
        "import keras_tickets.mobile.verify\n"
        "import keras_tickets as kt\n"
        "assert all(map(callable, (kt.strip, kt.shrink, kt.mobile.verify)))"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_warning_names_the_line_of_the_user():
    with pytest.warns(FutureWarning, match=r"keras_tickets\.accounting") as caught:
        from keras_tickets.accounting import flops
    assert caught[0].filename == __file__
    assert flops is kt.flops
    text = str(caught[0].message)
    place = re.search(r"from (keras_tickets[.\w]+)\.", text)[1]
    assert vars(sys.modules[place])["flops"] is kt.flops


def test_what_never_was_is_an_error():
    with pytest.raises(ImportError, match="sohw"):
        from keras_tickets.masking import sohw  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=r"keras_tickets\.sohw"):
        importlib.import_module("keras_tickets.sohw")


def test_a_config_names_a_class_by_its_old_path():
    config = keras.saving.serialize_keras_object(kt.RigL(0.9))
    config["module"] = "keras_tickets.pruners.rigl"
    assert isinstance(kt.pruners.get(config), kt.RigL)
