"""Shows which stage of a long job runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stages(total: int, verbose: bool) -> Iterator[Callable[[str], None]]:
    """Show a progress bar of named stages.

    Args:
        total: How many stages there are.
        verbose: Whether to show anything; only a terminal or a notebook does.

    Yields:
        A function to call at the beginning of each stage, with its name.
    """
    # Imported here: `import keras_tickets` should cost next to nothing.
    import rich.console
    import rich.progress

    console = rich.console.Console()
    # A log file gets no bar: it would keep each frame.
    shown = verbose and (console.is_terminal or console.is_jupyter)
    bar = rich.progress.Progress(
        rich.progress.BarColumn(bar_width=20),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("{task.description}"),
        console=console,
        transient=True,
        disable=not shown,
    )
    with bar:
        task = bar.add_task("", total=total)
        started = 0

        def start(name: str) -> None:
            nonlocal started
            bar.update(task, completed=started, description=name)
            started += 1

        yield start
