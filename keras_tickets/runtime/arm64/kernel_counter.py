"""Counts which nodes of a file run in a sparse kernel; runs on the emulated machine.

A program of its own, of LiteRT and `interpreters.py` and nothing else. XNNPACK
keeps the address of each sparse kernel in a structure, and LiteRT's library still names
its functions: so the address is replaced by a counter, which calls the kernel. TFLite
calls its own sparse kernels directly: there the first instructions of the function
become a jump to the counter. What is counted has run; nothing is concluded from the
file.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import mmap
import pathlib
import runpy
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

_LIBRARY = "libpywrap_litert_common.so"

# XNNPACK's structures: the address of the kernel, of a function that fills in its
# parameters, then how many values and how many outputs the kernel computes at a time.
_CONFIGS = {
    "f32": ("f32_spmm_config", "f32_spmm2_config", "f32_spmm4_config"),
    "f16": ("f16_spmm_config",),
}
_SPMM_ARGUMENTS = 9
_SPMM_WEIGHTS, _SPMM_OUTPUTS = 3, 1

# TFLite's kernels of FULLY_CONNECTED: how many arguments they take, and which is the
# number of outputs. All begin with the stored values and one or two tables of indices.
_DENSE_WEIGHTS = 0
_DENSE = {
    "NeonSparseMatrixBatchVectorMultiplyAccumulate1x4": ("f32 1x4", 8, 3),
    "NeonSparseMatrixBatchVectorMultiplyAccumulate1x16": ("int8 1x16", 17, 3),
    "NeonSparseMatrixBatchVectorMultiplyAccumulate": ("int8-dynamic 1x16", 9, 2),
}

# ldr x16, #8; br x16; and the address that is jumped to.
_JUMP = struct.Struct("<IIQ")


@dataclasses.dataclass
class Kernel:
    """One sparse kernel, and the weights that it was called with.

    Args:
        name: The type of the weights, and how much is computed together.
        nodes: Address of the weights -> their number of outputs.
        calls: How often it ran.
    """

    name: str
    nodes: dict[int, int] = dataclasses.field(default_factory=dict)
    calls: int = 0

    def count(self, weights: int, outputs: int) -> None:
        """Count one call."""
        self.calls += 1
        self.nodes.setdefault(weights, outputs)

    def counted(self) -> dict[str, Any]:
        """Return what was counted, ready for JSON."""
        return {
            "kernel": self.name,
            "outputs": [*self.nodes.values()],
            "calls": self.calls,
        }


def symbols(content: bytes) -> dict[str, int]:
    """Read the names that a library was linked with, local ones included.

    Args:
        content: The bytes of a 64-bit, little-endian ELF file.

    Returns:
        Name -> address relative to where the library is loaded; empty if it was
        stripped.

    Raises:
        ValueError: If the bytes are no such file.
    """
    if content[:6] != b"\x7fELF\x02\x01":
        raise ValueError("This is no 64-bit, little-endian ELF file.")
    start, size, count = (
        *struct.unpack_from("<Q", content, 0x28),
        *struct.unpack_from("<HH", content, 0x3A),
    )
    # Of each section: name, type, flags, address, offset, size, link, ...
    headers = [
        struct.unpack_from("<IIQQQQI", content, start + index * size)
        for index in range(count)
    ]
    found = {}
    for _, kind, _, _, offset, length, link in headers:
        if kind != 2:  # SHT_SYMTAB
            continue
        names = headers[link][4]
        for at in range(offset, offset + length, 24):
            name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", content, at)
            end = content.index(b"\0", names + name)
            found[content[names + name : end].decode()] = value
    return found


class Library:
    """LiteRT's library, loaded in this process.

    Args:
        path: Its file.

    Raises:
        RuntimeError: If it is not loaded.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._symbols = symbols(path.read_bytes())
        self._base = _base(path.name)

    def address(self, part: str) -> int:
        """Return where the function is whose name is, or contains, `part`."""
        exact = self._symbols.get(part)
        found = [at for name, at in self._symbols.items() if part in name]
        if exact is None and len(found) != 1:
            raise RuntimeError(
                f"This LiteRT has {len(found)} functions named '{part}', where the "
                "probe expects one; it was written for LiteRT 2.3.0."
            )
        return self._base + (found[0] if exact is None else exact)


def _base(library: str) -> int:
    """Return where a library was loaded."""
    for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(library):
            return int(line.split("-")[0], 16)
    raise RuntimeError(f"LiteRT was loaded without its {library}.")


