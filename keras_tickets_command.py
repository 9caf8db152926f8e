"""The command `keras-tickets`, beside the package so that it starts without Keras.

Importing `keras_tickets` imports Keras, which has to know the classes of a saved ticket
before `keras.models.load_model` is called. The command reads files, and loads no model.
"""

from __future__ import annotations

# Whether this process is the command; read by `keras_tickets/__init__.py`.
running = False


def main() -> None:
    """Run the command."""
    global running
    running = True
    from keras_tickets.cli import main as command

    command()
