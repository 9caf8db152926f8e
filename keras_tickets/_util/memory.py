"""A bound on memory while a file from anywhere is read."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

# Virtual memory of this process in pages; only Linux has it, and obeys the limit.
_STATM = pathlib.Path("/proc/self/statm")


@contextlib.contextmanager
def bounded_memory(share: float) -> Iterator[None]:
    """Lets a block take no more than a share of this machine's memory.

    A damaged file may claim tensors of any size. Without a bound the system would try,
    and then end some process, perhaps another one. Only Linux keeps the bound.

    Args:
        share: The share of the memory that the block may take.

    Raises:
        MemoryError: In the block, if it asks for more.

    Example:
    >>> import numpy as np
    >>> with bounded_memory(share=0.5):
    ...     int(np.zeros(1000).sum())
    0
    """
    if not _STATM.exists():
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(_STATM.read_text().split()[0])
    pages = now + int(share * os.sysconf("SC_PHYS_PAGES"))
    bounds = [pages * os.sysconf("SC_PAGE_SIZE"), *before]
    lowest = min(bound for bound in bounds if bound != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
