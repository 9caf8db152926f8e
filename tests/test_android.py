"""Files on a phone: adb, `benchmark_model`, what it prints, what can go wrong.

Most of it runs against a fake `adb`. `test_end_to_end` starts the lab of
`export/android`: the real adb and adbd, with the emulated ARM64 behind; the tests named
`lab_phone` and those of `test_runners.py` run in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from exported import exported_cnn, sparse_cnn
from fake_phone import READY, FakePhone
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from places import without_lab

import keras_tickets as kt
from keras_tickets._util.extras import require
from keras_tickets._util.model_file import Port
from keras_tickets.runtime import RUNNERS, Runs
from keras_tickets.runtime.android import adb, benchmark_output, phone_target
from keras_tickets.runtime.android import phone as phone_module
from keras_tickets.runtime.android.benchmark_model import VARIABLE, misfit
from keras_tickets.runtime.android.benchmark_output import Summary
from keras_tickets.runtime.android.phone import fastest, identified, warmest
from keras_tickets.runtime.android.phone_target import Android, chunks, split
from keras_tickets.runtime.arm64.emulated_target import Arm64
from keras_tickets.runtime.target import folder_of
from keras_tickets.tflite.file import TfliteFile
from keras_tickets.tflite.interface import OrderedInterface

pytestmark = pytest.mark.backend_independent

ROOT = pathlib.Path(__file__).parents[1]
LAB = ROOT / "export" / "android"
IN_LAB = "KERAS_TICKETS_LAB"

# What the programs print.
OLD = """STARTING!
Log parameter values verbosely: [0]
Min num runs: [50]
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
Replacing 31 out of 31 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 \
partitions for the whole graph.
count=2 first=360262 curr=248910 min=248910 max=360262 avg=304586 std=55676
Running benchmark for at least 50 iterations and at least 1 seconds but terminate if \
exceeding 150 seconds.
count=50 first=249042 curr=250889 min=247067 max=254474 avg=249684 std=1442

