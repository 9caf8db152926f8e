"""The command `keras-tickets`, for files: `keras_tickets_command` starts it.

    keras-tickets inspect model.tflite
    keras-tickets diagnose model.tflite
    keras-tickets benchmark dense.tflite sparse.tflite --on wasm
    keras-tickets benchmark detector.onnx --shape image=1,320,320,3
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
from keras_tickets.runtime import building, file_diagnosis
from keras_tickets.runtime.formats import SUFFIXES

Report = TypeVar("Report")


_shape = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="INPUT=SIZES",
    help="The shape of an input whose sizes are open: image=1,320,320,3.",
)


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
@_shape
def diagnose(path: str, as_json: bool, shapes: tuple[str, ...]) -> None:
    """Tell what of FILE runs sparse on a phone, why not, and what would help.

    FILE is a .tflite of any origin. The exit status is 0 also if it would go wrong.
    """
    if file_diagnosis.is_onnx(path):
        _fail(file_diagnosis.refusal(path), status=2)
    given = _shapes(shapes)
    found = _read(
        path,
        file_diagnosis.SUFFIXES,
        lambda path: file_diagnosis.diagnose_file(path, given),
    )
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
@_shape
@click.option("--json", "style", flag_value="json", help="Print JSON.")
@click.option("--markdown", "style", flag_value="markdown", help="Print Markdown.")
def benchmark(
    paths: tuple[str, ...],
    style: str | None,
    shapes: tuple[str, ...],
    **options: Any,
) -> None:
    """Time FILEs beside each other; speed-ups are over the first.

    Places are host, wasm, arm64 and android.
    """
    given = _shapes(shapes)
    try:
        from keras_tickets.mobile import compare  # It needs Keras: not for `inspect`.

        table = compare(paths, verbose=False, input_shapes=given, **options)
    except (ValueError, OSError) as error:
        _fail(str(error), status=2)
    except (RuntimeError, ImportError) as error:
        _fail(str(error), status=1)
    shown = {"json": lambda: json.dumps(table.to_dict()), "markdown": table.to_markdown}
    click.echo(shown.get(style or "", table.__str__)())


def _shapes(texts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Read `image=1,320,320,3`, or end the program with one line."""
    shapes = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        try:
            shapes[name] = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            name = ""
        if not name:
            _fail(
                f"--shape is INPUT=SIZES, such as image=1,320,320,3. Received: {text}",
                status=2,
            )
    return shapes


def _fail(message: str, status: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main(prog_name="keras-tickets")
