"""The counts of a package's structure, on small packages where the answer is known."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from benchmarks import house

pytestmark = pytest.mark.backend_independent

# Two files use `base`, and nobody uses them.
CLEAN = {
    "__init__.py": "",
    "base.py": "class Base:\n    def run(self): ...\n\ndef _run(): ...\n",
    "one.py": "import json\n\nfrom toy.base import Base\n\ndef first(): ...\n",
    "two.py": "import toy.base\n\nclass Second: ...\n",
}
NONE = {
    "modules_with_one_client": [],
    "repeated_basenames": [],
    "repeated_public_names": [],
    "rings": [],
}
# What is planted: files, and what is found then.
PLANTED = {
    "nothing": ({}, {}),
    "client, late": (
        {"one.py": "def first():\n    from toy import base, two\n"},
        {"modules_with_one_client": ["toy.two"]},
    ),
    "ring, late and type-only": (
        {
            "base.py": "def run():\n    from toy.one import first\n",
            "one.py": "if TYPE_CHECKING:\n    from . import base\n",
        },
        {
            "modules_with_one_client": ["toy.one"],
            "rings": [["toy.base", "toy.one"]],
        },
    ),
    "ring through a folder": (
        {
            "inner/__init__.py": "from .deep import first\n",
            "inner/deep.py": "from ..base import Base\n",
            "base.py": "import toy.inner\n",
        },
        {
            "modules_with_one_client": ["toy.inner", "toy.inner.deep"],
            "rings": [["toy.base", "toy.inner", "toy.inner.deep"]],
        },
    ),
    "basename": (
        {"inner/__init__.py": "", "inner/one.py": ""},
        {"repeated_basenames": ["one"]},
    ),
    "public name": (
        {"two.py": "import toy.base\n\nasync def first(): ...\n\ndef _run(): ...\n"},
        {"repeated_public_names": ["first"]},
    ),
}


def write(folder: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
    for name, text in files.items():
        path = folder / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "toy"


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_is_counted(tmp_path, planted):
    files, found = PLANTED[planted]
    counts = house.count_source(write(tmp_path, {**CLEAN, **files}))
    names = counts.pop("names")
    assert names == {**NONE, **found}
    assert counts.pop("rings") == [len(ring) for ring in names.pop("rings")]
    assert {key: counts[key] for key in names} == {k: len(v) for k, v in names.items()}


def test_sizes(tmp_path):
    counts = house.count_source(write(tmp_path, {**CLEAN, "inner/deep.py": "x = 1\n"}))
    sizes = {"files": 5, "lines": 13, "longest_file": 5, "flat_modules": 3}
    assert counts.items() >= {**sizes, "imports": 2}.items()


def test_source_is_counted_without_packages(tmp_path):
    script = ["-m", "benchmarks.house", "--static", "--package"]
    done = subprocess.run(
        [sys.executable, "-S", *script, str(write(tmp_path, CLEAN))],
        capture_output=True,
        text=True,
        check=True,
        cwd=pathlib.Path(house.__file__).parents[1],
    )
    assert ["source", "files", "4"] in [
        line.split() for line in done.stdout.split("\n")
    ]
