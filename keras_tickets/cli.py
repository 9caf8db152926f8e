"""The command `keras-tickets`, for files: it starts without Keras.

    keras-tickets inspect model.tflite

What cannot be read is told in one line on stderr. The exit status is 2 if the path is
at fault (no such file, a folder, another suffix), and 1 if the file is.
"""

from __future__ import annotations

import json
import sys
from typing import NoReturn

import click

from keras_tickets import __version__
from keras_tickets.convert.formats import SUFFIXES
from keras_tickets.files import check_source
from keras_tickets.inspection import inspect as read


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="keras-tickets")
def main() -> None:
    """Look into sparse models that were exported to .tflite or .onnx."""


@main.command()
@click.argument("path", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all tensors.")
@click.option("--all", "everything", is_flag=True, help="List small tensors too.")
def inspect(path: str, as_json: bool, everything: bool) -> None:
    """Show the tensors, sparsity, encodings and sizes of FILE.

    FILE is a .tflite or .onnx of any origin.
    """
    try:
        check_source(path, SUFFIXES)
    except (ValueError, OSError) as error:
        _fail(str(error), status=2)
    try:
        found = read(path)
    except (ValueError, OSError, ImportError) as error:
        _fail(str(error), status=1)
    click.echo(json.dumps(found.to_dict()) if as_json else found.table(everything))


def _fail(message: str, status: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(status)
