"""`python -m keras_tickets`: the command `keras-tickets`, which then imports Keras."""

from __future__ import annotations

from keras_tickets.cli import main

if __name__ == "__main__":
    main(prog_name="keras-tickets")
