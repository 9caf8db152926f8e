"""What every place where files run promises; those not available here are skipped."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from exported import SUFFIXES, exported_cnn, sparse_cnn
from places import available

import keras_tickets as kt
from keras_tickets._util import process as conversation
from keras_tickets.runtime import RUNNERS, Runs
from keras_tickets.tflite.schema import pack, schema, unpack

pytestmark = pytest.mark.backend_independent

# An emulated processor takes seconds only to load what runs a file; what a backend may
# change, such as the outputs that a file is compared with, shows on this machine too.
MARKS = {
    "wasm": [pytest.mark.lab, pytest.mark.backend_independent],
    "arm64": [pytest.mark.lab, pytest.mark.backend_independent, pytest.mark.slow],
    "android": [pytest.mark.backend_independent, pytest.mark.slow],
}
PLACES = [
    pytest.param(
        (name, suffix),
        id=f"{name}{suffix}",
        marks=MARKS.get(name, []),
    )
    for name in RUNNERS
    for suffix in SUFFIXES
]

ROOT = pathlib.Path(__file__).parents[1]


# How a process is timed, fails and ends depends on the place, not on the format, and
# the emulated processor is slow.
PROCESSES = [each for each in PLACES if each.id != "arm64.onnx"]
of_processes = pytest.mark.parametrize("place", PROCESSES, indirect=True)


@pytest.fixture(params=PLACES)
def place(request):
    """A runner that is available, and a format that it runs."""
    return available(*request.param), request.param[1]


@pytest.fixture
def file(place, tmp_path):
    path = tmp_path / f"model{place[1]}"
    path.write_bytes(exported_cnn(place[1])[0])
    return path


@pytest.fixture
def started(monkeypatch):
    """All processes that were started to be asked."""
    processes = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            processes.append(self)

    monkeypatch.setattr(conversation.subprocess, "Popen", Recorded)
    return processes


def test_a_file_computes_what_keras_computes(place, file):
    runner, _ = place
    image = np.random.default_rng(0).random((1, 12, 12, 3)).astype("float32")
    with runner.open(file) as runtime:
        (name,) = runtime.inputs
        first = runtime.run({name: image})[runtime.outputs[0]]
        again = runtime.run({name: image})[runtime.outputs[0]]
        other = runtime.run({name: image * 2})[runtime.outputs[0]]
    expected = np.asarray(sparse_cnn().predict(image, verbose=0))
    np.testing.assert_allclose(first, expected, atol=1e-5)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-3)


@of_processes
def test_runs_are_timed_and_progress_is_told(place, file):
    runner, _ = place
    told: list[int] = []
    timing = runner.time(file, Runs(4, warmup=2, progress=told.append))
    assert len(timing.seconds) == 4
    assert min(timing.seconds) > 0
    assert told == sorted(set(told))
    assert told[-1] == 6
    assert timing.runtime
    assert timing.device


@of_processes
def test_a_report_names_the_place(place, file):
    runner, _ = place
    report = kt.benchmark(file, on=runner.name, runs=2, warmup=1, verbose=False)
    assert f"on='{runner.name}'" in str(report)
    assert report.runs == 2


@pytest.mark.backend_independent(False)
def test_verify_agrees_with_and_without_the_model(place, file):
    runner, _ = place
    with_model = kt.verify(file, sparse_cnn(), on=runner.name)
    alone = kt.verify(file, on=runner.name)
    assert with_model.max_rel < 1e-5
    assert alone.max_rel < 1e-5
    assert with_model.samples == alone.samples == 4


@of_processes
def test_a_broken_file_is_an_error_of_its_own(place, tmp_path):
    runner, suffix = place
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b"\x1c\0\0\0TFL3 and nothing else")
    with pytest.raises(RuntimeError), runner.open(path):
        pass
    with pytest.raises(RuntimeError, match="broken"):
        kt.benchmark(path, on=runner.name, verbose=False)
    with pytest.raises(ValueError, match="damaged"):
        kt.verify(path, on=runner.name)


def test_an_operator_that_a_place_lacks_is_named(place, tmp_path):
    runner, suffix = place
    if suffix != ".tflite":
        pytest.skip("Flex operators are LiteRT's")
    path = tmp_path / "flex.tflite"
    path.write_bytes(with_flex(exported_cnn(suffix)[0]))
    with pytest.raises(RuntimeError, match="FlexDet"):
        kt.benchmark(path, on=runner.name, verbose=False)
    with pytest.raises(RuntimeError, match="FlexDet"):
        kt.verify(path, sparse_cnn(), on=runner.name)


def with_flex(content: bytes) -> bytes:
    """Puts an operator of TensorFlow in the place of the last one."""
    model = unpack(content)
    graph = model.subgraphs[0]
    last, code = graph.operators[-1], model.operatorCodes[0].__class__()
    code.builtinCode = code.deprecatedBuiltinCode = schema().BuiltinOperator.CUSTOM
    code.customCode = "FlexDet"
    last.opcodeIndex = len(model.operatorCodes)
    last.builtinOptions, last.builtinOptionsType = None, 0
    model.operatorCodes.append(code)
    return pack(model, size=len(content))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@of_processes
def test_whatever_ends_the_block_ends_the_process(error, place, file, started):
    runner, _ = place

    def interrupted():
        with runner.open(file):
            assert None in [process.poll() for process in started]
            raise error

    with pytest.raises(error):
        interrupted()
    assert None not in [process.poll() for process in started]


@pytest.mark.parametrize("name", RUNNERS)
def test_a_foreign_format_is_refused_by_name(name, tmp_path, monkeypatch):
    runner = RUNNERS[name]
    monkeypatch.setattr(type(runner), "suffixes", (".tflite",))
    (tmp_path / "m.onnx").touch()
    for run in (kt.benchmark, kt.verify):
        with pytest.raises(ValueError, match=rf"on='{name}' runs \.tflite files only"):
            run(tmp_path / "m.onnx", on=name)


@pytest.mark.parametrize("name", RUNNERS)
def test_what_is_missing_is_told_before_any_work(name, tmp_path, monkeypatch):
    monkeypatch.setattr(type(RUNNERS[name]), "missing", lambda *_: "Fetch the moon.")
    (tmp_path / "m.tflite").touch()
    for run in (kt.benchmark, kt.verify):
        with pytest.raises(RuntimeError, match=rf"on='{name}' is not .*Fetch the moon"):
            run(tmp_path / "m.tflite", on=name)


@pytest.mark.parametrize("name", ["wasm", "arm64", "android"])
def test_builds_replace_nothing_else(name, tmp_path):
    """They remove the folder that they are told before they put theirs there."""
    (tmp_path / "thesis").touch()
    (build,) = ROOT.glob(f"*/**/{name}/build")
    # Without any program that could download, or remove.
    finished = subprocess.run(
        ["/bin/bash", build, tmp_path],
        env={"PATH": f"{tools(tmp_path.parent / f'tools-{name}')}", "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert "holds something else; choose another folder" in finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def tools(folder: pathlib.Path) -> pathlib.Path:
    """A PATH of the programs that only look."""
    folder.mkdir()
    for name in ("dirname", "ls"):
        (folder / name).symlink_to(shutil.which(name))
    return folder
