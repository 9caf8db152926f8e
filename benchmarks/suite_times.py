"""What the suites of tests cost: seconds of each suite, of its files and longest tests.

    python -m benchmarks.suite_times --label after
    python -m benchmarks.suite_times tensorflow jax --label after

Each suite is run as the Makefile runs it, one after the other; nothing else should run
on the machine. `cpu` counts the processes of a suite, those that tests start included
if they have ended with it. The seconds of files and tests are those of their workers'
clocks, with what they set up. A suite that fails is told, and is no row.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from typing import Any

from benchmarks.record import Record

ROOT = pathlib.Path(__file__).parents[1]
QUICK, SLOW = "not slow and not lab", "slow and not lab"
# Backend and markers of each suite; `lowest` is to be run in an environment of its own.
SUITES = {
    "tensorflow": ("tensorflow", QUICK),
    "jax": ("jax", QUICK),
    "torch": ("torch", QUICK),
    "lowest": ("tensorflow", f"lowest and {QUICK}"),
    "slow-tensorflow": ("tensorflow", SLOW),
    "slow-jax": ("jax", SLOW),
    "labs": ("tensorflow", "lab"),
}
LONGEST = 20


def measure(suite: str) -> dict[str, Any]:
    """Returns what one run of a suite took."""
    backend, markers = SUITES[suite]
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-n", "logical"]
        command += ["--maxprocesses", "4", "--dist", "worksteal", "-m", markers]
        before, start = cpu(), time.perf_counter()
        done = subprocess.run(
            [*command, f"--junitxml={report}"],
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": backend},
            check=False,
        )
        wall = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(
                f"The suite {suite!r} failed; its tests are named above."
            )
        tests = seconds_of(report)
    return {
        "command": " ".join(command[1:-1]) + f" {markers!r}",
        "tests": len(tests),
        "wall": round(wall, 1),
        "cpu": round(cpu() - before, 1),
        "files": by_file(tests),
        "longest": [
            [name, second] for second, name in sorted(tests)[: -LONGEST - 1 : -1]
        ],
    }


def cpu() -> float:
    """Returns the CPU seconds of all processes that this one waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds_of(report: pathlib.Path) -> list[tuple[float, str]]:
    """Returns the seconds and the name of each test of a JUnit report."""
    cases = ET.parse(report).getroot().iter("testcase")
    return [
        (
            float(case.attrib["time"]),
            f"{case.attrib['classname']}.{case.attrib['name']}",
        )
        for case in cases
    ]


def by_file(tests: list[tuple[float, str]]) -> dict[str, float]:
    """Returns the seconds of each file, of the longest first."""
    total: collections.Counter = collections.Counter()
    for seconds, name in tests:
        test_file = name.startswith("tests.")
        total[".".join(name.split(".")[:2]) if test_file else "docstrings"] += seconds
    return {name: round(seconds, 1) for name, seconds in total.most_common()}


def main() -> None:
    """Runs the suites that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--label", required=True, help="the state of the tests: a word")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.suites) - set(SUITES)):
        parser.error(f"unknown suites {unknown}; there are {list(SUITES)}")
    record = Record("suite_times", "the tests of this package")
    for suite in arguments.suites or ("tensorflow", "jax"):
        results = record.row(
            lambda suite=suite: measure(suite), suite=suite, label=arguments.label
        )
        print(f"{suite}: {results['tests']} tests, {results['cpu']} s of CPU")


if __name__ == "__main__":
    main()
