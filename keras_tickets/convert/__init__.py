"""From a trained model to a file for a phone or a server, checked on the way.

Nothing here is trusted: the written file is loaded in the runtime that will run it,
its outputs are compared with those of Keras, and its zeros are counted again.
"""

from __future__ import annotations

from keras_tickets.convert.pipeline import export
from keras_tickets.convert.report import ExportReport

__all__ = ["ExportReport", "export"]
