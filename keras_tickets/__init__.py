"""Draw sparse tickets from Keras models, prove them, and ship them to a phone."""

from __future__ import annotations

import pkgutil
import sys
from typing import TYPE_CHECKING, Any

from keras_tickets._util.errors import (
    ConversionError,
    UnavailableError,
    VerificationError,
)
from keras_tickets._util.version import __version__ as __version__

if TYPE_CHECKING:
    from keras_tickets import mobile
    from keras_tickets.convert.comparison import Comparison
    from keras_tickets.convert.exporting import export
    from keras_tickets.convert.report import ExportReport
    from keras_tickets.mobile.benchmarking import BenchmarkReport, benchmark
    from keras_tickets.mobile.diagnosing import diagnose
    from keras_tickets.mobile.verifying import verify

# What writes and reads files is half of the package, and names no class that a saved
# ticket needs: it loads at first use.
AT_FIRST_USE = {
    "BenchmarkReport": "keras_tickets.mobile:BenchmarkReport",
    "Comparison": "keras_tickets.convert.comparison:Comparison",
    "ExportReport": "keras_tickets.convert.report:ExportReport",
    "benchmark": "keras_tickets.mobile:benchmark",
    "diagnose": "keras_tickets.mobile:diagnose",
    "export": "keras_tickets.convert.exporting:export",
    "mobile": "keras_tickets.mobile",
    "verify": "keras_tickets.mobile:verify",
}

__all__ = [
    "BenchmarkReport",
    "Comparison",
    "ConversionError",
    "ExportReport",
    "UnavailableError",
    "VerificationError",
    "benchmark",
    "diagnose",
    "export",
    "mobile",
    "verify",
]

# `keras.models.load_model` finds the classes of a saved ticket only if they were
# imported before: all but the command, which reads files only, do so now.
if not getattr(sys.modules.get("keras_tickets_command"), "running", False):
    from keras_tickets import public
    from keras_tickets.public import *  # noqa: F403

    __all__ += public.__all__


def __getattr__(name: str) -> Any:
    if old := sys.modules.get(f"{__name__}.{name}"):  # a path of `moved`
        return old
    if name not in AT_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return pkgutil.resolve_name(AT_FIRST_USE[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *AT_FIRST_USE})
