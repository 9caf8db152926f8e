"""The places where a file can be timed, by the names that `kt.benchmark` takes.

A runner is a function of (path, runs, warmup, threads, progress) that returns a
`Timing`; it calls `progress` with the number of runs done so far.
"""

from __future__ import annotations

from collections.abc import Callable

from keras_tickets.mobile.runners import host
from keras_tickets.mobile.runners.timing import Timing

RUNNERS: dict[str, Callable[..., Timing]] = {"host": host.run}

__all__ = ["RUNNERS", "Timing"]
