"""Runs a file between two marks in the emulator's log; runs on the emulated machine.

A program of its own, of NumPy and LiteRT and nothing else. It says where LiteRT's code
is, then runs the file twice: to warm up, and between the marks.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any

import numpy as np

# All of LiteRT's computation; what Python calls it through is another library.
LIBRARY = "libpywrap_litert_common.so"

BEGIN, END = b"begin of the counted run\n", b"end of the counted run\n"


def code(maps: str) -> tuple[int, int]:
    """Finds the code of LiteRT's library.

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


def main(path: str, log: int) -> None:
    """Runs a file twice; the second time counts.

    Args:
        path: A `.tflite` file.
        log: The open file that the emulator writes its log to.
    """
    from ai_edge_litert.interpreter import Interpreter

    start, end = code(pathlib.Path("/proc/self/maps").read_text())
    _say(start=start, end=end)
    # One thread: each block is logged by the thread that writes the marks.
    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        # TFLite skips an int8-dynamic layer whose input is all zeros. Of whole numbers
        # no others are valid in any input.
        shape, dtype = detail["shape"], detail["dtype"]
        is_float = np.issubdtype(dtype, np.floating)
        values = rng.random(shape) if is_float else np.zeros(shape)
        interpreter.set_tensor(detail["index"], values.astype(dtype))
    interpreter.invoke()
    _say(warm=True)
    os.write(log, BEGIN)
    interpreter.invoke()
    os.write(log, END)
    _say(done=True)


def _say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]))
    except Exception as error:
        _say(error=f"{type(error).__name__}: {error}")
