"""What is kept between workers: made once, and again when a source changes."""

from __future__ import annotations

import subprocess
import sys

import kept
import pytest

pytestmark = pytest.mark.backend_independent


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("keras_tickets/inner/new.py", True),
        ("tests/helper.py", True),
        ("benchmarks/zoo.py", True),
        ("tests/test_new.py", False),
        ("docs/page.md", False),
    ],
)
def test_a_source_that_changes_is_seen(name, counts, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    states = [kept.state(tmp_path)]
    for text in ("one", "two"):
        path.write_text(text)
        kept.state.cache_clear()
        states.append(kept.state(tmp_path))
    assert len(set(states)) == (3 if counts else 1)


MADE = """
import pathlib, sys, time
sys.path.insert(0, sys.argv[1])
import kept
kept.FOLDER, made = pathlib.Path(sys.argv[2], "kept"), pathlib.Path(sys.argv[2], "made")
kept.state = lambda: "state"

@kept.kept
def value(word, number=1):
    with made.open("a") as file:
        file.write(f"{word}{number} ")
    time.sleep(0.5)  # while the other one asks
    return [word] * number

assert value("a", 3) == ["a", "a", "a"]
assert value("b", number=2) == ["b", "b"]
"""


def test_it_is_made_once_by_several_processes(tmp_path):
    folder = kept.ROOT / "tests"
    command = [sys.executable, "-c", MADE, str(folder), str(tmp_path)]
    started = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    assert sorted((tmp_path / "made").read_text().split()) == ["a3", "b2"]
