"""How the package is built: its files, its imports, and what one call goes through.

    KERAS_BACKEND=tensorflow python -m benchmarks.house --out benchmarks/results/x.json
    python -m benchmarks.house --static

Counts one tree, so that two can be compared: `--package` names the folder of another
`keras_tickets`. No module is named but by the public names that lead there, and nothing
of the package is imported by this process. `--static` reads the source only, which
needs neither Keras nor an environment.

- `source`: an import is an `import` statement anywhere in a file, a late or a type-only
  one too, from the module that states it to the module that it names: the submodule if
  the name is one, and else the module that holds it. What importing a submodule loads
  on the way (the `__init__` above it) is no import of its own. A *client* of a module
  imports it. A *ring* is a strongly connected component of two modules or more. A
  *public name* is a function or class without a leading underscore at a file's top.
- `fit`, `export`: `wrap`, `compile` and `fit`, and `export` of a ticket, each in a
  fresh process. A module is entered if a function of it is called in that process;
  importing it is not enough, and processes that it starts do not count.
- In `export`, likewise, a *parse* unpacks a whole `.tflite` (`ModelT.InitFromObj` in
  LiteRT's generated schema, to which all its ways of unpacking lead), a *pack* writes
  one (`ModelT.Pack`), a *view* reads one in place (`Model.GetRootAs`). TensorFlow's
  converter has a schema of its own, and runtimes read files in C++: neither counts.
- `inspect`, `diagnose`: the seconds of the command as a whole process, on the file of
  `export`, and which frameworks it has loaded when it ends. One more run goes first.
"""

from __future__ import annotations

import argparse
import ast
import collections
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

Graph = dict[str, set[str]]

PACKAGE = pathlib.Path(__file__).parents[1] / "keras_tickets"
CALLS = pathlib.Path(__file__).with_name("house_calls.py")
FRAMEWORKS = ("keras", "tensorflow", "jax", "torch")
RUNS = 5

# As the installed command; a tree that has no module beside the package for it looks at
# its name.
COMMAND = f"""
import importlib.util, json, pkgutil, sys
sys.argv[0] = "keras-tickets"
beside = importlib.util.find_spec("keras_tickets_command")
try:
    module = "keras_tickets_command" if beside else "keras_tickets.cli"
    pkgutil.resolve_name(module + ":main")()
finally:
    loaded = [name for name in {FRAMEWORKS} if name in sys.modules]
    print(json.dumps(loaded), file=sys.stderr)
"""


def count_source(package: pathlib.Path) -> dict[str, Any]:
    """Counts what the files say, without importing any."""
    texts = {path: path.read_text("utf-8") for path in sorted(package.rglob("*.py"))}
    trees = {module_of(path, package): ast.parse(text) for path, text in texts.items()}
    places = {module_of(path, package): path for path in texts}
    graph = {
        name: set(imports(tree, name, places[name].stem == "__init__", trees)) - {name}
        for name, tree in trees.items()
    }
    flat = [p for p in texts if p.parent == package and p.stem != "__init__"]
    one_client = sorted(m for m, c in clients(graph).items() if len(c) == 1)
    basenames = repeated((path.stem, path) for path in texts if path.stem != "__init__")
    names = repeated(
        (name, module) for module, tree in trees.items() for name in public_names(tree)
    )
    found = rings(graph)
    return {
        "files": len(texts),
        "lines": sum(len(text.splitlines()) for text in texts.values()),
        "longest_file": max(len(text.splitlines()) for text in texts.values()),
        "flat_modules": len(flat),
        "imports": sum(map(len, graph.values())),
        "modules_with_one_client": len(one_client),
        "repeated_basenames": len(basenames),
        "repeated_public_names": len(names),
        "rings": [len(ring) for ring in found],
        "names": {
            "modules_with_one_client": one_client,
            "repeated_basenames": sorted(basenames),
            "repeated_public_names": sorted(names),
            "rings": found,
        },
    }


