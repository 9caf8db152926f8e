"""LiteRT.js in Node: what it runs, what it cannot, what is missing."""

from __future__ import annotations

import json
import os
import pathlib
import time

import numpy as np
import pytest
from exported import exported_cnn
from places import (
    BAD_HEAD,
    BROKEN,
    LOADED,
    available,
    exported_network,
    fake_build,
    fake_node,
)

import keras_tickets as kt
from keras_tickets.runtime import Runs
from keras_tickets.runtime.target import VARIABLE
from keras_tickets.runtime.wasm import _PROGRAM, Wasm

LAB = pathlib.Path(__file__).parents[1] / "keras_tickets" / "runtime" / "labs" / "wasm"

pytestmark = pytest.mark.backend_independent


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(exported_cnn(".tflite")[0])
    return path


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Puts a `node` of the test's own, and what looks built, in place of the real."""

    def replace(body: str = "", version: str = "v20.20.2", built: str = _PROGRAM):
        monkeypatch.setenv("PATH", fake_node(tmp_path, body, version))
        monkeypatch.setenv(VARIABLE, fake_build(tmp_path / "runners", built))

    return replace


@pytest.mark.lab
@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("keepdims", r"loaded but cannot run\. XNNPack delegate failed to reshape"),
        ("concatenate", r"does not compute what 'concatenate' computes"),
    ],
)
def test_what_x86_computes_rightly_is_found_out(head, message, tmp_path):
    """LiteRT.js answers zeros for the one, and garbage for the other."""
    available("wasm", ".tflite")
    model, content = exported_network(head)
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    assert kt.verify(path, model).max_rel < 1e-5
    with pytest.raises(RuntimeError, match=message) as caught:
        kt.verify(path, model, on="wasm")
    assert "on='wasm'" in str(caught.value)
    assert "sparse=False" in str(caught.value)


@pytest.mark.lab
def test_a_network_that_runs_sparse_throughout_is_right(tmp_path):
    available("wasm", ".tflite")
    model, content = exported_network("right")
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    assert kt.verify(path, model, on="wasm").max_rel < 1e-5


@pytest.mark.lab
def test_counting_changes_no_output(tmp_path):
    runner = available("wasm", ".tflite")
    path = tmp_path / "m.tflite"
    path.write_bytes(exported_network("right")[1])
    image = np.random.default_rng(0).random((1, 32, 32, 3), dtype="float32")
    with runner.open(path) as plain, runner.probed(path) as probed:
        for _ in range(2):
            expected, received = (
                file.run({"image": image}) for file in (plain, probed)
            )
            for name, value in expected.items():
                np.testing.assert_array_equal(received[name], value)
        assert plain.inputs == probed.inputs
        (kernel,) = probed.count({"image": image})["convolution"]
    # Three runs of two nodes.
    assert kernel == {"kernel": "f32 32x1", "outputs": [64, 64], "calls": 6}


# What another LiteRT.js might do, each by a change of the probe.
OTHERS = [
    (
        'KNOWN = "2.5.3"',
        'KNOWN = "2.5.4"',
        r"knows LiteRT\.js 2\.5\.4; this is 2\.5\.3",
    ),
    ("parameters: 9", "parameters: 29", "no function takes 29 arguments"),
    ("invoke: 13", "invoke: 20", "no operator was seen to run"),
    ("third - second", "second - third", "weights of f32 32x1 are packed in another"),
    ("this.#table.set(slot", "void (slot", "no operator was seen to run"),
]


@pytest.mark.lab
@pytest.mark.parametrize(("old", "new", "message"), OTHERS)
def test_another_litertjs_is_an_error_and_no_zero(
    old, new, message, tmp_path, monkeypatch
):
    built = available("wasm", ".tflite").folder
    folder = tmp_path / "wasm"
    folder.mkdir()
    for file in (*built.glob("*.mjs"), *built.glob("*.json")):
        (folder / file.name).write_text(file.read_text())
    (folder / "node_modules").symlink_to(built / "node_modules")
    code = (folder / "probe.mjs").read_text()
    assert code.count(old) == 1
    (folder / "probe.mjs").write_text(code.replace(old, new))
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    path = tmp_path / "m.tflite"
    path.write_bytes(exported_network("right")[1])
    with pytest.raises(RuntimeError, match=message):
        kt.mobile.sparse_path(path, on="wasm")


@pytest.mark.lab
def test_inputs_of_another_shape_are_refused(file):
    runner = available("wasm", ".tflite")
    image = np.zeros((2, 12, 12, 3), "float32")
    with (
        runner.open(file) as runtime,
        pytest.raises(RuntimeError, match=r"\(1, 12, 12, 3\) only. Received: \(2, 12"),
    ):
        runtime.run({"image": image})


