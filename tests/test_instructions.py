"""Executed ARM64 instructions: the emulator's log, and files that are run."""

from __future__ import annotations

import os
import pathlib
import tempfile
from unittest import mock

import keras
import pytest
from exported import exported_cnn
from keras import layers
from places import emulated

import keras_tickets as kt
from keras_tickets.mobile.instruction_counting import InstructionCount
from keras_tickets.runtime import interpreters
from keras_tickets.runtime.arm64 import block_log, instruction_counter
from keras_tickets.runtime.arm64.instruction_counter import BEGIN, END
from keras_tickets.runtime.target import VARIABLE

pytestmark = pytest.mark.backend_independent


# What QEMU 10.0.2 logged: two blocks, of four instructions and of one.
FOUR, ONE = (
    b"Trace 0: 0x7fde5148e640 [00001001/000000015bfca80c/00000001/00008200] \n",
    b"Trace 0: 0x7fde5148e940 [00001001/000000015b79d9b0/00000001/00008200] \n",
)
NEW_FOUR = b"""----------------
IN:\x20
0x15bfca80c:  d503201f  nop\x20\x20\x20\x20\x20\x20
0x15bfca810:  a9bf7bfd  stp      x29, x30, [sp, #-0x10]!
0x15bfca814:  910003fd  mov      x29, sp
0x15bfca818:  97df4c62  bl       #0x15b79d9a0

"""
NEW_ONE = b"""----------------
IN:\x20
0x15b79d9b0:  d65f03c0  ret\x20\x20\x20\x20\x20\x20

"""
STOPPED = b"Stopped execution of TB chain before 0x7fde5148e640 [000000015bfca80c] \n"
START = [NEW_FOUR, FOUR, NEW_ONE, ONE, FOUR]


@pytest.mark.parametrize(
    ("log", "instructions", "blocks"),
    [
        ([*START, BEGIN, END], 0, 0),
        ([*START, BEGIN, FOUR, ONE, FOUR, END, FOUR], 9, 3),
        # Translated between the marks.
        ([NEW_FOUR, FOUR, BEGIN, FOUR, NEW_ONE, ONE, ONE, END], 6, 3),
        # Translated anew, to a shorter block at the same place.
        ([NEW_ONE, ONE, BEGIN, ONE, NEW_FOUR, ONE, ONE, END], 9, 3),
        # A translation that did not fit is logged, thrown away and made again.
        ([BEGIN, NEW_FOUR, NEW_ONE, ONE, END], 1, 1),
        # Left before its first instruction, and entered again.
        ([*START, BEGIN, ONE, FOUR, STOPPED, FOUR, END], 5, 2),
    ],
)
def test_the_log_is_counted_between_the_marks(log, instructions, blocks):
    lines = b"".join(log).splitlines(keepends=True)
    executed = block_log.count(lines, BEGIN, END)
    assert executed == block_log.Executed(instructions, blocks)


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ([*START, FOUR], "ends before the mark b'begin"),
        ([*START, BEGIN, FOUR], "ends before the mark b'end"),
        ([NEW_FOUR, FOUR, BEGIN, ONE, END], "ran a block before"),
    ],
)
def test_a_log_that_makes_no_sense_is_an_error(log, error):
    with pytest.raises(ValueError, match=error):
        block_log.count(b"".join(log).splitlines(keepends=True), BEGIN, END)


def test_where_the_code_is():
    maps = (
        "155b31f000-155b60d000 r--p 00000000 fe:00 7  /site/{0}\n"
        "155b60d000-155be3d000 r-xp 002ed000 fe:00 7  /site/{0}\n"
        "155c000000-155c001000 rw-p 00000000 00:00 0 \n"
    )
    here = maps.format(instruction_counter.LIBRARY)
    assert instruction_counter.code(here) == (0x155B60D000, 0x155BE3D000)
    with pytest.raises(RuntimeError, match="without its"):
        instruction_counter.code(maps.format("other.so"))


