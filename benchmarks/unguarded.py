"""Exports without the guard, to show what it is for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from keras_tickets.convert import tflite_encoding


@contextlib.contextmanager
def unguarded(ways: Callable[..., Any] | None = None) -> Iterator[None]:
    """Within the block weights are stored without zeros also where that does harm.

    Args:
        ways: In place of the encoder's `safe_encodings`, which bars what the runtime is
            known not to load; by default that stays.
    """
    guards: dict[str, Any] = {"why_dense": lambda file: ""}
    if ways is not None:
        guards["safe_encodings"] = ways
    with mock.patch.multiple(tflite_encoding, **guards):
        yield