def module_of(path: pathlib.Path, package: pathlib.Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(
    tree: ast.Module, module: str, is_package: bool, known: dict[str, ast.Module]
) -> Iterator[str]:
    """Yields the modules of the package that a file imports anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            source = source_of(node, module, is_package)
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                if submodule in known:
                    yield submodule
                elif source in known:
                    yield source


def source_of(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """Returns the full name of what stands after `from`."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    above = parts[: len(parts) - node.level + is_package]
    return ".".join([*above, node.module] if node.module else above)


def clients(graph: Graph) -> Graph:
    """Returns who imports each module."""
    return {name: {m for m, known in graph.items() if name in known} for name in graph}


def rings(graph: Graph) -> list[list[str]]:
    """Returns the modules that reach each other by imports, largest ring first."""
    ahead = {name: reachable(graph, name) for name in graph}
    found = {
        tuple(sorted(other for other in ahead[name] if name in ahead[other]))
        for name in graph
    }
    cycles = [list(ring) for ring in found if len(ring) > 1]
    return sorted(cycles, key=lambda ring: (-len(ring), ring))


def reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def repeated(pairs: Iterator[tuple[str, Any]]) -> list[str]:
    """Returns the names that stand in two places or more."""
    places: dict[str, set[Any]] = collections.defaultdict(set)
    for name, place in pairs:
        places[name].add(place)
    return [name for name, where in places.items() if len(where) > 1]


def public_names(tree: ast.Module) -> list[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    defined = [node.name for node in tree.body if isinstance(node, kinds)]
    return [name for name in defined if not name.startswith("_")]


def enter(role: str, package: pathlib.Path, *file: pathlib.Path) -> dict[str, Any]:
    """Counts what one call goes through, in a fresh process."""
    printed = run(package, CALLS, role, package, *file).stdout
    counts = json.loads(printed.splitlines()[-1])
    files = counts.pop("files")
    modules = [module_of(pathlib.Path(path), package) for path in files]
    return {"modules_entered": len(files), **counts, "names": {"modules": modules}}


def start_up(command: str, package: pathlib.Path, file: pathlib.Path) -> dict[str, Any]:
    """Times the command on a file, from start to end."""
    seconds = []
    for _ in range(1 + RUNS):
        start = time.perf_counter()
        ended = run(package, "-c", COMMAND, command, file)
        seconds.append(time.perf_counter() - start)
    loaded = json.loads(ended.stderr.splitlines()[-1])
    measures = {"min": min, "median": statistics.median, "max": max}
    return {
        **{f"seconds_{m}": round(f(seconds[1:]), 3) for m, f in measures.items()},
        **{f"loads_{name}": name in loaded for name in FRAMEWORKS},
    }


def run(package: pathlib.Path, *args: Any) -> subprocess.CompletedProcess[str]:
    """Runs Python where `import keras_tickets` finds the package."""
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    # -P: no folder of scripts before the package.
    command = [sys.executable, "-P", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr}")
    return done


def measurements(
    package: pathlib.Path, file: pathlib.Path
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Returns the parts of a count, by name, in their order: `export` writes `file`."""
    return {
        "source": functools.partial(count_source, package),
        "fit": functools.partial(enter, "fit", package),
        "export": functools.partial(enter, "export", package, file),
        "inspect": functools.partial(start_up, "inspect", package, file),
        "diagnose": functools.partial(start_up, "diagnose", package, file),
    }


def show(part: str, results: dict[str, Any]) -> None:
    for key, value in results.items():
        if key != "names":
            print(f"{part:10}{key.replace('_', ' '):28}{value}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=pathlib.Path, default=PACKAGE)
    parser.add_argument("--out", type=pathlib.Path, help="a record to write, .json")
    parser.add_argument("--static", action="store_true", help="read the source only")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parts = measurements(args.package.resolve(), pathlib.Path(folder, "m.tflite"))
        for part in ["source"] if args.static else parts:
            show(part, record(args.out, part, parts[part]))


def record(
    out: pathlib.Path | None, part: str, measure: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Measures one part again, and writes it down if asked to."""
    if out is None:
        return measure()
    from benchmarks.record import Record  # It needs Keras.

    kept = Record(out.stem, "the source; random inputs", out.parent)
    kept.forget(lambda row: row["parameters"] == {"part": part})
    return kept.row(measure, part=part)


if __name__ == "__main__":
    main()
