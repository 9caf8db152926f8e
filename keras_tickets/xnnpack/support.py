"""Which weights LiteRT loads without their zeros, and computes rightly with.

By trial on LiteRT 2.3.0: some combinations do not load, others crash, or are wrong
without a word.
"""

from __future__ import annotations

from keras_tickets._util.file_tensor import FileTensor

# Outputs x inputs that the sparse kernels of dense layers read together.
DENSE_BLOCKS = {"float32": 4, "int8": 16}

FIX = "Export it with kt.export, which stores such weights with their zeros."

# What may read weights from DENSIFY, and which of its inputs they are.
READERS = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
    "GATHER": 0,
}


def refusal(op: str, dtype: str, integers: bool, in_blocks: bool) -> str:
    """Return why an operator must not read weights that are stored without zeros.

    Args:
        op: TFLite's name of the operator.
        dtype: The type of the weights.
        integers: Whether it computes with integers (`"int8"` files), or turns integer
            weights into floating-point numbers (`"int8-dynamic"`).
        in_blocks: Whether it reads blocks as they are; else `DENSIFY` unpacks them.

    Returns:
        The reason; empty if it may.

    Example:
    >>> refusal("FULLY_CONNECTED", "float32", integers=False, in_blocks=True)
    ''
    """
    if op not in READERS:
        return f"{op} was not tried with what DENSIFY puts out"
    if in_blocks:
        tried = dtype in DENSE_BLOCKS and (dtype != "int8" or integers)
        return "" if tried else f"LiteRT computes wrong numbers with {dtype} blocks"
    if op == "GATHER" and dtype != "float32":
        return f"LiteRT computes wrong numbers with a sparse {dtype} table"
    if dtype in ("float32", "float16"):
        return ""
    if dtype != "int8" or not integers:
        return (
            f"LiteRT loads no sparse {dtype} weights in files that compute in float32, "
            "or computes wrong numbers with them"
        )
    if op == "FULLY_CONNECTED":
        return "LiteRT loads a sparse int8 FULLY_CONNECTED only in blocks of 16 inputs"
    if op != "CONV_2D":
        return "LiteRT was seen to load sparse int8 kernels of CONV_2D only"
    return ""


def why_no_blocks(kernel: FileTensor, integers: bool) -> tuple[str, str]:
    """Return why a dense layer is not in LiteRT's sparse kernel, and what would help.

    Args:
        kernel: Its weights.
        integers: Whether it computes with integers.
    """
    size = DENSE_BLOCKS.get(kernel.dtype)
    if size is None or (kernel.dtype == "int8" and not integers):
        return (
            f"LiteRT has no sparse kernel for dense layers of {kernel.dtype} weights "
            "that computes in float32",
            'Export it in "float32" or "int8", with blocks along the inputs.',
        )
    if kernel.shape[1] % size:
        return (
            f"its {kernel.shape[1]} inputs are no multiple of {size}, the block that "
            f"LiteRT reads in {kernel.dtype}",
            f"Give it a multiple of {size} inputs.",
        )
    return (
        f"its weights are not stored in blocks of 1x{size}, which LiteRT's sparse "
        f"kernel for {kernel.dtype} reads",
        f'Prune dense layers with structure="block_1x{size}".',
    )
