"""Where the device lab is: the folder `export/`, with one folder for each place.

`export/` is no part of the installed package: it holds what a place needs beside
Python, such as Node programs or an emulator, and what they install.
"""

from __future__ import annotations

import os
import pathlib

# Names a copy of `export/` that is used instead of the checkout's own.
VARIABLE = "KERAS_TICKETS_LAB"


def folder(place: str) -> pathlib.Path:
    """Finds the folder of a place.

    Args:
        place: The name of the place.

    Returns:
        `$KERAS_TICKETS_LAB/place` if that variable is set, else `export/place` of the
        checkout that this package runs from; it may not exist.
    """
    given = os.environ.get(VARIABLE)
    checkout = pathlib.Path(__file__).resolve().parents[3]
    root = pathlib.Path(given).expanduser() if given else checkout / "export"
    return root / place


def absent(place: str) -> str:
    """Says how to get a folder that `folder` found to be missing.

    Args:
        place: The name of the place.

    Returns:
        One sentence or two for the user.
    """
    return (
        f"There is no folder '{folder(place)}'. Set {VARIABLE} to the folder `export` "
        "of a checkout of keras-tickets: it is not part of the installed package."
    )