def test_inputs_are_no_zeros(tmp_path, monkeypatch):
    """TFLite skips int8-dynamic layers whose inputs are: the count was too small."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    given = []

    class Recorded(interpreter.Interpreter):
        def set_tensor(self, index, value):
            given.append(value)
            super().set_tensor(index, value)

    monkeypatch.setattr(interpreter, "Interpreter", Recorded)
    monkeypatch.setattr(instruction_counter, "code", lambda maps: (0, 0))
    monkeypatch.setattr(instruction_counter, "pathlib", mock.MagicMock())
    path = tmp_path / "m.tflite"
    path.write_bytes(exported_cnn(".tflite")[0])
    with open(tmp_path / "log", "w+b") as log:
        instruction_counter.main(interpreters.ready, str(path), log.fileno())
        log.seek(0)
        assert log.readlines() == [BEGIN, END]
    assert [value.all() for value in given] == [True]


def test_the_table_says_that_it_is_no_time():
    report = InstructionCount(
        "m.tflite", 1096133, 40243, "litert", "emulated cortex-a76"
    )
    words = " ".join(str(report).split())
    assert words.startswith("Executed instructions on emulated ARM64; not a time")
    assert "1,096,133" in str(report)
    assert report.to_dict()["instructions"] == 1096133


def exported(folder: str, structure: str | None) -> pathlib.Path:
    """A file of two dense layers; with a structure, 95 % of the weights are zero."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((256,)), layers.Dense(128), layers.Dense(16)])
    if structure:
        pruner = kt.Magnitude(0.95, allocation="uniform", structure=structure)
        model = kt.wrap(model, pruner)
        model.draw()
    path = pathlib.Path(folder, f"{structure}.tflite")
    kt.export(model, path, verbose=False)
    return path


@emulated
@pytest.mark.slow
def test_counts_are_the_same_each_time_and_fall_with_blocks_of_zeros():
    open_before = set(os.listdir("/dev/fd"))
    with tempfile.TemporaryDirectory() as folder:
        dense, sparse = (exported(folder, s) for s in (None, "block_1x4"))
        first, again = (kt.mobile.instructions(dense) for _ in range(2))
        fewer = kt.mobile.instructions(sparse)
    assert first == again
    # At least one of four multiplications and additions for each weight.
    assert first.instructions > (256 * 128 + 128 * 16) / 4
    assert fewer.instructions < 0.8 * first.instructions
    assert first.runtime.endswith("(aarch64)")
    assert "emulated" in first.device
    assert set(os.listdir("/dev/fd")) == open_before


@emulated
def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(exported_cnn(".tflite")[0][:500])
    with pytest.raises(RuntimeError, match=r"m\.tflite' on emulated ARM64 cannot be"):
        kt.mobile.instructions(path)


# What stands for the program: it dies, loads LiteRT elsewhere each time, sets no marks.
PROGRAMS = {
    "crash": ("import os; os.abort()", r"crashed \(SIGABRT\) when the file was loaded"),
    "moved": (
        "import json, os; print(json.dumps({'start': 1, 'end': os.getpid()}))",
        "not loaded where before",
    ),
    "unmarked": (
        'for _ in range(3): print(\'{"start": 4096, "end": 8192}\')',
        "ends before the mark",
    ),
}


@emulated
@pytest.mark.parametrize("name", PROGRAMS)
def test_no_count_is_made_up(name, tmp_path, monkeypatch):
    program, error = PROGRAMS[name]
    script = tmp_path / "program.py"
    script.write_text(program)
    monkeypatch.setattr(instruction_counter, "__file__", str(script))
    (tmp_path / "m.tflite").touch()
    with pytest.raises(RuntimeError, match=error):
        kt.mobile.instructions(tmp_path / "m.tflite")


def test_it_says_what_is_missing_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    path = tmp_path / "m.tflite"
    with pytest.raises(FileNotFoundError, match=r"no file .*m\.tflite"):
        kt.mobile.instructions(path)
    path.touch()
    with pytest.raises(RuntimeError, match=r"not available.*tickets setup arm64"):
        kt.mobile.instructions(path)
    with pytest.raises(ValueError, match=r"ends with '\.tflite'"):
        kt.mobile.instructions(tmp_path / "m.onnx")