Inference timings in us: Init: 16242, First inference: 360262, Warmup (avg): 304586, \
Inference (avg): 249684
"""
NEW = OLD.replace("std=55676", "std=55676 p5=248910 median=360262 p95=360262").replace(
    "std=1442", "std=1442 p5=247500 median=249500 p95=252000"
)
SLOW = OLD.replace("avg=249684 std=1442", "avg=2.95e+06 std=1.2e+05")
PROFILE = """Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t [node type]\t [first]\t [avg ms]\t [%]\t [times called]\t [Name]
\t Convolution (NCHW, F32) Conv2D HWC2CHW\t 0.1\t 0.1\t 1%\t 1\t Delegate/1:0
\t Convolution (NCHW, F32) SPMM\t 0.1\t 0.1\t 1%\t 1\t Delegate/2:0
\t Fully Connected (NC, F32) GEMM\t 0.1\t 0.1\t 1%\t 1\t Delegate/3:0
============================== Top by Computation Time ==============================
\t Convolution (NCHW, F32) SPMM\t 0.1\t 0.1\t 1%\t 1\t Delegate/2:0
"""

PRINTED = {
    "old": (OLD, Summary(50, 0.249684, 0.247067, 0.254474)),
    "new": (NEW, Summary(50, 0.249684, 0.247067, 0.254474, 0.2495)),
    "slow": (SLOW, Summary(50, 2.95, 0.247067, 0.254474)),
    "one run": ("count=1 curr=1234", Summary(1, *[0.001234] * 4)),
    "all the same": (
        "count=3 curr=12(all same) p5=12 median=12 p95=12",
        Summary(3, *[0.000012] * 4),
    ),
    "nan": (
        "count=2 first=1 curr=3 min=1 max=3 avg=2 std=-nan",
        Summary(2, 2e-6, 1e-6, 3e-6),
    ),
}


@pytest.mark.parametrize("name", PRINTED)
def test_what_the_programs_print_is_read(name):
    text, expected = PRINTED[name]
    found = benchmark_output.summary(text)
    assert found.count == expected.count
    for field in ("mean", "fastest", "slowest", "median"):
        wanted = getattr(expected, field)
        assert getattr(found, field) == (wanted and pytest.approx(wanted)), field


@pytest.mark.parametrize(
    "text",
    [
        *("", "count=0", "count=7", "{}"),
        "count=7 first=1 curr=2\ncount=0 p5=nan",
    ],
)
def test_no_times_are_an_error(text):
    """Also where only the runs to warm up are told."""
    with pytest.raises(ValueError, match="no times"):
        benchmark_output.summary(text)


@given(
    st.lists(st.integers(1, 10**8), min_size=2, max_size=60).filter(
        lambda t: len({*t}) > 1
    )
)
def test_any_numbers_are_read_back(times):
    """As C++ streams print them: whole ones in full, others in six digits."""
    line = (
        f"count={len(times)} first={times[0]} curr={times[-1]} min={min(times)} "
        f"max={max(times)} avg={np.mean(times):g} std={np.std(times):g}"
    )
    found = benchmark_output.summary(f"count=1 curr=5\n{line}\n")
    assert found.count == len(times)
    assert found.mean * 1e6 == pytest.approx(np.mean(times), rel=1e-5)
    assert found.fastest * 1e6 == pytest.approx(min(times))
    assert found.slowest * 1e6 == pytest.approx(max(times))


def test_a_profile_tells_the_sparse_path():
    assert benchmark_output.sparse_layout(PROFILE) == 2
    assert benchmark_output.sparse_layout(PROFILE.replace("NCHW", "NHWC")) == 0
    assert benchmark_output.sparse_layout(OLD) is None
    assert benchmark_output.delegated(OLD) == (
        "TfLiteXNNPackDelegate took 31 of 31 nodes"
    )
    assert benchmark_output.delegated(PROFILE) is None


@given(st.integers(1, 500))
def test_chunks_are_about_equal(runs):
    sizes = chunks(runs)
    assert sum(sizes) == runs
    assert len(sizes) == min(runs, 10)
    assert max(sizes) - min(sizes) <= 1


PORTS = [Port("a", (1, 2), "float32"), Port("b", (None, 3), "int8")]
OPEN = [Port("a", (1, None), "float32"), Port("b", (1, 3), "int8")]


@pytest.mark.parametrize(
    ("ports", "batch", "sizes"),
    [
        (PORTS, 1, [(1, 2), (1, 3)]),
        (PORTS, 4, [(1, 2), (4, 3)]),
        (OPEN, 1, [(1, 5), (1, 3)]),
    ],
)
def test_outputs_are_taken_apart(ports, batch, sizes):
    arrays = [
        np.arange(np.prod(size)).reshape(size).astype(port.dtype)
        for port, size in zip(ports, sizes, strict=True)
    ]
    content = b"".join(array.tobytes() for array in arrays)
    found = split(content, OrderedInterface([], ports, {}), batch)
    for array, own in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(own, array)


@pytest.mark.parametrize("ports", [PORTS, OPEN, [OPEN[0], OPEN[0]]])
def test_outputs_of_another_size_are_refused(ports):
    with pytest.raises(RuntimeError, match=r"wrote 10 bytes.*a \(1, "):
        split(b"0123456789", OrderedInterface([], ports, {}), 1)


@pytest.mark.parametrize(
    ("speeds", "threads", "chosen"),
    [
        ({0: 18, 1: 18, 2: 24, 3: 28}, 1, (3,)),
        ({0: 18, 1: 18, 2: 24, 3: 28}, 2, (2, 3)),
        ({0: 18, 1: 18, 2: 24, 3: 28}, 3, (0, 1, 2, 3)),
        ({0: 18, 1: 18}, 8, (0, 1)),
        ({}, 1, ()),
    ],
)
def test_the_fastest_cores_are_chosen(speeds, threads, chosen):
    found = fastest(speeds, threads)
    assert found.chosen == chosen
    bits = sum(2**core for core in chosen)
    assert found.prefix == (f"taskset {bits:x}" if chosen else "")
    assert ("pinned to" in found.note) == bool(chosen)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "zone 41 cpu\nzone 39500 skin\nThermal Status: 2",
            "41.0 °C (cpu), throttling: moderate",
        ),
        ("zone -273000 off\nzone 200000 odd\nzone 30500 gpu 1", "30.5 °C (gpu 1)"),
        ("zone  \nzone x y", "not reported"),
    ],
)
def test_the_warmest_sensor_that_makes_sense_is_told(text, expected):
    assert warmest(text) == expected


def test_an_emulator_is_no_phone():
    assert not identified({"model": "Pixel", "emulator": ""}).emulated
    assert identified({"emulator": "1"}).emulated
    assert identified({"old emulator": "1"}).emulated
    assert identified({}).name == "a phone, Android ?"


ARM, X86 = (
    b"\x7fELF\x02\x01\x01" + bytes(11) + machine + b"\0"
    for machine in (b"\xb7", b"\x3e")
)


@pytest.mark.parametrize(
    ("header", "abis", "reason"),
    [
        (ARM, ("arm64-v8a",), None),
        (ARM, (), None),
        (b"#!/bin/sh", ("arm64-v8a",), None),
        (X86, ("arm64-v8a", "armeabi-v7a"), "for x86_64, and the phone runs arm64-v8a"),
        (ARM, ("armeabi-v7a",), "is for arm64-v8a"),
        (ARM[:10], ("arm64-v8a",), "no program"),
        (b"", ("arm64-v8a",), "no program"),
    ],
)
def test_programs_for_other_processors_are_refused(header, abis, reason):
    found = misfit(header, abis)
    assert found is None if reason is None else reason in found


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(exported_cnn(".tflite")[0])
    return path


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """A fake phone that is ready, as `on="android"`."""
    root = tmp_path / "phone"
    root.mkdir()
    fake = FakePhone(root, monkeypatch)
    monkeypatch.setitem(RUNNERS, "android", fake.runner)
    fake.benchmark(f"cat <<'END'\n{OLD}END")
    return fake


@pytest.mark.parametrize(
    ("text", "mean", "row"),
    [
        (OLD, 249.684, "247.067 to 254.474 ms"),
        (NEW, 249.684, "247.067 to 254.474 ms"),
    ],
    ids=["old", "new"],
)
def test_a_phone_is_timed(text, mean, row, phone, file):
    phone.benchmark(f"cat <<'END'\n{text}END")
    report = kt.benchmark(file, on="android", runs=30, warmup=3, verbose=False)
    assert report.times_ms == pytest.approx([mean] * 10)
    count = benchmark_output.summary(text).count
    assert report.portions == (count,) * 10
    assert report.runs == count * 10
    assert report.conditions["single runs"] == row
    assert report.device == "Google Pixel 6, gs101, Android 14"
    assert not report.emulated
    assert f"{count * 10} in 10 chunks, each after 3 more" in str(report)
    assert "means of chunks" in str(report)
    assert "benchmark_model, SHA-256" in str(report)
    told = json.loads(json.dumps(report.to_dict()))
    assert told["conditions"]["cores"].startswith("not pinned")
    assert told["conditions"]["governor"]
    assert told["portions"] == [count] * 10
    assert phone.is_clean()


def test_the_program_gets_the_file_the_inputs_and_the_numbers(phone, file, tmp_path):
    seen = tmp_path / "seen"
    phone.benchmark(
        f'echo "$@" >>{seen}; cmp $graph {file} || exit 9\n'
        f"wc -c <${{graph%/*}}/input_0 >>{seen}; echo count=1 curr=7"
    )
    kt.benchmark(file, on="android", runs=2, warmup=3, threads=4, verbose=False)
    lines = seen.read_text().splitlines()
    assert lines[1::2] == [str(12 * 12 * 3 * 4)] * 3
    flags = lines[0].split()
    assert {"--num_runs=1", "--warmup_runs=3", "--num_threads=4"} <= {*flags}
    assert {"--min_secs=0", "--warmup_min_secs=0"} <= {*flags}
    assert "--input_layer_shape=1,12,12,3" in flags
    # The profile is not timed.
    assert ["--enable_op_profiling=true" in line for line in lines[::2]] == [
        *(False, False, True)
    ]


def test_few_runs_are_told_one_by_one(phone, file):
    phone.benchmark("echo count=1 curr=7")
    report = kt.benchmark(file, on="android", runs=3, verbose=False)
    assert "3 after 10 to warm up" in str(report)


def test_a_profile_is_told_if_there_is_one(phone, file):
    phone.benchmark(f"cat <<'END'\n{OLD}{PROFILE}END")
    found = kt.benchmark(file, on="android", runs=1, verbose=False).conditions
    assert found["delegate"] == "TfLiteXNNPackDelegate took 31 of 31 nodes"
    assert found["sparse path"].startswith("2 convolutions")
    phone.benchmark(
        "case $* in *profiling*) echo no such flag; exit 1;; esac; echo count=1 curr=7"
    )
    assert "delegate" not in kt.benchmark(file, "android", verbose=False).conditions


def test_a_program_on_this_machine_is_copied_and_removed(
    phone, file, tmp_path, monkeypatch
):
    local = tmp_path / "benchmark"
    local.write_text('#!/bin/sh\necho "$0" >&2; echo count=1 curr=5')
    monkeypatch.setenv(VARIABLE, str(local))
    phone.benchmark("exit 1")
    report = kt.benchmark(file, on="android", runs=1, verbose=False)
    assert report.times_ms == (0.005,)
    assert phone.is_clean()


# What `adb devices` lists, ANDROID_SERIAL, and the error.
ATTACHED = [
    ("\n", None, "No phone is attached. Turn on USB debugging"),
    (
        "R58M\tdevice\nP6\tdevice\n",
        None,
        r"2 phones .* 'R58M', 'P6'. Choose .*ANDROID_SERIAL",
    ),
    ("R58M\tunauthorized\n", None, "'R58M' is 'unauthorized': .*Allow USB debugging"),
    ("R58M\toffline\n", None, "'R58M' is 'offline': .*plug it in again"),
    ("R58M\tno permissions (user in plugdev?); see [x]\n", None, "udev rules"),
    ("R58M\trecovery\n", None, "state 'recovery'; expected 'device'"),
    ("R58M\tdevice\n", "P6", r"names the phone 'P6', .*Attached: 'R58M'"),
    ("R58M\tdevice\nP6\toffline\n", "P6", "'P6' is 'offline'"),
]


@pytest.mark.parametrize(("listed", "serial", "message"), ATTACHED)
def test_not_one_phone_is_told_before_any_work(
    listed, serial, message, phone, file, monkeypatch
):
    phone.devices("* daemon started successfully\nList of devices attached\n" + listed)
    if serial:
        monkeypatch.setenv(adb.SERIAL, serial)
    for call in (kt.benchmark, kt.verify):
        with pytest.raises(
            RuntimeError, match=rf"(?s)not available here\. .*{message}"
        ):
            call(file, on="android")
    assert phone.is_clean()


def test_the_phone_that_is_named_is_used(phone, file, monkeypatch):
    phone.devices(READY + "P6\tdevice\n")
    monkeypatch.setenv(adb.SERIAL, "P6")
    assert kt.benchmark(file, on="android", runs=1, verbose=False).runs == 50


def _no_program(fake, monkeypatch):
    (fake.root / "bin" / "benchmark_model").unlink()


def _not_executable(fake, monkeypatch):
    (fake.root / "bin" / "benchmark_model").chmod(0o644)


def _wrong_here(fake, monkeypatch):
    local = fake.root / "runners" / "android" / "benchmark_model"
    local.parent.mkdir(parents=True)
    local.write_bytes(X86)


def _no_such_file(fake, monkeypatch):
    monkeypatch.setenv(VARIABLE, "/nowhere/benchmark_model")


UNFIT = [
    (_no_program, r"there is none: not in .*benchmark binary for arm64-v8a"),
    (
        lambda fake, _: fake.program("benchmark_model", X86),
        "on the phone is for x86_64",
    ),
    (lambda fake, _: fake.program("benchmark_model", b"PK"), "is no program"),
    (_wrong_here, r"runners/android/benchmark_model' is for x86_64, .* runs arm64-v8a"),
    (_no_such_file, rf"{VARIABLE} names '/nowhere/benchmark_model', which is no file"),
    (_not_executable, r"not executable. Run: adb -s R58M shell chmod \+x"),
]


@pytest.mark.parametrize(("prepare", "message"), UNFIT)
def test_an_unfit_program_is_told_before_any_work(
    prepare, message, phone, file, monkeypatch
):
    prepare(phone, monkeypatch)
    with pytest.raises(RuntimeError, match=rf"not available here\. .*{message}"):
        kt.benchmark(file, on="android", verbose=False)
    assert phone.is_clean()


def test_no_adb(phone, file, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        RuntimeError, match="needs `adb`, and there is none on the PATH"
    ):
        kt.benchmark(file, on="android")


def test_an_adb_of_another_machine(phone, file):
    phone.program("adb", b"\x7fELF")
    with pytest.raises(RuntimeError, match=r"adb' cannot be started: Exec format"):
        kt.benchmark(file, on="android")


def test_an_adb_that_fails(phone, file):
    phone.program("adb", "#!/bin/sh\necho cannot bind; exit 1")
    with pytest.raises(RuntimeError, match="`adb devices` fails: cannot bind"):
        kt.benchmark(file, on="android")


FAILURES = [
    ("echo 'ERROR: op FlexDet'; exit 1", r"ended with exit status 1\..*op FlexDet"),
    ("kill -SEGV $$", r"benchmark_model crashed \(SIGSEGV\)"),
    ("echo Welcome", "printed no times that are known: Welcome"),
    ("exit 126", "The phone cannot start benchmark_model"),
    ("exit 255", r"benchmark_model ended with exit status 255\."),
    ("{unplug}; sleep 0.1", "phone 'R58M' was disconnected while running a command"),
    ("touch {root}/unplugged", "lost the phone 'R58M' for a moment"),
]


@pytest.mark.parametrize(("script", "message"), FAILURES)
def test_what_fails_on_the_phone_is_told(script, message, phone, file):
    phone.benchmark(
        script.replace("{unplug}", phone.unplug()).replace("{root}", str(phone.root))
    )
    said = rf"(?s)cannot be run by benchmark_model on Google Pixel 6.*{message}"
    with pytest.raises(RuntimeError, match=said):
        kt.benchmark(file, on="android", verbose=False)
    assert phone.is_clean()
    if "unplug" not in script:
        with pytest.raises(RuntimeError, match=f"(?s){message.split('printed')[0]}"):
            kt.verify(file, sparse_cnn(), on="android")


def test_a_phone_that_takes_no_file_is_not_lost(phone, file):
    phone.refuse("adb: error: remote No space left on device")
    with pytest.raises(
        RuntimeError,
        match=r"'R58M' is attached, but copying .*' to it failed\. .*No space",
    ):
        kt.benchmark(file, on="android", verbose=False)
    assert phone.is_clean()


def test_a_file_that_looks_like_an_option(phone, file, monkeypatch):
    monkeypatch.chdir(file.parent)
    file.rename("-p.tflite")
    assert kt.benchmark("-p.tflite", on="android", runs=1, verbose=False).runs == 50


def test_an_old_adb_ends_lines_as_terminals_do(phone, file, monkeypatch):
    """Before Android 7 each line ends with a carriage return, too."""
    cores = phone.root / "cpu3" / "cpufreq" / "cpuinfo_max_freq"
    cores.parent.mkdir(parents=True)
    cores.write_text("2840000")
    monkeypatch.setattr(phone_module, "_FASTEST", str(cores))
    cores.with_name("scaling_governor").write_text("schedutil")
    governor = str(cores.with_name("scaling_governor"))
    monkeypatch.setattr(phone_module, "_GOVERNORS", governor)
    phone.program("taskset", '#!/bin/sh\nshift; exec "$@"')
    phone.ends_lines_as_a_terminal()
    report = kt.benchmark(file, on="android", runs=1, verbose=False)
    assert report.conditions["cores"] == "pinned to 3 of 1, up to 2.84 GHz"
    assert report.conditions["governor"] == "schedutil"
    assert report.times_ms == pytest.approx([249.684])


def test_no_number_of_a_process_that_ended_stays(phone, file):
    """By the time that the folder goes, it may be that of another process."""
    phone.benchmark("true")
    with phone.runner.open(file):
        (folder,) = phone.folder.iterdir()
        assert [path.name for path in folder.iterdir()] == ["model.tflite"]


def test_a_silent_phone_is_ended(phone, file, tmp_path):
    pid = tmp_path / "pid"
    phone.benchmark(f"echo $$ >{pid}; exec sleep 60")
    runner = Android(timeout=1, program=phone.runner.program)
    start = time.monotonic()
    with pytest.raises(
        RuntimeError, match=r"no answer for 1 seconds to `.*adb.* shell"
    ):
        runner.time(file, Runs(1))
    assert time.monotonic() - start < 30
    assert phone.is_clean()
    assert_gone(int(pid.read_text()))


def assert_gone(pid: int) -> None:
    """A process has ended, or does so at once."""
    deadline = time.monotonic() + 10
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.05)
        raise AssertionError(f"process {pid} is still running")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_whatever_ends_the_block_nothing_is_left(error, phone, file):
    def interrupted():
        with phone.runner.open(file):
            assert not phone.is_clean()
            raise error

    phone.benchmark("true")
    with pytest.raises(error):
        interrupted()
    assert phone.is_clean()


def test_what_else_is_in_the_folder_stays(phone, file):
    phone.folder.mkdir()
    (phone.folder / "mine").touch()
    kt.benchmark(file, on="android", runs=1, verbose=False)
    assert [path.name for path in phone.folder.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_made(phone, file):
    phone.folder.touch()
    with pytest.raises(RuntimeError, match="cannot be made on the phone 'R58M'"):
        kt.benchmark(file, on="android", verbose=False)


def test_outputs_come_back(phone, file):
    """Through the lab's program, on this machine."""
    program = LAB / "phone" / "benchmark_model.py"
    phone.benchmark(f'exec {sys.executable} -P {program} "$@"')
    assert kt.verify(file, sparse_cnn(), on="android").max_rel < 1e-5
    assert phone.is_clean()


