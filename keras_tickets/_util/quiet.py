"""Keeps the converters' own chatter away from the user's terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

_CHATTY_LOGGERS = ("tensorflow", "tf2onnx", "absl")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences a converter: log lines, C++ lines on stderr, deprecations.

    What these say is about the converters' own code and no user can act on it;
    errors still arrive, as exceptions.
    """
    with _quiet_loggers(), _quiet_stderr(), warnings.catch_warnings():
        for category in (
            DeprecationWarning,
            PendingDeprecationWarning,
            FutureWarning,
        ):
            warnings.simplefilter("ignore", category)
        yield


@contextlib.contextmanager
def _quiet_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _CHATTY_LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Points file descriptor 2, where C++ writes, at a file that is thrown away."""
    sys.stderr.flush()
    try:
        before = os.dup(2)
    except OSError:  # The process runs without a stderr: nothing to silence.
        yield
        return
    try:
        with tempfile.TemporaryFile() as sink:
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
