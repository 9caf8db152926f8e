"""TFLite's flatbuffer schema: bytes to Python objects and back.

`ai_edge_litert` generates the classes from the schema, so that everything in a file
which is not looked at here is carried over as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_tickets._util.extras import require

_MAGIC = b"TFL3"

# Custom by the schema, and yet carried by every build of LiteRT: some are its own, some
# XNNPACK's.
_CARRIED = frozenset(
    {
        *("AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess"),
        *("Convolution2DTransposeBias", "MaxPoolingWithArgmax2D", "MaxUnpooling2D"),
    }
)


def schema() -> Any:
    """Return the generated module."""
    return require("ai_edge_litert.schema_py_generated", "export")


def unpack(content: bytes) -> Any:
    """Return the bytes of a file as a `ModelT`; raise ValueError if they are none."""
    if content[4:8] != _MAGIC:
        raise ValueError(
            f"Not a .tflite file: expected {_MAGIC!r} at bytes 4 to 8, "
            f"found {content[4:8]!r} (the file has {len(content)} bytes)."
        )
    return schema().ModelT.InitFromPackedBuf(content, 0)


def pack(model: Any, size: int) -> bytes:
    """Return a `ModelT` as the bytes of a file, of about `size` bytes."""
    flatbuffers = require("flatbuffers", "export")
    classes = schema()

    class AlignedBuffer(classes.BufferT):  # type: ignore[name-defined]
        """The generated packer forgets the 16 byte alignment that kernels expect."""

        def Pack(self, builder: Any) -> Any:  # noqa: N802 (the schema's name)
            if self.data is None or not len(self.data):
                return super().Pack(builder)
            data = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(data), 16)
            builder.head = builder.Head() - len(data)
            builder.Bytes[builder.Head() : builder.Head() + len(data)] = data
            vector = builder.EndVector()
            classes.BufferStart(builder)
            classes.BufferAddData(builder, vector)
            return classes.BufferEnd(builder)

    for buffer in model.buffers:
        buffer.__class__ = AlignedBuffer

    class SharingBuilder(flatbuffers.Builder):  # type: ignore[name-defined]
        """Writes equal vectors once: scales and zero points recur in int8 files."""

        def __init__(self, size: int) -> None:
            super().__init__(size)
            self.written: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, x: Any) -> int:  # noqa: N802 (the library's name)
            key = (x.dtype.str, x.tobytes())
            if key not in self.written:
                self.written[key] = super().CreateNumpyVector(x)
            return self.written[key]

    builder = SharingBuilder(size + 1024)
    builder.Finish(model.Pack(builder), file_identifier=_MAGIC)
    return bytes(builder.Output())


def op_name(code: Any) -> str:
    """Return the name of an operator code; `custom:` before what no runtime carries."""
    builtin = schema().BuiltinOperator
    # Codes above 127 do not fit the older field, which then holds a place holder.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == builtin.CUSTOM:
        name = (code.customCode or b"").decode("utf-8", "replace")
        return name if name in _CARRIED else f"custom:{name}"
    names = {value: name for name, value in vars(builtin).items() if name.isupper()}
    return names.get(number, f"BUILTIN_{number}")


def operator_code(model: Any, name: str, version: int) -> int:
    """Return the index of an operator among a file's codes; add it if it is missing."""
    for index, code in enumerate(model.operatorCodes):
        if op_name(code) == name and code.version == version:
            return index
    code = schema().OperatorCodeT()
    number = getattr(schema().BuiltinOperator, name)
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