def test_one_thread_only(file, node):
    node()
    with pytest.raises(ValueError, match=r"expected threads=1.*threads=2"):
        kt.benchmark(file, on="wasm", threads=2, verbose=False)


# What a `node` does that has loaded a file, when it is asked.
ASKED = f"print({LOADED!r}, flush=True)\nquestion = json.loads(input())\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"print({BROKEN!r})", "Failed to load model from buffer"),
        (ASKED + f"print({BAD_HEAD!r})", "XNNPack delegate failed to reshape runtime"),
        (
            "print('no memory', file=sys.stderr)\nsys.exit(3)",
            r"exit status 3 when the file was loaded\. Its last words:\nno memory",
        ),
        (ASKED + "import os; os.abort()", r"crashed \(SIGABRT\) when the file was run"),
        ("print('Welcome to Node')", "exit status 0 when the file was loaded"),
        (f"print('Welcome to Node')\nprint({BROKEN!r})", "Failed to load model"),
    ],
    ids=["broken", "bad head", "dies", "crashes", "babbles", "babbles first"],
)
def test_what_node_says_becomes_an_error(body, message, file, node):
    node(body)
    said = rf"cannot be run by LiteRT\.js\. .*{message}"
    with pytest.raises(RuntimeError, match=said):
        kt.benchmark(file, on="wasm", verbose=False)


@pytest.fixture
def hanging(node, tmp_path):
    """A `node` that says something and then hangs; and a check that it is gone."""
    pid = tmp_path / "pid"

    def hang(says: str = ""):
        node(
            f"import os\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\n"
            f"print({says!r}, flush=True) if {says!r} else None\ntime.sleep(60)"
        )

    begin = time.monotonic()
    yield hang
    assert time.monotonic() - begin < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_silent_node_is_ended(file, hanging):
    hanging()
    with pytest.raises(RuntimeError, match=r"gave no answer for 0\.5 seconds"):
        Wasm(timeout=0.5).time(file, Runs(1))


def test_ctrl_c_ends_a_node_that_hangs(file, hanging):
    hanging(LOADED)

    def interrupted():
        with Wasm().open(file):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_runs_are_asked_for_in_portions(file, node):
    """The first alone, then what takes about half a second: 0.5 s / 100 ms = 5."""
    node(
        f"""print({LOADED!r}, flush=True)
for line in sys.stdin:
    runs = json.loads(line)["runs"]
    print(json.dumps({{"seconds": [0.1] * runs, "shapes": [[1, 5]]}}), flush=True)
"""
    )
    told: list[int] = []
    timing = Wasm().time(file, Runs(10, warmup=2, progress=told.append))
    assert timing.seconds == (0.1,) * 10
    assert told == [1, 6, 11, 12]
    assert timing.runtime == "LiteRT.js 2.5.3 (litert_wasm_internal), Node 20.20.2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "v18.19.1"}, "needs Node 20 or newer; .* says v18.19.1"),
        ({"version": "moo"}, "needs Node 20 or newer; .* says moo"),
        ({"built": "0.0.1"}, rf"of version 0.0.1, but {_PROGRAM} is needed"),
    ],
)
def test_other_versions_are_told(options, message, node):
    node(**options)
    with pytest.raises(RuntimeError, match=message):
        Wasm().check(pathlib.Path("m.tflite"))


def test_nothing_is_installed(node, monkeypatch, tmp_path):
    node()
    assert Wasm().missing(".tflite") is None
    (Wasm().folder / "package.json").unlink()
    assert "keras-tickets setup wasm" in Wasm().missing(".tflite")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    assert "keras-tickets setup wasm" in Wasm().missing(".tflite")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert "no `node` on the PATH" in Wasm().missing(".tflite")


@pytest.mark.lab
def test_what_is_built_is_what_lies_here():
    """Else the build is an older one: run `keras-tickets setup wasm`."""
    runner = available("wasm", ".tflite")
    for file in (*LAB.glob("*.mjs"), LAB / "package-lock.json"):
        assert (runner.folder / file.name).read_bytes() == file.read_bytes()


def test_what_is_pinned_agrees():
    package = json.loads((LAB / "package.json").read_text())
    lock = json.loads((LAB / "package-lock.json").read_text())
    assert package["version"] == lock["version"] == _PROGRAM
    core = lock["packages"]["node_modules/@litertjs/core"]
    # The probe looks into one version.
    assert f'KNOWN = "{core["version"]}"' in (LAB / "probe.mjs").read_text()
    assert package["dependencies"] == {"@litertjs/core": core["version"]}
    # Where a package is fetched from is the machine's own setting.
    assert not any("resolved" in entry for entry in lock["packages"].values())