def several() -> keras.Model:
    """Two inputs and two outputs, in another order than that of their names."""
    z, a = keras.Input((3,), name="z"), keras.Input((5,), name="a")
    y = layers.Dense(4, name="y")(layers.Concatenate()([z, a]))
    return keras.Model({"z": z, "a": a}, {"y": y, "b": layers.Dense(2, name="b")(y)})


def test_several_inputs_and_outputs_keep_their_names(phone, tmp_path):
    model, path = several(), tmp_path / "several.tflite"
    kt.export(model, path, verbose=False)
    program = LAB / "phone" / "benchmark_model.py"
    phone.benchmark(f'exec {sys.executable} -P {program} "$@"')
    values = {
        "z": np.arange(3, dtype="float32")[None],
        "a": np.arange(5, dtype="float32")[None],
    }
    expected = model.predict(values, verbose=0)
    with phone.runner.open(path) as runtime:
        received = runtime.run(values)
    assert {*received} == {*runtime.outputs} == {"y", "b"}
    for name, value in received.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5)


def test_the_order_is_that_of_the_graph(tmp_path):
    """Against the interpreter, which counts the tensors of the graph."""
    interpreter = require("ai_edge_litert.interpreter", "export").Interpreter
    path = tmp_path / "several.tflite"
    kt.export(several(), path, verbose=False)
    loaded = interpreter(str(path))
    found = TfliteFile.read(path).ordered_interface()
    sizes = [port.shape[1] for port in (*found.inputs, *found.outputs)]
    details = (*loaded.get_input_details(), *loaded.get_output_details())
    assert sizes == [detail["shape"][1] for detail in details]
    assert {port.name: port.shape[1] for port in found.inputs} == {"z": 3, "a": 5}
    at = {
        name: found.outputs[index].shape[1] for name, index in found.positions.items()
    }
    assert at == {"y": 4, "b": 2}


