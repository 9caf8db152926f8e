"""One converter at a time in this process, without its log lines and deprecations."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

_CHATTY_LOGGERS = ("tensorflow", "tf2onnx", "absl")

# Levels, filters and TensorFlow's switches belong to the whole process. Two threads
# that change and restore them at once would leave each other's values behind.
_LOCK = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Run a converter in this process, alone and without its log lines.

    What these say is about the converters' own code and no user can act on it; errors
    still arrive, as exceptions. stderr is left alone, since other threads write there,
    too: what C++ writes is seen unless the environment sets TF_CPP_MIN_LOG_LEVEL.
    """
    with _LOCK, _quiet_loggers(), warnings.catch_warnings():
        for category in (
            DeprecationWarning,
            PendingDeprecationWarning,
            FutureWarning,
        ):
            warnings.simplefilter("ignore", category)
        yield


@contextlib.contextmanager
def _quiet_loggers() -> Iterator[None]:
    before = [
        (logger, logger.level) for logger in map(logging.getLogger, _CHATTY_LOGGERS)
    ]
    try:
        for logger, _ in before:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)
