"""What the README and the pages under `docs/` show is run as it stands."""

from __future__ import annotations

import pathlib
import re

import pytest

pytestmark = pytest.mark.backend_independent

ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))


def python_blocks(path: pathlib.Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def run(path: pathlib.Path, names: dict) -> None:
    for block in python_blocks(path):
        exec(compile(block, str(path.relative_to(ROOT)), "exec"), names)


def leave_files_behind(folder: pathlib.Path, blocks: list[str]) -> None:
    """Have a file of each name that the blocks write, as after an earlier run."""
    for name in re.findall(r'"([\w.]+\.(?:tflite|onnx|npz))"', "".join(blocks)):
        (folder / name).touch()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    blocks = [block for page in (README, *DOCS) for block in python_blocks(page)]
    assert len(blocks) == 15
    leave_files_behind(tmp_path, blocks)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    run(README, names)
    for page in DOCS:  # Each goes on from the README, not from the other pages.
        run(page, dict(names))
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


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 300