def _count_spmm(library: Library) -> Iterator[Kernel]:
    """Put a counter before each of XNNPACK's sparse kernels."""
    for kind, configs in _CONFIGS.items():
        for name in configs:
            config = _call(library.address(f"xnn_init_{name}"))
            if config:  # Else it is no processor for this kernel.
                yield _count_config(kind, name, config)


def _call(address: int) -> int | None:
    """Call a function without arguments that returns an address."""
    found: int | None = ctypes.CFUNCTYPE(ctypes.c_void_p)(address)()
    return found


def _count_config(kind: str, name: str, config: int) -> Kernel:
    """Replace the address of the kernel in one of XNNPACK's structures."""
    rows, columns = ctypes.string_at(config + 16, 2)
    if rows not in (16, 32) or columns not in (1, 2, 4):
        raise RuntimeError(
            f"XNNPACK's {name} is laid out in another way than in LiteRT 2.3.0."
        )
    kernel = Kernel(f"{kind} {rows}x{columns}")
    slot = ctypes.c_void_p.from_address(config)
    original = _function(slot.value, _SPMM_ARGUMENTS)
    slot.value = _counter(
        kernel, _SPMM_WEIGHTS, _SPMM_OUTPUTS, original, _SPMM_ARGUMENTS
    )
    return kernel


def _count_dense(library: Library) -> Iterator[Kernel]:
    """Put a counter before each of TFLite's sparse kernels of FULLY_CONNECTED."""
    for name, (label, arguments, outputs) in _DENSE.items():
        kernel = Kernel(label)
        # In a mangled name the length stands before the name, and an E behind it.
        address = library.address(f"{len(name)}{name}E")
        _jump_first(kernel, address, arguments, outputs)
        yield kernel


def _jump_first(kernel: Kernel, address: int, arguments: int, outputs: int) -> None:
    """Make a function begin with a jump to a counter of its calls."""
    _make_writable(address, _JUMP.size)
    before = ctypes.string_at(address, _JUMP.size)
    function = _function(address, arguments)

    def original(*values: int) -> None:
        # Emulation sees at once that instructions changed; a real processor would
        # have to be told.
        ctypes.memmove(address, before, _JUMP.size)
        function(*values)
        ctypes.memmove(address, jump, _JUMP.size)

    target = _counter(kernel, _DENSE_WEIGHTS, outputs, original, arguments)
    jump = _JUMP.pack(0x58000050, 0xD61F0200, target)
    ctypes.memmove(address, jump, _JUMP.size)


def _make_writable(address: int, size: int) -> None:
    page = mmap.PAGESIZE
    start = address // page * page
    length = -(-(address + size - start) // page) * page
    libc = ctypes.CDLL(None, use_errno=True)
    allowed = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(length), allowed):
        raise OSError(ctypes.get_errno(), "The library's code cannot be changed.")


# Arguments are handed on as they came: all go in general registers or on the stack, in
# eight bytes each, whatever their type.
def _prototype(arguments: int) -> Any:
    return ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * arguments)


def _function(address: int | None, arguments: int) -> Any:
    return _prototype(arguments)(address)


# ctypes forgets a function as soon as Python does.
_kept: list[Any] = []


def _counter(
    kernel: Kernel,
    weights: int,
    outputs: int,
    original: Callable[..., None],
    arguments: int,
) -> int | None:
    """Return where a C function is that counts a call and then calls the kernel."""

    def call(*values: int) -> None:
        # The upper half of an int is not defined.
        kernel.count(values[weights], values[outputs] & 0xFFFFFFFF)
        original(*values)

    counter = _prototype(arguments)(call)
    _kept.append(counter)
    return ctypes.cast(counter, ctypes.c_void_p).value


def main(ready: Callable[[str], Any], path: str) -> None:
    """Count while a file runs once, and print what was counted as JSON.

    Args:
        ready: Loads a file, on one thread: the counters are Python, and each node is to
            be one call or more.
        path: A `.tflite` file.
    """
    import ai_edge_litert.interpreter

    library = Library(pathlib.Path(ai_edge_litert.__file__).parent / _LIBRARY)
    kernels = {
        "convolution": [*_count_spmm(library)],
        "dense": [*_count_dense(library)],
    }
    ready(path).invoke()
    counted = {kind: [k.counted() for k in found] for kind, found in kernels.items()}
    _say(**counted)


def _say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _, shared, file = sys.argv
    runtimes = runpy.run_path(shared)
    # Exit when the parent closes stdin.
    questions = runtimes["listen"]()
    try:
        main(runtimes["ready"], file)
    except Exception as error:
        _say(error=f"{type(error).__name__}: {error}")
    next(questions)
