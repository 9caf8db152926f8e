"""Draw sparse tickets from Keras models, prove them, and ship them to a phone."""

from __future__ import annotations

import pathlib
import sys

__version__ = "0.1.0"

# The command reads files only, and leaves Keras alone so as to start at once. Everybody
# else gets all names now, not at first use: `keras.models.load_model` finds the classes
# of a saved ticket only if they were imported before.
if pathlib.Path(*sys.argv[:1]).stem != "keras-tickets":
    from keras_tickets.public import *  # noqa: F403
    from keras_tickets.public import __all__ as __all__
