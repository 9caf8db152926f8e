"""Builds what runs files elsewhere, by the scripts of `labs/`."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

from keras_tickets.runtime.target import folder_of

_SCRIPTS = pathlib.Path(__file__).parent / "labs"

NAMES = ("wasm", "arm64")
"""What can be built: LiteRT.js in Node, and an emulated ARM64 machine."""


def how_to_build(name: str) -> str:
    """Return the command that builds one, for messages."""
    return f"keras-tickets setup {name}"


def build(name: str) -> pathlib.Path:
    """Build one where it is looked for; what was there before is replaced.

    Args:
        name: One of `NAMES`.

    Returns:
        Its folder.

    Raises:
        RuntimeError: If this machine lacks what the script needs, or a step failed;
            the script said what on stderr.
    """
    shell = shutil.which("bash")
    if shell is None:
        raise RuntimeError(
            f"The script that builds {name!r} needs bash, and there is none on the "
            "PATH. It runs on Linux; on other systems run it in a Linux container."
        )
    folder = folder_of(name)
    # The wheel forgets which files are programs, so the shell is named.
    done = subprocess.run(
        [shell, str(_SCRIPTS / name / "build"), str(folder)],
        env={"PYTHON": sys.executable, **os.environ},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"{name!r} was not built (exit status {done.returncode}); the lines above "
            f"say why. Nothing was changed in '{folder}'."
        )
    return folder
