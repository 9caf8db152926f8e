"""What the README shows is run as it stands."""

from __future__ import annotations

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / "README.md"


def python_blocks(path: pathlib.Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    blocks = python_blocks(README)
    assert len(blocks) == 12
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert (tmp_path / "model.tflite").stat().st_size == names["report"].bytes
    assert names["report"].zeros >= names["ticket"].mask_set.count().zeros
    assert "90.00 %" in capsys.readouterr().out
    names["kt"].export(
        names["ticket"], "model.onnx", samples=names["x"][:4], overwrite=True
    )
    for block in python_blocks(ROOT / "export" / "README.md"):
        exec(compile(block, "export/README.md", "exec"), {})
    assert "(1, 10)" in capsys.readouterr().out


def test_both_commands_are_named():
    text = README.read_text()
    assert "make demo" in text
    assert "make test" in text
