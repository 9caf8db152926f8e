"""`diagnose`: will it run sparse on the phone? Of a file, or of a model beforehand."""

from __future__ import annotations

import os
from typing import Any

from keras_tickets.xnnpack.diagnosis import Diagnosis
from keras_tickets.xnnpack.source import diagnose_file


def diagnose(model_or_file: Any, target: str = "xnnpack") -> Diagnosis:
    if isinstance(model_or_file, str | os.PathLike):
        return diagnose_file(model_or_file, target)
    raise NotImplementedError