def test_a_program_that_knows_no_outputs(phone, file):
    with pytest.raises(RuntimeError, match=r"wrote no outputs.*on='arm64'"):
        kt.verify(file, sparse_cnn(), on="android")
    assert phone.is_clean()


def test_onnx_is_refused_by_name(tmp_path):
    (tmp_path / "m.onnx").touch()
    with pytest.raises(ValueError, match=r"on='android' runs \.tflite files only"):
        kt.benchmark(tmp_path / "m.onnx", on="android")


# The lab.

outside = pytest.mark.skipif(IN_LAB in os.environ, reason="this is the lab")


def no_lab() -> str | None:
    """What keeps the lab from starting."""
    if reason := Arm64().missing(".tflite"):
        return reason
    if not (folder_of("android-lab") / "adbd").exists():
        return "There is no adbd; export/android/build gets it."
    tried = subprocess.run(
        [LAB / "lab", "true"], capture_output=True, text=True, timeout=60, check=False
    )
    return None if tried.returncode == 0 else tried.stderr.strip()


@outside
@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_end_to_end():
    """The real adb and adbd, the emulated ARM64: what a fake phone cannot show."""
    if reason := no_lab():
        without_lab(reason)
    tests = ["tests/test_runners.py", "tests/test_android.py"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *tests]
    # Of the contract of all places, what a fake phone cannot show: that files compute.
    contract = "android.tflite and computes"
    chosen = ["-k", f"lab_phone or {contract}", "-rs", "--timeout", "600"]
    said = subprocess.run(
        [LAB / "lab", *command, *chosen],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert "skipped" not in said.stdout, said.stdout


@pytest.fixture
def lab_phone():
    """The root folder of the lab's phone."""
    if IN_LAB not in os.environ:
        pytest.skip("not in the lab")
    return pathlib.Path(os.environ[IN_LAB])


def left_on(lab_phone) -> list[str]:
    folder = lab_phone / "data" / "local" / "tmp" / "keras_tickets"
    names = (path.name for path in folder.iterdir())
    return [name for name in names if not name.startswith("benchmark_model")]


def test_lab_phone_report(lab_phone, file, monkeypatch):
    monkeypatch.setattr(phone_target, "_CHUNKS", 2)  # Each takes seconds to start.
    report = kt.benchmark(file, on="android", runs=3, warmup=1, verbose=False)
    assert report.emulated
    assert "ratios only" in str(report)
    assert report.device == "keras_tickets lab, emulated cortex-a76, Android 14"
    assert report.portions == (2, 1)
    assert min(report.times_ms) > 0
    count = os.sysconf("SC_NPROCESSORS_ONLN")
    pinned = f"pinned to {count - 1} of {count}, up to 2.80 GHz"
    assert report.conditions["cores"] == pinned
    assert report.conditions["governor"] == "schedutil"
    assert report.conditions["warmest before"] == "41.2 °C (cpu-1-7), throttling: none"
    assert left_on(lab_phone) == []


def test_lab_phone_of_another_processor(lab_phone, file, monkeypatch):
    monkeypatch.setenv(VARIABLE, os.path.realpath("/bin/true"))
    with pytest.raises(
        RuntimeError, match=r"/true' is for .*, and the phone runs arm64"
    ):
        kt.benchmark(file, on="android")


@pytest.fixture
def second(lab_phone):
    """The same phone once more, over the network."""
    serial = "127.0.0.1:5555"
    subprocess.run(["adb", "connect", serial], check=True, capture_output=True)
    subprocess.run(["adb", "-s", serial, "wait-for-device"], check=True)
    yield serial
    subprocess.run(["adb", "disconnect", serial], check=False, capture_output=True)


def test_lab_phone_twice(second, file):
    with pytest.raises(RuntimeError, match=r"2 phones are attached.*ANDROID_SERIAL"):
        kt.benchmark(file, on="android")


WAITING = """
import pathlib, sys
from keras_tickets.runtime.android import adb
with adb.attached(60).folder() as folder:
    print(folder, flush=True)
    adb.attached(60).shell(f"sh -c 'echo $$ >{folder}/run.pid; exec sleep 600'")
"""


@pytest.mark.parametrize("how", ["unplugged", "killed", "interrupted", "server killed"])
def test_lab_phone_cleans_up(how, lab_phone, second, monkeypatch):
    """Whatever happens to cable and computer while a program runs on the phone."""
    monkeypatch.setenv(adb.SERIAL, second)
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = lab_phone / process.stdout.readline().strip().lstrip("/")
    pid = _eventually(lambda: (folder / "run.pid").read_text().strip())
    if how == "unplugged":
        subprocess.run(["adb", "disconnect", second], check=True, capture_output=True)
    elif how == "server killed":
        subprocess.run(["adb", "kill-server"], check=True)
    else:
        process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode != 0
    if how == "unplugged":
        assert f"The phone '{second}' was disconnected while running" in words
    assert_gone(int(pid))
    _eventually(lambda: not folder.exists())


def _eventually(call):
    """What a call comes to within ten seconds."""
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):
            if found := call():
                return found
        time.sleep(0.1)
    raise AssertionError("it does not happen")
