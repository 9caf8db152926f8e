"""Which models a ticket can stand in for."""

from __future__ import annotations

from typing import Any

import keras

from keras_tickets._util.checks import check_model
from keras_tickets.backend import keras_private
from keras_tickets.ticket.ticket import Ticket

OWN_TRAINING = (
    *("train_step", "test_step", "predict_step"),
    *("compute_loss", "compute_metrics", "stateless_compute_loss"),
    *("compile", "fit", "evaluate", "predict"),
    *("train_on_batch", "test_on_batch", "predict_on_batch"),
    *("make_train_function", "make_test_function", "make_predict_function"),
    *("metrics", "reset_metrics", "get_metrics_result", "losses"),
    *("trainable_variables", "trainable_weights"),
)
"""What of `keras.Model` trains, evaluates and predicts, and a ticket has of its own."""


def check_wrappable(model: Any) -> None:
    """Raise if `model` is not one that a ticket can stand in for.

    Raises:
        TypeError: If it is no Keras 3 model.
        ValueError: If it is not built, has a ticket inside, or trains, evaluates or
            predicts in its own way.
    """
    check_model(model)
    if isinstance(model, Ticket):
        return
    inside = [
        layer for layer in keras_private.sublayers(model) if isinstance(layer, Ticket)
    ]
    if inside:
        raise ValueError(
            f"{model.name!r} contains the ticket {inside[0].name!r}. Expected a model "
            "without tickets inside: build it around ticket.strip() and wrap the "
            "whole."
        )
    own = [
        method
        for method in OWN_TRAINING
        if getattr(type(model), method, None) is not getattr(keras.Model, method, None)
        or method in vars(model)
    ]
    if own:
        raise ValueError(
            f"{type(model).__name__} {model.name!r} has its own {', '.join(own)}, "
            "which a ticket would not run: it would silently train, or compute, as "
            "something else. Instead put kt.Masked around the layers to prune inside "
            "the model and pass the pruner to its fit as a callback; or wrap the plain "
            "model that it holds, and give that to it as a ticket."
        )
