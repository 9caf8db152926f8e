"""Runs a file between two marks in the emulator's log; runs on the emulated machine.

A program of its own, of LiteRT and `interpreters.py` and nothing else. It says
where LiteRT's code is, then runs the file twice: to warm up, and between the marks.
"""

from __future__ import annotations

import json
import os
import pathlib
import runpy
import sys
from collections.abc import Callable
from typing import Any

# All of LiteRT's computation; what Python calls it through is another library.
LIBRARY = "libpywrap_litert_common.so"

BEGIN, END = b"begin of the counted run\n", b"end of the counted run\n"


def code(maps: str) -> tuple[int, int]:
    """Find the code of LiteRT's library.

    Args:
        maps: The text of `/proc/self/maps`.

    Returns:
        Where it begins, and where it ends.

    Raises:
        RuntimeError: If the library is not loaded.

    Example:
    >>> hex(code(f"7f00-8000 r-xp 0 0 0 /site/{LIBRARY}")[0])
    '0x7f00'
    """
    for line in maps.splitlines():
        where, rights, *_ = line.split()
        if line.endswith(LIBRARY) and "x" in rights:
            start, end = where.split("-")
            return int(start, 16), int(end, 16)
    raise RuntimeError(f"LiteRT was loaded without its {LIBRARY}.")


def main(ready: Callable[[str], Any], path: str, log: int) -> None:
    """Run a file twice; the second time counts.

    Args:
        ready: Loads a file, on one thread: each block is logged by the thread that
            writes the marks.
        path: A `.tflite` file.
        log: The open file that the emulator writes its log to.
    """
    import ai_edge_litert.interpreter  # noqa: F401 (its library is looked for)

    start, end = code(pathlib.Path("/proc/self/maps").read_text())
    _say(start=start, end=end)
    interpreter = ready(path)
    interpreter.invoke()
    _say(warm=True)
    os.write(log, BEGIN)
    interpreter.invoke()
    os.write(log, END)
    _say(done=True)


def _say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _, shared, file, number = sys.argv
    runtimes = runpy.run_path(shared)
    # Exit when the parent closes stdin.
    questions = runtimes["listen"]()
    try:
        main(runtimes["ready"], file, int(number))
    except Exception as error:
        _say(error=f"{type(error).__name__}: {error}")
    next(questions)
