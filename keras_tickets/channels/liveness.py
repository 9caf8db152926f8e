"""Which channels must stay: the least choice that changes no output of the model."""

from __future__ import annotations

import numpy as np

from keras_tickets.channels.coupling import Kept
from keras_tickets.channels.mixing_layers import Linear
from keras_tickets.channels.tracing import Trace


def live_channels(trace: Trace) -> Kept:
    """Return the channels that stay.

    From what is kept in any case (inputs, outputs, whatever is left alone) backwards: a
    kept output of a layer keeps the inputs that it reads. No tensor loses all of its
    channels.
    """
    kept = trace.coupling.kept()
    while True:
        _follow(trace, kept)
        empty = next((t for t in trace.tensors if not kept[t[1].ids].any()), None)
        if empty is None:
            return kept
        name, x = empty
        # A constant one reads nothing, so that keeping it keeps nothing else.
        first = int(np.argmax(~np.isnan(x.constants)))
        kept.keep(x.ids[first : first + 1], f"the last channel of '{name}'")


def _follow(trace: Trace, kept: Kept) -> None:
    """Keep what is read by what is kept, until nothing is added."""
    layers = [part for part in trace.parts.values() if isinstance(part, Linear)]
    grows = True
    while grows:
        grows = False
        for layer in reversed(layers):  # from the outputs: most are done in one pass
            for ids, why in layer.needs(kept):
                grows |= kept.keep(ids, why)
