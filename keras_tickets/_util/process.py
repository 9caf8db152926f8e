"""A process that is asked line by line, and that ends with the block that started it.

A question is one line of JSON on its stdin, an answer one on its stdout. What it cannot
do it answers with `{"error": ...}`; what kills it or keeps it from answering is told
from outside.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import IO, Any

# What TensorFlow's C++ says about its own start and progress.
_REMARK = re.compile(r"WARNING: All log messages|[IW]\d{4} |fully_quantize: ")


class RefusedError(RuntimeError):
    """What a process answered that it cannot do; it is ready for the next question."""


class EndedError(RuntimeError):
    """A process ended before it answered.

    Args:
        how: How, after a subject, as `end` says it.
        during: What it was doing then.
        words: Its last words, or nothing.

    Attributes:
        how: The same.
        words: The same.
    """

    def __init__(self, how: str, during: str, words: str) -> None:
        super().__init__(f"The runtime {how} when the file was {during}.{words}")
        self.how, self.words = how, words


class Conversation:
    """Questions to a process that was just started, and its answers.

    Args:
        process: The process.
        log: The file that its stderr goes to.
        timeout: Seconds that it has for each answer, then it is ended; None waits for
            ever.
    """

    def __init__(
        self,
        process: subprocess.Popen[str],
        log: IO[bytes],
        timeout: float | None = None,
    ) -> None:
        self._process, self._log, self._timeout = process, log, timeout
        self._answered = 0

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def ask(self, question: dict[str, Any], what: str) -> dict[str, Any]:
        """Ask, and wait for the first answer; more may follow.

        Args:
            question: What is asked.
            what: What the process does with its file then, for errors: `"run"`.

        Returns:
            The answer.

        Raises:
            RefusedError: If the answer is an error.
            EndedError: If the process ended, and there is no answer.
            RuntimeError: If there was none in time.
        """
        # A process that died says so when it is asked for its answer.
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(question), file=self._process.stdin, flush=True)
        return self.answer(what)

    def answer(self, what: str) -> dict[str, Any]:
        """Wait for an answer that was not asked for, or one more.

        Args:
            what: What the process does with its file meanwhile, for errors: `"loaded"`.

        Returns:
            The answer.

        Raises:
            RefusedError: If the answer is an error.
            EndedError: If the process ended, and there is no answer.
            RuntimeError: If there was none in time.
        """
        line, late = self._line()
        if late:
            raise RuntimeError(
                f"The runtime was ended: it gave no answer for {self._timeout:g} "
                f"seconds when the file was {what}."
            )
        if not line:
            raise EndedError(end(self._process.wait()), what, self._words())
        answer: dict[str, Any] = json.loads(line)
        self._answered = os.fstat(self._log.fileno()).st_size
        if "error" in answer:
            raise RefusedError(answer["error"])
        return answer

    def _line(self) -> tuple[str, bool]:
        """Return the next line, empty if the process has ended, and if it was late."""
        if self._timeout is None:
            return self._read(), False
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        watchdog = threading.Timer(self._timeout, stop)
        watchdog.start()
        try:
            return self._read(), late.is_set()
        finally:
            watchdog.cancel()

    def _read(self) -> str:
        # Whatever else a process prints is not for us, nor what it could not finish.
        lines = self._process.stdout or ()
        return next((line for line in lines if line[0] == "{" and line[-1] == "\n"), "")

    def _words(self) -> str:
        """Return what the process wrote to stderr since its last answer."""
        self._log.seek(self._answered)
        log = self._log.read().decode("utf-8", "replace")
        words = "\n".join(
            line for line in log.splitlines() if not _REMARK.match(line)
        ).strip()
        return f" Its last words:\n{words[-1500:]}" if words else ""


@contextlib.contextmanager
def converse(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    handed: Sequence[int] = (),
) -> Iterator[Conversation]:
    """Start a process that ends with the block, whatever ends the block.

    Args:
        command: The program and its arguments.
        environment: Its environment variables; None hands on this process' own.
        timeout: Seconds that it has for each answer; None waits for ever.
        handed: Open files that the process gets under the same numbers.

    Yields:
        The conversation.

    Raises:
        RuntimeError: If the program cannot be started.
    """
    with (
        tempfile.TemporaryFile() as log,
        _started(command, log, environment, handed) as process,
    ):
        try:
            yield Conversation(process, log, timeout)
        finally:
            process.kill()
            # Closing sends what the process did not read; whether it lives or not.
            with contextlib.suppress(BrokenPipeError):
                if process.stdin:
                    process.stdin.close()


class KeptProcess:
    """A process that is started when it is first asked, and kept until this one ends.

    Args:
        start: Starts it, as `converse` does.
    """

    def __init__(self, start: Callable[[], AbstractContextManager[Conversation]]):
        self._start = start
        self._lock = threading.Lock()
        self._block = contextlib.ExitStack()
        self._conversation: Conversation | None = None
        atexit.register(self._block.close)

    def ask(self, question: dict[str, Any], what: str) -> dict[str, Any]:
        """Ask as `Conversation.ask` does, after the questions of other threads."""
        with self._lock:
            try:
                return self._running().ask(question, what)
            except RefusedError:
                raise
            except BaseException:
                # After Ctrl-C, too: its answer would be taken for the next one's.
                self._block.close()
                raise

    def _running(self) -> Conversation:
        # It may have been killed while nobody asked.
        if self._conversation is None or not self._conversation.alive:
            self._block.close()
            self._conversation = self._block.enter_context(self._start())
        return self._conversation


def _started(
    command: Sequence[str],
    log: IO[bytes],
    environment: Mapping[str, str] | None,
    handed: Sequence[int],
) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            pass_fds=handed,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise RuntimeError(
            f"'{command[0]}' cannot be started: {error.strerror}."
        ) from error


def end(status: int) -> str:
    """Say how a process ended, after a subject.

    Args:
        status: Its exit status; less than 0 if a signal ended it.

    Returns:
        The rest of the sentence.

    Example:
    >>> end(-11)
    'crashed (SIGSEGV)'
    """
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"crashed ({signal.Signals(-status).name})"
    except ValueError:  # Some real-time signals have no name.
        return f"crashed (signal {-status})"
