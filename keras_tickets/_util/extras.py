"""Optional dependencies: import them late, and say what to install."""

from __future__ import annotations

import importlib
import types


def require(module: str, extra: str) -> types.ModuleType:
    """Import an optional module, or say which extra brings it.

    Args:
        module: Dotted name of the module to import.
        extra: The extra of `keras-tickets` that installs it.

    Returns:
        The imported module.

    Raises:
        ImportError: If the module, or something that it needs, is missing.

    Example:
    ```python
    onnx = require("onnx", "export")
    ```
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"`{module}` could not be imported ({error}). "
            f'Install it with: pip install "keras-tickets[{extra}]"'
        ) from error
