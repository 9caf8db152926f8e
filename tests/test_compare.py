"""Files beside each other: in turns, as ratios, in one table."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner
from exported import exported_cnn

import keras_tickets as kt
from keras_tickets.cli import main
from keras_tickets.runtime import RUNNERS, Timing

pytestmark = pytest.mark.backend_independent


@pytest.fixture
def files(tmp_path):
    for name in ("dense.tflite", "sparse.tflite", "model.onnx"):
        (tmp_path / name).write_bytes(exported_cnn(f".{name.split('.')[1]}")[0])
    return {p.stem: p for p in sorted(tmp_path.iterdir())}


@pytest.fixture
def clock(monkeypatch):
    """Three places in which "sparse" needs a half of the time, of a slowing machine."""
    asked = []

    def runs_in(place, emulated=False, portions=(), conditions=lambda path, slow: {}):
        def time(path, runs):
            asked.append((place, path.stem, runs.count, runs.warmup, runs.threads))
            slow = len(asked) * (1 if path.stem == "sparse" else 2)
            return Timing(
                (slow / 1000,) * runs.count,
                f"{place} 1",
                "a desk",
                emulated,
                portions,
                conditions=conditions(path, slow),
            )

        monkeypatch.setattr(RUNNERS[place], "time", time)
        monkeypatch.setattr(RUNNERS[place], "missing", lambda suffix: None)

    runs_in("host")
    runs_in("android", portions=(2, 2), conditions=of_a_phone)
    runs_in("arm64", emulated=True)
    return asked


def of_a_phone(path, slow):
    """One that gets warmer."""
    kernels = {"sparse path": f"{len(path.stem)} convolutions"}
    return {"cores": "pinned to 3", "warmest": f"{40 + slow} °C", **kernels}


def compare(files, *names, **options):
    chosen = {name: files[name] for name in names}
    return kt.mobile.compare(chosen, verbose=False, **options)


def test_files_take_turns_in_alternating_order(files, clock):
    table = compare(files, "dense", "sparse", turns=3, runs=4, warmup=1, threads=2)
    order = [name for _, name, *_ in clock]
    assert order == ["dense", "sparse", "sparse", "dense", "dense", "sparse"]
    assert {entry[2:] for entry in clock} == {(4, 1, 2)}
    # By hand: turns of 2 and 2, 8 and 3, 10 and 6 milliseconds.
    dense, sparse = (row.latencies["host"] for row in table.rows)
    assert (dense.median_ms, sparse.median_ms) == pytest.approx((8, 3))
    assert (dense.speed_up_low, dense.speed_up, dense.speed_up_high) == (1, 1, 1)
    found = (sparse.speed_up_low, sparse.speed_up, sparse.speed_up_high)
    assert found == pytest.approx((1, 10 / 6, 8 / 3))


def test_what_is_emulated_is_a_ratio_and_no_time(files, clock):
    table = compare(files, "dense", "sparse", on=["arm64", "host"])
    header = table.to_markdown().splitlines()[0]
    assert "arm64, emulated ratio" in header
    assert "arm64, ms" not in header
    assert "host, ms | host, speed-up" in header
    assert "arm64: arm64 1, a desk, emulated" in table.to_markdown()


def test_all_forms_tell_the_same(files, clock):
    table = compare(files, "dense", "sparse", accuracy={"sparse": 0.9806})
    markdown = table.to_markdown()
    size = files["dense"].stat().st_size
    assert f"| dense | {size:,} |" in markdown
    assert "| 0.9806 |" in markdown
    kept = json.loads(json.dumps(table.to_dict()))
    assert kept["rows"][1]["accuracy"] == 0.9806
    assert kept["rows"][0]["bytes"] == size
    for cell in re.findall(r"[\d.,]+", markdown.splitlines()[2]):
        assert cell in str(table)


def test_means_are_not_told_as_single_runs(files, clock):
    told = compare(files, "dense", on=["android", "host"]).to_markdown()
    assert "- android: android 1, a desk, means of several runs; cores: " in told
    assert "- host: host 1, a desk\n" in told


def test_what_a_phone_tells_is_told(files, clock):
    table = compare(files, "dense", "sparse", on="android", turns=2)
    expected = {
        "cores": "pinned to 3",
        "warmest": "42 °C at first, 48 °C at last",
        "sparse path": "5 convolutions (dense), 6 convolutions (sparse)",
    }
    assert table.to_dict()["places"]["android"]["conditions"] == expected
    for told in (table.to_markdown(), str(table)):
        words = " ".join(told.split())
        assert all(
            f"; {topic}: {words_}" in words for topic, words_ in expected.items()
        )


def test_any_name_fits_into_one_cell(files, clock):
    table = kt.mobile.compare({"a|b\nc": files["dense"]}, verbose=False)
    assert table.to_markdown().splitlines()[2].startswith("| a\\|b c | ")


def test_without_accuracy_there_is_no_such_column(files, clock):
    assert "accuracy" not in compare(files, "dense").to_markdown()


@pytest.mark.parametrize(
    ("names", "options", "error", "message"),
    [
        ((), {}, ValueError, "no file to compare"),
        (("dense",), {"on": "moon"}, ValueError, "on='moon'. Available"),
        (("dense", "model"), {"on": "wasm"}, ValueError, r"\.tflite files only"),
        (("dense",), {"turns": 0}, ValueError, "`turns` must be an integer"),
        (("dense",), {"runs": True}, ValueError, "runs=True"),
        (("dense",), {"accuracy": {"moon": 1}}, ValueError, "'moon'.*'dense'"),
        (("dense",), {"on": ("host", "wasm"), "threads": 2}, ValueError, "threads=1"),
    ],
)
def test_bad_arguments_are_found_before_any_run(
    names, options, error, message, files, clock
):
    with pytest.raises(error, match=message):
        compare(files, *names, **options)
    assert not clock


def test_real_files_in_both_formats(files, capsys):
    paths = list(files.values())
    table = kt.mobile.compare(paths, turns=2, runs=3, warmup=1)
    assert "6/6" in capsys.readouterr().out
    assert [row.name for row in table.rows] == [str(path) for path in paths]
    assert all(row.latencies["host"].median_ms > 0 for row in table.rows)
    for runtime in ("ai-edge-litert", "onnxruntime"):
        assert runtime in table.places["host"].runtime


@pytest.mark.parametrize(
    ("style", "sign"), [([], "speed-up"), (["--markdown"], "| ---: |")]
)
def test_the_command_prints_the_table(style, sign, files, clock):
    paths = [str(files["dense"]), str(files["sparse"])]
    result = CliRunner().invoke(main, ["benchmark", *paths, "--turns", "1", *style])
    assert result.exit_code == 0
    assert sign in result.stdout


def test_the_command_prints_json(files, clock):
    arguments = ["--on", "arm64", "--on", "host", "--json"]
    result = CliRunner().invoke(main, ["benchmark", str(files["dense"]), *arguments])
    assert list(json.loads(result.stdout)["places"]) == ["arm64", "host"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nowhere.tflite"], 2, "nowhere.tflite"),
        (["{dense}", "--on", "moon"], 2, "on='moon'"),
        (["{broken}"], 1, "cannot be run by ai-edge-litert"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, status, message, files, tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model")
    filled = [part.format(dense=files["dense"], broken=broken) for part in arguments]
    result = CliRunner().invoke(main, ["benchmark", *filled])
    assert (result.exit_code, result.stdout) == (status, "")
    assert message in result.stderr
