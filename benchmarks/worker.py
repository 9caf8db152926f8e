"""A process that measures; if it crashes or hangs, it is replaced by another."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

_SPAWN = multiprocessing.get_context("spawn")


class Worker:
    """Calls a function in another process, one call after the other.

    Args:
        function: What to call; a function of a module, and so are its results.
        seconds: How long one call may take.
    """

    def __init__(self, function: Callable[..., Any], seconds: float) -> None:
        self._function, self._seconds = function, seconds
        self._process: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Returns what the function returns.

        Raises:
            RuntimeError: If it raised, crashed or took too long; says which.
        """
        if self._process is None:
            self._start()
        self._pipe.send(arguments)
        if not self._pipe.poll(self._seconds):
            self.close()
            raise RuntimeError(f"it took longer than {self._seconds:g} seconds")
        try:
            kind, result = self._pipe.recv()
        except EOFError:
            self._process.join()
            status = self._process.exitcode
            self.close()
            raise RuntimeError(f"the process crashed ({_name(status)})") from None
        if kind == "error":
            raise RuntimeError(result)
        return result

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=_serve, args=(self._function, theirs), daemon=True
        )
        self._process.start()
        # With this end open here as well, a crash would not close the pipe.
        theirs.close()


def _serve(function: Callable[..., Any], pipe: Connection) -> None:
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = ("result", function(*arguments))
        except Exception as error:
            answer = ("error", f"{type(error).__name__}: {error}")
        pipe.send(answer)


def _name(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
