"""What takes seconds to make is made once: for all workers, until a source changes."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import pickle
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / ".pytest_cache" / "kept"
# Test modules only ask for what is kept; all else may change what it is.
SOURCES = ("keras_tickets/**/*.py", "benchmarks/*.py", "tests/[!t]*.py")

P = ParamSpec("P")
T = TypeVar("T")


@functools.cache
def state(root: pathlib.Path = ROOT) -> str:
    """Return a digest of the sources, and of the versions of all that is installed."""
    import keras

    digest = hashlib.sha256(keras.backend.backend().encode())
    for path in _sorted(path for form in SOURCES for path in root.glob(form)):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    for name, version in _sorted(
        (found.name, found.version) for found in importlib.metadata.distributions()
    ):
        digest.update(f"{name} {version}".encode())
    return digest.hexdigest()[:16]


def _sorted(found: Iterable) -> list:
    return sorted(set(found))


def kept(function: Callable[P, T]) -> Callable[P, T]:
    """Keep on disk what a function returns; its arguments are words and numbers."""

    @functools.cache
    def ask(*args: P.args, **kwargs: P.kwargs) -> T:
        words = f"{function.__module__} {function.__qualname__} {args} {kwargs}"
        name = hashlib.sha256(f"{state()} {words}".encode()).hexdigest()[:32]
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / name
        # The first worker makes it, the others wait.
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                half = path.with_suffix(f".{os.getpid()}")
                half.write_bytes(pickle.dumps(function(*args, **kwargs)))
                half.replace(path)
        return pickle.loads(path.read_bytes())

    return ask
