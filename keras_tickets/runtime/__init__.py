"""The targets that a file can run on, by the names that `on=` takes.

A new target is a `target.Runner` in a module of its own and a line in `RUNNERS`.
"""

from __future__ import annotations

from keras_tickets.runtime.android.phone_target import Android
from keras_tickets.runtime.arm64.emulated_target import Arm64
from keras_tickets.runtime.host import Host
from keras_tickets.runtime.target import Runner, Runs, Timing
from keras_tickets.runtime.wasm import Wasm

RUNNERS: dict[str, Runner] = {
    runner.name: runner for runner in (Host(), Wasm(), Arm64(), Android())
}


def get(name: str) -> Runner:
    """Find a runner.

    Args:
        name: What the user passed as `on=`.

    Returns:
        The runner.

    Raises:
        ValueError: If there is none of this name.

    Example:
    >>> get("host").suffixes
    ('.tflite', '.onnx')
    """
    if name not in RUNNERS:
        available = ", ".join(repr(known) for known in RUNNERS)
        raise ValueError(f"Unknown target: on={name!r}. Available: {available}.")
    return RUNNERS[name]


__all__ = ["RUNNERS", "Runner", "Runs", "Timing", "get"]
