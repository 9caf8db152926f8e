"""The flow of positive signals through a linearized network.

`Network` evaluates it and finds where it ends; `rule` teaches it a new layer.
"""

from __future__ import annotations

from keras_tickets.flow.network import Network
from keras_tickets.flow.rules import NotLinearError, rule

__all__ = ["Network", "NotLinearError", "rule"]
