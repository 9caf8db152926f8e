"""`instructions`: how many ARM64 instructions one run of a file executes."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from keras_tickets._util.files import check_source
from keras_tickets._util.process import Conversation, converse
from keras_tickets._util.shown import Shown
from keras_tickets._util.tables import facts
from keras_tickets.runtime import fixed_copy, sizes
from keras_tickets.runtime.arm64 import block_log, instruction_counter
from keras_tickets.runtime.arm64.emulated_target import Arm64, program
from keras_tickets.runtime.formats import SUFFIXES

# Within a reserved range the emulator puts everything at the same addresses each time,
# whatever the machine does; so LiteRT's are known before the run that is logged.
_REPEATABLE = ("-R", "16G", "-seed", "0")


@dataclasses.dataclass(frozen=True, repr=False)
class InstructionCount(Shown):
    """The ARM64 instructions of one run of a file. Prints as a table.

    It is work, and not a time: instructions differ in what they cost, and waiting for
    memory executes none.

    Args:
        path: The file.
        instructions: How many LiteRT executed.
        blocks: How many straight pieces of code they were in.
        runtime: LiteRT and its version.
        device: The emulated processor, and the emulator.
        assumed: The sizes of inputs that the file leaves open, and who chose them.
    """

    path: str
    instructions: int
    blocks: int
    runtime: str
    device: str
    assumed: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for `json.dumps`."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Return the table."""
        rows = [
            ("file", self.path),
            ("instructions", f"{self.instructions:,}"),
            ("in blocks", f"{self.blocks:,}"),
            ("runtime", f"{self.runtime}, threads: 1"),
            ("device", self.device),
            *([("sizes", self.assumed)] if self.assumed else []),
        ]
        return facts("Executed instructions on emulated ARM64; not a time", rows)


def instructions(
    path: str | os.PathLike[str],
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> InstructionCount:
    """Count the instructions that one run of a file executes on ARM64.

    For comparing files where there is no phone: the count is exact and the same each
    time, while emulated seconds are neither. It is that of LiteRT's own code in one
    thread, after one run to warm up; what it has the C library do (copy and clear
    memory) and Python are not counted. Fewer instructions are no promise of less time:
    where a network waits for its weights, a smaller file gains more than this says.

    Args:
        path: A `.tflite` file.
        input_shapes: The shapes of its inputs by their names, for a file that leaves
            sizes open; see `benchmark`.

    Returns:
        The count, with runtime and device. It takes some seconds for a small network,
        half a minute for a MobileNet of 96 x 96.

    Raises:
        ValueError: If the suffix is another one, or the file has no such input shapes.
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a folder.
        RuntimeError: If the emulated machine was not built, or cannot run the file.

    Example:

    ```python
    kt.export(ticket, "model.tflite")
    print(kt.mobile.instructions("model.tflite"))
    ```
    """
    file = check_source(path, {".tflite": SUFFIXES[".tflite"]})
    runner = Arm64()
    runner.check(file)
    if input_shapes:
        sizes.choose(file, input_shapes)
    try:
        with fixed_copy.fixed(file, input_shapes) as (stored, told):
            executed = _count(runner, stored)
    except (RuntimeError, ValueError) as error:
        raise RuntimeError(
            f"The instructions of '{file}' on emulated ARM64 cannot be counted. {error}"
        ) from error
    return InstructionCount(
        str(path),
        executed.instructions,
        executed.blocks,
        runner.version("ai-edge-litert"),
        runner.device(),
        told,
    )


def _count(runner: Arm64, file: pathlib.Path) -> block_log.Executed:
    """Run a file in the emulated machine, and count in its log meanwhile."""
    with _program(runner, file) as program:
        code = program.answer("loaded")
    reading, writing = os.pipe()
    with ThreadPoolExecutor(1) as pool:
        counted = pool.submit(_read, reading)
        try:
            with _program(runner, file, code, writing) as program:
                if program.answer("loaded") != code:
                    raise RuntimeError("LiteRT's library was not loaded where before.")
                program.answer("run to warm up")
                program.answer("run")
        finally:
            # The last one open: what reads the log comes to its end.
            os.close(writing)
    return counted.result()


def _program(
    runner: Arm64,
    file: pathlib.Path,
    code: dict[str, int] | None = None,
    log: int = -1,
) -> AbstractContextManager[Conversation]:
    """Start the program that runs the file; with `code`, what it executes is logged.

    Args:
        runner: The emulated machine.
        file: What is run.
        code: Where the code begins and ends whose blocks are logged.
        log: The open file to log to.
    """
    options = [*_REPEATABLE]
    if code:
        within = f"{code['start']:#x}..{code['end'] - 1:#x}"
        options += ["-d", "in_asm,exec,nochain", "-dfilter", within]
        options += ["-D", f"/dev/fd/{log}"]
    command = [*runner.command(*options), *program(instruction_counter.__file__, file)]
    return converse(
        [*command, str(log)],
        {**runner.environment(), "PYTHONHASHSEED": "0"},
        runner.timeout,
        handed=[log] if code else [],
    )


def _read(log: int) -> block_log.Executed:
    # When nobody reads any more, nobody waits to write either.
    with open(log, "rb") as lines:
        return block_log.count(
            lines, instruction_counter.BEGIN, instruction_counter.END
        )
