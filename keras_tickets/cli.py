"""The command `keras-tickets`, for files: `keras_tickets_command` starts it.

    keras-tickets inspect model.tflite
    keras-tickets diagnose model.tflite
    keras-tickets benchmark dense.tflite sparse.tflite --on wasm
    keras-tickets setup wasm

What cannot be read is told in one line on stderr. The exit status is 2 if the path is
at fault (no such file, a folder, another suffix), and 1 if the file is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import click

from keras_tickets import __version__
from keras_tickets._util.files import check_source
from keras_tickets.inspection import inspect as read
from keras_tickets.runtime import building
from keras_tickets.runtime.formats import SUFFIXES
from keras_tickets.xnnpack import analysis

Report = TypeVar("Report")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="keras-tickets")
def main() -> None:
    """Look into sparse models that were exported to .tflite or .onnx; time them."""


@main.command()
@click.argument("path", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all tensors.")
@click.option("--all", "everything", is_flag=True, help="List small tensors too.")
def inspect(path: str, as_json: bool, everything: bool) -> None:
    """Show the tensors, sparsity, encodings and sizes of FILE.

    FILE is a .tflite or .onnx of any origin.
    """
    found = _read(path, SUFFIXES, read)
    click.echo(json.dumps(found.to_dict()) if as_json else found.table(everything))


@main.command()
@click.argument("path", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diagnose(path: str, as_json: bool) -> None:
    """Tell what of FILE runs sparse on a phone, why not, and what would help.

    FILE is a .tflite of any origin. The exit status is 0 also if it would go wrong.
    """
    found = _read(path, analysis.SUFFIXES, analysis.analyze_path)
    click.echo(json.dumps(found.to_dict()) if as_json else str(found))


@main.command()
@click.argument("name", metavar="PLACE", type=click.Choice(building.NAMES))
def setup(name: str) -> None:
    """Build what runs files at PLACE: in wasm, or on an emulated ARM64 processor.

    "wasm" needs Node 20 and npm, "arm64" a Debian machine and pip; neither needs root.
    """
    try:
        click.echo(f"Ready: {building.build(name)}")
    except RuntimeError as error:
        _fail(str(error), status=1)


def _read(
    path: str, suffixes: Mapping[str, str], reader: Callable[[str], Report]
) -> Report:
    """Return what a file holds, or end the program with one line that says why not."""
    try:
        check_source(path, suffixes)
    except (ValueError, OSError) as error:
        _fail(str(error), status=2)
    try:
        return reader(path)
    except (ValueError, OSError, ImportError) as error:
        _fail(str(error), status=1)


@main.command()
@click.argument("paths", metavar="FILE...", nargs=-1, required=True)
@click.option("--on", multiple=True, default=["host"], help="Where; more than once.")
@click.option("--turns", default=5, help="How often each file takes its turn.")
@click.option("--runs", default=20, help="Timed runs of a turn.")
@click.option("--warmup", default=10, help="Runs of a turn before.")
@click.option("--threads", default=1, help="Threads of a runtime.")
@click.option("--json", "style", flag_value="json", help="Print JSON.")
@click.option("--markdown", "style", flag_value="markdown", help="Print Markdown.")
def benchmark(paths: tuple[str, ...], style: str | None, **options: Any) -> None:
    """Time FILEs beside each other; speed-ups are over the first.

    Places are host, wasm, arm64 and android.
    """
    try:
        from keras_tickets.mobile import compare  # It needs Keras: not for `inspect`.

        table = compare(paths, verbose=False, **options)
    except (ValueError, OSError) as error:
        _fail(str(error), status=2)
    except (RuntimeError, ImportError) as error:
        _fail(str(error), status=1)
    shown = {"json": lambda: json.dumps(table.to_dict()), "markdown": table.to_markdown}
    click.echo(shown.get(style or "", table.__str__)())


def _fail(message: str, status: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main(prog_name="keras-tickets")
