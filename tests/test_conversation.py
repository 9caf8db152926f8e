"""Processes that are asked line by line: what goes wrong with them is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from keras_tickets._util.process import (
    Conversation,
    EndedError,
    KeptProcess,
    RefusedError,
    converse,
    end,
)
from keras_tickets.runtime import interpreters

pytestmark = pytest.mark.backend_independent

GREET = "print('{}', flush=True)"


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_a_process_that_died_meanwhile_says_how():
    """Asking it breaks a pipe, twice: when it is asked, and when the block ends."""

    def ask():
        with converse(python(f"import os; {GREET}; os.kill(os.getpid(), 9)")) as dead:
            dead.answer("loaded")
            time.sleep(0.2)
            dead.ask({"never": "read"}, "run")

    with pytest.raises(
        RuntimeError, match=r"crashed \(SIGKILL\) when the file was run"
    ):
        ask()


@pytest.mark.parametrize("told", ["", "a question"])
def test_who_listens_ends_with_who_asks(told):
    """Also while it does something else: a run in an emulated machine takes minutes."""
    program = (
        f"import runpy, time; shared = runpy.run_path({interpreters.__file__!r}); "
        "lines = shared['listen'](); print(next(lines), flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        python(program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if told:
            print(told, file=process.stdin, flush=True)
            assert process.stdout.readline().strip() == told
        process.stdin.close()  # As the system does for whoever is killed.
        try:
            assert process.wait(timeout=30) == 1
        finally:
            process.kill()


ECHO = """
import json, os, sys
for line in sys.stdin:
    question = json.loads(line)
    print(question.get("told", ""), file=sys.stderr, flush=True)
    if "die" in question:
        raise SystemExit(3)
    print(json.dumps({"pid": os.getpid(), **question}), flush=True)
"""


def test_a_kept_process_is_kept_until_it_dies():
    kept = KeptProcess(lambda: converse(python(ECHO)))
    pid = kept.ask({}, "converted")["pid"]
    with pytest.raises(RefusedError, match="no such layer"):
        kept.ask({"error": "no such layer"}, "converted")
    assert kept.ask({}, "converted")["pid"] == pid
    with pytest.raises(EndedError, match="exit status 3 when the file was converted"):
        kept.ask({"die": True}, "converted")
    again = kept.ask({}, "converted")["pid"]
    assert again != pid
    os.kill(again, signal.SIGKILL)  # While nobody asks.
    time.sleep(0.2)
    assert kept.ask({}, "converted")["pid"] != again


def test_last_words_are_of_the_last_question():
    """A kept process has answered others before."""
    kept = KeptProcess(lambda: converse(python(ECHO)))
    kept.ask({"told": "of the first model"}, "converted")
    remark = "fully_quantize: 0, inference_type: 6"
    with pytest.raises(EndedError) as ended:
        kept.ask({"die": True, "told": f"{remark}\nof the second"}, "converted")
    assert ended.value.words == " Its last words:\nof the second"


def test_an_answer_that_nobody_waited_for_is_not_the_next_one(monkeypatch):
    kept = KeptProcess(lambda: converse(python(ECHO)))

    def interrupted(self, what):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Conversation, "answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kept.ask({"number": 1}, "converted")
    assert kept.ask({"number": 2}, "converted")["number"] == 2


def test_half_an_answer_is_none():
    command = python("print('{\"half\": ', end=''); raise SystemExit(3)")
    with (
        pytest.raises(RuntimeError, match="ended with exit status 3"),
        converse(command) as process,
    ):
        process.answer("loaded")


def test_a_program_that_cannot_be_started_is_named(tmp_path):
    program = tmp_path / "node"
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    with (
        pytest.raises(RuntimeError, match=r"node' cannot be started: Exec format"),
        converse([str(program)]),
    ):
        pass


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with exit status 0"),
        (255, "ended with exit status 255"),
        (-signal.SIGSEGV, "crashed (SIGSEGV)"),
        # Real-time signals have no names.
        (-40, "crashed (signal 40)"),
    ],
)
def test_the_end_of_a_process_in_words(status, words):
    assert end(status) == words
