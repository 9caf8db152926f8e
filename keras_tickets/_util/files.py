"""Files of the user: checked before any work, replaced in one step at the end."""

from __future__ import annotations

import errno
import gzip
import os
import pathlib
import shutil
import uuid
from collections.abc import Mapping


def check_target(
    path: str | os.PathLike[str], suffixes: Mapping[str, str], overwrite: bool
) -> pathlib.Path:
    """Check that a file can be written at `path`, before anything is done for it.

    Args:
        path: The user's path.
        suffixes: The suffixes that it may have, and what they stand for.
        overwrite: Whether an existing file may be replaced.

    Returns:
        The path, absolute, links followed.

    Raises:
        ValueError: If the suffix names no format.
        FileNotFoundError: If the folder is missing.
        NotADirectoryError: If the folder is a file.
        IsADirectoryError: If the path is a folder.
        PermissionError: If the folder, or the file that is there, cannot be written.
        FileExistsError: If the file exists and may not be replaced.
    """
    target = pathlib.Path(path).expanduser().resolve()
    if target.suffix not in suffixes:
        expected = ", ".join(f"'{s}' ({name})" for s, name in suffixes.items())
        raise ValueError(
            f"The suffix of `path` chooses the format: expected {expected}. "
            f"Received: path='{path}'"
        )
    folder = target.parent
    if not folder.exists():
        raise FileNotFoundError(
            f"Cannot write '{path}': the folder '{folder}' does not exist. "
            "Create it first."
        )
    if not folder.is_dir():
        raise NotADirectoryError(f"Cannot write '{path}': '{folder}' is not a folder.")
    if target.is_dir():
        raise IsADirectoryError(f"Cannot write '{path}': it is an existing folder.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(
            f"Cannot write '{path}': no permission to write in '{folder}'."
        )
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"'{path}' exists. Choose another path, or pass `overwrite=True`."
        )
    # Not os.access: for root everything is writable, and a rename asks nobody.
    if target.exists() and not target.stat().st_mode & 0o222:
        raise PermissionError(
            f"'{path}' exists and is read-only. Choose another path, or make it "
            "writable."
        )
    return target


def check_source(
    path: str | os.PathLike[str], suffixes: Mapping[str, str]
) -> pathlib.Path:
    """Check that there is a file to read at `path`.

    Args:
        path: The user's path.
        suffixes: The suffixes that it may have, and what they stand for.

    Returns:
        The path.

    Raises:
        TypeError: If it is no path.
        ValueError: If the suffix names no format.
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a folder.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"Expected the path of a file that ends with "
            f"{' or '.join(map(repr, suffixes))}. Received: an object of type "
            f"{type(path).__name__}. A model is written to such a file first: "
            "kt.export(model, 'model.tflite')."
        )
    file = pathlib.Path(path).expanduser()
    if file.suffix not in suffixes:
        raise ValueError(
            f"Expected a file that ends with {' or '.join(map(repr, suffixes))}. "
            f"Received: path='{path}'"
        )
    if file.is_dir():
        raise IsADirectoryError(f"Expected a file, but '{path}' is a folder.")
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no file '{path}'. Write it with `kt.export` first."
        )
    return file


def gzip_size(content: bytes) -> int:
    """Return the bytes of a file when compressed, as app stores deliver it.

    Example:
    >>> gzip_size(bytes(1000)) < 100
    True
    """
    return len(gzip.compress(content, mtime=0))


def replace(target: pathlib.Path, content: bytes) -> None:
    """Write beside `target`, and move into place.

    The target is whole at any moment: the old file, or the new one. Whatever is
    raised meanwhile, Ctrl-C included, removes the new file and keeps the old. Only a
    process that is killed leaves a hidden file behind.

    Args:
        target: Where the file shall be.
        content: What it shall hold.

    Raises:
        OSError: If the disk is full or fails.
    """
    # Same folder, so that the move is one atomic rename.
    waiting = target.with_name(f".{target.stem}-{uuid.uuid4().hex[:8]}{target.suffix}")
    try:
        _write(waiting, content, target)
        os.replace(waiting, target)
    finally:
        waiting.unlink(missing_ok=True)


def _write(path: pathlib.Path, content: bytes, target: pathlib.Path) -> None:
    try:
        with open(path, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            error.errno,
            f"The disk is full: '{target.name}' needs {len(content):,} bytes in "
            f"'{target.parent}', which has {free:,} free. Nothing was changed; free "
            "some space or choose another folder",
        ) from error
