"""Counts the instructions in QEMU's log of executed blocks.

QEMU translates a program block by block: instructions that run one after the other.
With `-d in_asm,exec,nochain` it logs the instructions of a block when it translates it,
and one line each time it executes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Executed:
    """What was executed between two marks.

    Args:
        instructions: How many instructions.
        blocks: How many blocks they were in; one that ran twice counts twice.
    """

    instructions: int
    blocks: int


def count(log: Iterable[bytes], begin: bytes, end: bytes) -> Executed:
    r"""Count what was executed between two marks.

    Args:
        log: The lines of the log, from the start of the program on. What follows the
            second mark is not read.
        begin: The line that is the first mark.
        end: The line that is the second.

    Returns:
        The instructions and blocks.

    Raises:
        ValueError: If the marks are missing, or it is no such log.

    Example:
    >>> block = [b"IN: \n", b"0x10:  d503201f  nop\n", b"Trace 0: 0x7f [1/10]\n"]
    >>> count([*block, b"(\n", block[-1], b")\n"], b"(\n", b")\n").instructions
    1
    """
    lines = iter(log)
    # A block is known by its whole line, which has the address of its translation.
    sizes: dict[bytes, int] = {}
    _follow(lines, sizes, begin)
    return _follow(lines, sizes, end)


def _follow(lines: Iterable[bytes], sizes: dict[bytes, int], mark: bytes) -> Executed:
    """Count up to a mark, and write down the size of each block that is new."""
    instructions = blocks = new = last = 0
    for line in lines:
        if line.startswith(b"Trace "):
            if new:
                # It runs as soon as it is translated.
                sizes[line], new = new, 0
            if line not in sizes:
                raise ValueError(f"QEMU ran a block before it logged it: {line!r}.")
            last = sizes[line]
            instructions += last
            blocks += 1
        elif line.startswith(b"0x"):
            new += 1
        elif line.startswith(b"IN:"):
            new = 0
        elif line.startswith(b"Stopped "):
            # The block that was just logged was left before its first instruction.
            instructions -= last
            blocks -= 1
        elif line == mark:
            return Executed(instructions, blocks)
    raise ValueError(f"QEMU's log ends before the mark {mark!r}.")
