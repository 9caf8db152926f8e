"""Files on emulated ARM64: what is computed, how long it takes, what the probe reads.

What it has in common with other places is in `test_runners.py`, and which nodes run in
a sparse kernel in `test_probe.py`. Most tests need what `keras-tickets setup arm64`
builds, and are skipped where it is not.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
import time

import keras
import pytest
from exported import exported_cnn, make_sparse
from keras import layers
from places import emulated

import keras_tickets as kt
from benchmarks.unguarded import unguarded
from keras_tickets.convert import tflite_encoding
from keras_tickets.runtime.arm64 import instruction_counter, kernel_counter
from keras_tickets.runtime.arm64.emulated_target import Arm64, emulator_version, program
from keras_tickets.runtime.target import VARIABLE, folder_of
from keras_tickets.tflite.file import TfliteFile

pytestmark = pytest.mark.backend_independent

ROOT = pathlib.Path(__file__).parents[1]
BUILD = ROOT / "keras_tickets" / "runtime" / "labs" / "arm64" / "build"


@emulated
def test_what_is_wrong_on_arm64_only_is_found(tmp_path):
    """A network of which a part can run sparse: the layouts of its parts differ."""
    image = keras.Input((16, 16, 3))
    x = layers.ZeroPadding2D(1)(image)
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = layers.Conv2D(64, 1, activation="relu")(x)
    x = layers.Concatenate()([x, x])
    x = layers.Conv2D(64, 1, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = make_sparse(keras.Model(image, layers.Dense(5)(x)), sparsity=0.9)
    path = tmp_path / "m.tflite"
    kt.export(model, path, sparse=False, verbose=False)
    assert kt.verify(path, model, on="arm64").max_rel < 1e-5
    with unguarded():
        file, _ = tflite_encoding.sparsify(TfliteFile.read(path), "float32")
    path.write_bytes(file.to_bytes())
    assert kt.verify(path, model, on="host").max_rel < 1e-5
    with pytest.raises(RuntimeError, match="does not compute what"):
        kt.verify(path, model, on="arm64")


@emulated
def test_times_are_labelled_as_emulated(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(exported_cnn(".tflite")[0])
    report = kt.benchmark(path, on="arm64", runs=3, warmup=1, verbose=False)
    assert report.emulated
    assert report.runs == 3
    assert 0 < report.min_ms <= report.median_ms
    assert "(aarch64)" in report.runtime
    assert "emulated" in report.device
    assert "ratios only" in str(report)


@emulated
def test_a_silent_machine_is_ended(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(exported_cnn(".tflite")[0])
    start = time.monotonic()
    with (
        pytest.raises(RuntimeError, match=r"no answer for 0\.2 seconds"),
        Arm64(timeout=0.2).open(path),
    ):
        pass
    assert time.monotonic() - start < 30


@emulated
def test_a_crash_of_the_emulated_program_is_told(tmp_path, monkeypatch):
    """A guest that dies of a signal: the emulator dies of the same."""
    crashing = tmp_path / "crash.py"
    crashing.write_text("import os; os.abort()")
    monkeypatch.setattr(kernel_counter, "__file__", str(crashing))
    (tmp_path / "m.tflite").touch()
    with pytest.raises(RuntimeError, match=r"crashed \(SIGABRT\)"):
        kt.mobile.sparse_path(tmp_path / "m.tflite")


@emulated
@pytest.mark.parametrize(
    ("module", "more"),
    [(kernel_counter, []), (instruction_counter, ["1"])],
    ids=["probe", "count"],
)
def test_programs_end_with_who_started_them(module, more, tmp_path):
    """Nobody is there from the start: they end before they find the file broken."""
    (tmp_path / "m.tflite").touch()
    runner = Arm64()
    ended = subprocess.run(
        [*runner.command(), *program(module.__file__, tmp_path / "m.tflite"), *more],
        env=runner.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (1, b"")
    assert b"error" not in ended.stdout


def test_it_says_what_is_missing_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    path = tmp_path / "m.tflite"
    path.touch()
    with pytest.raises(RuntimeError, match=r"not available.*tickets setup arm64"):
        kt.benchmark(path, on="arm64")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({VARIABLE: "/r", "XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/r/arm64"),
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/keras_tickets/arm64"),
        ({"HOME": "/h"}, "/h/.cache/keras_tickets/arm64"),
    ],
)
def test_runner_and_script_agree_on_the_folder(environment, expected, monkeypatch):
    for name in (VARIABLE, "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(folder_of("arm64")) == expected
    lines = BUILD.read_text().splitlines()
    rule = "\n".join(ln for ln in lines if ln.startswith(("cache=", "target=")))
    said = subprocess.run(
        ["bash", "-c", f'set -- \n{rule}\necho "$target"'],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == expected


def test_the_script_names_no_mirror():
    """They come from the machine's own settings."""
    for file in BUILD.parent.iterdir():
        if file.is_file() and file.suffix != ".md":
            assert "://" not in file.read_text(), file


def test_the_pinned_wheels_are_those_the_rest_is_tested_with():
    ours = (BUILD.parent / "requirements.txt").read_text().split()
    theirs = (ROOT / "constraints.txt").read_text().split()
    pins = {pin for pin in ours if "==" in pin}
    assert {"ai-edge-litert==2.3.0", "onnxruntime==1.31.1"} <= pins <= set(theirs)


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("qemu-aarch64 version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright", "10.0.2"),
        ("qemu-aarch64 version 7.2.17\n", "7.2.17"),
        ("", "of unknown version"),
    ],
)
def test_emulator_version(printed, version):
    assert emulator_version(printed) == version


def _library() -> pathlib.Path:
    """This machine's LiteRT, which has the names of its own processor's functions."""
    spec = importlib.util.find_spec("ai_edge_litert")
    library = pathlib.Path(spec.origin).parent / "libpywrap_litert_common.so"
    if not library.exists():
        pytest.skip(f"There is no {library.name} on this system.")
    return library


def test_symbols_of_a_real_library():
    found = kernel_counter.symbols(_library().read_bytes())
    assert found["xnn_init_f32_spmm_config"] > 0


def test_another_litert_is_an_error_and_no_zero():
    """On this machine's own library, where the kernels for ARM64 are not."""
    pytest.importorskip("ai_edge_litert.interpreter")
    try:
        library = kernel_counter.Library(_library())
    except RuntimeError as error:
        pytest.skip(str(error))
    assert library.address("xnn_init_f32_spmm_config") > 0
    with pytest.raises(RuntimeError, match=r"has 0 functions named '1x4Neon'.*2\.3\.0"):
        library.address("1x4Neon")


@pytest.mark.parametrize("content", [b"", b"MZ", b"\x7fELF\x01\x01" + bytes(64)])
def test_symbols_of_what_is_no_library(content):
    with pytest.raises(ValueError, match="ELF"):
        kernel_counter.symbols(content)


def test_the_probe_needs_no_keras():
    """It runs where there is none."""
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); "
        "assert not {'keras', 'keras_tickets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, kernel_counter.__file__], check=True)
