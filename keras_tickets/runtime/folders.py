"""Where the runners live that have to be built first (see `export/`)."""

from __future__ import annotations

import os
import pathlib

VARIABLE = "KERAS_TICKETS_RUNNERS"


def folder_of(name: str) -> pathlib.Path:
    """Returns the folder of a runner, whether it was built or not.

    It is a folder of this name in `$KERAS_TICKETS_RUNNERS`; where that is not set, in
    `$XDG_CACHE_HOME/keras_tickets` or `~/.cache/keras_tickets`. The scripts that build
    runners use the same rule.

    Args:
        name: The runner's name.

    Returns:
        An absolute path.
    """
    if chosen := os.environ.get(VARIABLE):
        return pathlib.Path(chosen).absolute() / name
    cache = os.environ.get("XDG_CACHE_HOME")
    base = pathlib.Path(cache) if cache else pathlib.Path.home() / ".cache"
    return base / "keras_tickets" / name
