"""Loads thousands of damaged tickets: each is refused in documented words, or is whole.

KERAS_BACKEND=tensorflow python -m benchmarks.damaged_files

Ticket files (`.npz`) and `.keras` files are cut off, have bits flipped, members
swapped, and arrays, dtypes, shapes and JSON forged, with checksums that fit; some claim
a thousand times what they store. A row counts what came of one kind of damage:

whole: it loaded, with the masks of the ticket (what was damaged says nothing of them).
refused: the documented error, naming what is wrong; the model was not changed.
keras: of a `.keras` file, an error of Keras' own parts (zip, HDF5, its own configs).
wrong: anything else, with examples. `wrong` is 0 in every row, or the script fails.

`growth` is the most memory that loading one of them took, over what the model takes.
"""

from __future__ import annotations

import io
import json
import pathlib
import random
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import h5py
import keras
import numpy as np

import keras_tickets as kt
from benchmarks.record import Record
from keras_tickets.ticket.archive import checksum
from keras_tickets.ticket.parts import values_of

SEED, NUMBER, BOMB = 0, 200, 2**28
PRUNERS = {
    "gradual_magnitude": lambda: kt.GradualMagnitude(0.5, allocation={"dense": 0.5}),
    "gem_miner": lambda: kt.GemMiner(0.5),
    "rigl": lambda: kt.RigL(0.5, structure="block_1x2"),
    "imp": lambda: kt.IMP(0.5),
}
NASTY: list[Callable[[], Any]] = [
    lambda: None,
    lambda: -1,
    lambda: 7,
    lambda: 10**9,
    lambda: 10**400,
    lambda: 0.5,
    lambda: float("nan"),
    lambda: True,
    lambda: "",
    lambda: "O",
    lambda: "../../x",
    lambda: "{0.__class__}%s",
    lambda: "(a+)+$",
    lambda: "keras.src.utils",
    list,
    dict,
    lambda: [0] * 100_000,
    lambda: _nested(500),
    lambda: {"class_name": "getoutput", "config": {}, "module": "subprocess"},
    lambda: {"class_name": "__lambda__", "config": {"value": "eA=="}},
    lambda: {"class_name": "Dense", "config": {"units": 3}, "module": "keras.layers"},
]


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@keras.saving.register_keras_serializable(package="damaged_files")
class Described(keras.layers.Layer):
    """Passes its input on, and saves a number and a file by methods of its own."""

    scale, words = 1.0, "one two"

    def call(self, x: Any) -> Any:
        """Returns the input."""
        return x

    def save_own_variables(self, store: Any) -> None:
        """Stores the number."""
        store["scale"] = np.array([self.scale])

    def load_own_variables(self, store: Any) -> None:
        """Reads it."""
        self.scale = float(store["scale"][0])

    def save_assets(self, folder: str) -> None:
        """Writes the file."""
        pathlib.Path(folder, "words.txt").write_text(self.words)

    def load_assets(self, folder: str) -> None:
        """Reads it."""
        self.words = pathlib.Path(folder, "words.txt").read_text()


def network(width: int = 6, masked: bool = False) -> keras.Model:
    """Returns a network with state beside its weights."""
    dense = keras.layers.Dense(width, activation="relu", name="dense_1")
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Normalization(),
            Described(),
            kt.Masked(dense) if masked else dense,
            keras.layers.Dense(4, name="dense_2"),
        ]
    )


def ticket_of(name: str, masked: bool = False) -> kt.Ticket:
    """Returns a compiled ticket whose masks were drawn."""
    keras.utils.set_random_seed(SEED)
    ticket = kt.wrap(network(masked=masked), PRUNERS[name](), remember=True)
    ticket.compile("adam", "mse", jit_compile=False)
    rng = np.random.default_rng(SEED)
    masks = [rng.random(kernel.shape) < 0.5 for kernel in ticket.kernels]
    ticket.start.take()
    ticket.mask_set.assign(masks)
    return ticket


# -- damage of any file ----------------------------------------------------------------


def cut(content: bytes, rng: random.Random) -> bytes:
    """Returns a part of the file."""
    return content[: rng.randrange(len(content))]


def flipped(content: bytes, rng: random.Random) -> bytes:
    """Returns the file with some bits flipped."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwritten(content: bytes, rng: random.Random) -> bytes:
    """Returns the file with a stretch of other bytes, or of itself."""
    length = rng.randrange(1, len(content) // 2)
    at, source = (rng.randrange(len(content) - length) for _ in range(2))
    other = content[source : source + length]
    other = rng.choice((other, bytes(length), rng.randbytes(length), b""))
    return content[:at] + other + content[at + length :]


def rearranged(content: bytes, rng: random.Random) -> bytes:
    """Returns the archive with a member that is missing, twice, another's, or more."""
    members = _members(content)
    first, second = rng.sample(sorted(members), 2)
    how = rng.choice(("drop", "swap", "rename", "add", "empty", "twice"))
    if how == "drop":
        del members[first]
    elif how == "swap":
        members[first], members[second] = members[second], members[first]
    elif how == "rename":
        members[rng.choice(("../x", "mask_9.npy", "é", "a/b/c"))] = members.pop(first)
    elif how == "add":
        members[rng.choice(("mask_9.npy", "x.npy", "/x"))] = members[first]
    elif how == "empty":
        members[first] = b""
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)
    again = [(first, members.get(first, b""))] * (how == "twice")
    return _archive([*members.items(), *again], rng.choice(kinds))


def _members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _archive(members: list[tuple[str, bytes]], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", kind) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def changed_json(value: Any, rng: random.Random) -> Any:
    """Returns JSON with something else in one place."""
    places = list(_places(value, ()))
    *path, last = rng.choice(places)
    holder = value
    for step in path:
        holder = holder[step]
    how = rng.randrange(10)
    if how == 0:
        del holder[last]
    elif how == 1 and isinstance(holder, list):
        holder.append(holder[last])
    else:
        holder[last] = rng.choice(NASTY)()
    return value


def _places(value: Any, path: tuple[Any, ...]) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from _places(inner, (*path, key))


# -- damage of ticket files ------------------------------------------------------------


def forged_array(content: bytes, rng: random.Random) -> bytes:
    """Returns a ticket file with an array of another dtype or shape; it is sealed."""
    arrays = _arrays(content)
    name = rng.choice(sorted(set(arrays) - {"checksum"}))
    arrays[name] = _other_array(arrays[name], rng)
    return _sealed(arrays)


def forged_header(content: bytes, rng: random.Random) -> bytes:
    """Returns a ticket file whose header says something else; it is sealed."""
    arrays = _arrays(content)
    header = changed_json(json.loads(arrays["header"].tobytes()), rng)
    return _with_header(arrays, header)


def forged_positions(content: bytes, rng: random.Random) -> bytes:
    """Returns a ticket file that masks other kernels, with masks to match."""
    arrays = _arrays(content)
    header = json.loads(arrays["header"].tobytes())
    position = rng.choice((-1, 0, 1, 2, 9, 10**6))
    shape = rng.choice(([8, 6], [6, 8], [48], [1, 1], [0, 3], [2**20, 2**20]))
    i = rng.randrange(len(header["kernels"]))
    header["kernels"][i], header["shapes"][i] = position, shape
    size = min(-(-int(np.prod(shape, dtype=float)) // 8), 1000)
    arrays[f"mask_{position}"] = np.zeros(size, np.uint8)
    kept = {f"mask_{position}" for position in header["kernels"]}
    masks = {name for name in arrays if name.startswith("mask_")}
    return _with_header({n: arrays[n] for n in arrays.keys() - (masks - kept)}, header)


def claims_more(content: bytes, rng: random.Random) -> bytes:
    """Returns an archive with an array that claims more than it stores."""
    members = _members(content)
    name = rng.choice(sorted(members))
    shape = rng.choice(((10**12,), (2**31, 2**31), (2**62, 2**62), (-1,), (10**6, 8)))
    form = {"descr": "<f4", "fortran_order": False, "shape": shape}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, form)
    members[name] = buffer.getvalue() + bytes(rng.randrange(100))
    return _archive(list(members.items()))


def _other_array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    ways: list[Callable[[], np.ndarray]] = [
        lambda: array.astype("float64"),
        lambda: array.astype("int8"),
        lambda: array.astype("S"),
        lambda: array.astype(">f4"),
        lambda: array[..., None],
        lambda: array.reshape(-1)[:-1],
        lambda: np.concatenate([array.reshape(-1)] * 2),
        lambda: np.zeros((0, 3), array.dtype),
        lambda: np.array(3, array.dtype),
        lambda: np.array([(1, 2)], [("a", "f4"), ("b", "f4")]),
        lambda: np.full(array.shape, np.nan, "float32"),
    ]
    return rng.choice(ways)()


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content)) as archive:
        return {name: archive[name] for name in archive.files}


def _with_header(arrays: dict[str, np.ndarray], header: Any) -> bytes:
    text = json.dumps(header).encode()
    return _sealed({**arrays, "header": np.frombuffer(text, np.uint8)})


def _sealed(arrays: dict[str, np.ndarray], compress: bool = False) -> bytes:
    buffer = io.BytesIO()
    save = np.savez_compressed if compress else np.savez
    save(buffer, **{**arrays, "checksum": np.array(checksum(arrays))})
    return buffer.getvalue()


# -- damage of .keras files ------------------------------------------------------------


def forged_config(content: bytes, rng: random.Random) -> bytes:
    """Returns a `.keras` file whose ticket says something else of itself."""
    members = _members(content)
    config = json.loads(members["config.json"])
    own = config["config"]
    parts = [own[name] for name in ("pruner", "kernels", "provenance") if own[name]]
    changed_json(rng.choice([*parts, {"config": own}, own]), rng)
    members["config.json"] = json.dumps(config).encode()
    return _archive(list(members.items()))


def forged_compiling(content: bytes, rng: random.Random) -> bytes:
    """Returns a `.keras` file that was compiled otherwise."""
    members = _members(content)
    config = json.loads(members["config.json"])
    changed_json(config["compile_config"], rng)
    members["config.json"] = json.dumps(config).encode()
    return _archive(list(members.items()))


def forged_masks(content: bytes, rng: random.Random) -> bytes:
    """Returns a `.keras` file whose ticket has other variables of its own."""
    members = _members(content)
    stored = io.BytesIO(members["model.weights.h5"])
    with h5py.File(stored, "r+") as file:
        own = file[rng.choice([name for name in _groups(file) if len(file[name])])]
        key = rng.choice(sorted(own))
        array = own[key][()]
        del own[key]
        how = rng.randrange(8)
        if how == 1:
            own["17"] = array
        elif how == 2:
            own.create_group(key)
        elif how == 3:
            own[key] = h5py.ExternalLink("other.h5", "/x")
        elif how == 4:
            own.create_dataset(key, (BOMB,), "bool", chunks=(2**16,), compression=9)
        elif how:
            own[key] = _other_array(array, rng)
    members["model.weights.h5"] = stored.getvalue()
    return _archive(list(members.items()))


def _groups(file: h5py.File) -> list[str]:
    """Returns where the ticket, or a `Masked` layer, keeps its own variables."""
    found = ["vars"] if "vars" in file else []
    file.visit(found.append)
    found = [name for name in found if name == "vars" or name.endswith("masked/vars")]
    return found


# -- bombs -----------------------------------------------------------------------------


def bombs(content: bytes) -> dict[str, bytes]:
    """Returns ticket files that are small, and large once they are read."""
    arrays = _arrays(content)
    large = np.zeros(BOMB, np.uint8)
    made = {
        name: _sealed({**arrays, name: large}, compress=True)
        for name in ("header", "mask_0", "value_0", "state_0_0", "asset_0_0", "other")
    }
    made["checksum"] = _zipped({**arrays, "checksum": large})
    header = json.loads(arrays["header"].tobytes())
    for name in ("weights", "kernels", "skipped", "shapes", "states"):
        longer = {**header, name: [[]] * 10**6}
        text = np.frombuffer(json.dumps(longer).encode(), np.uint8)
        made[f"long {name}"] = _sealed({**arrays, "header": text}, compress=True)
    return made


def _zipped(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def resident(peak: bool = False) -> int:
    """Returns the bytes of memory that the process has, or has had since `forget`."""
    name = "VmHWM:" if peak else "VmRSS:"
    status = pathlib.Path("/proc/self/status").read_text().split()
    return int(status[status.index(name) + 1]) * 1024


def forget_peak() -> None:
    """Lets the peak begin anew."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


# -- what comes of it ------------------------------------------------------------------


def load_npz(path: pathlib.Path, model: keras.Model) -> tuple[str, str]:
    """Returns what came of a ticket file, and the words."""
    before = values_of(model)
    try:
        kt.load_ticket(path, model)
    except (ValueError, OSError) as error:
        now = values_of(model)
        pairs = zip(before, now, strict=True)
        same = all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)
        named = path.name in str(error)
        return "refused" if same and named else "wrong", f"{same} {error}"
    except BaseException as error:
        return "wrong", repr(error)
    return "whole", ""


def load_keras(path: pathlib.Path, masks: list[np.ndarray]) -> tuple[str, str]:
    """Returns what came of a `.keras` file, and the words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = keras.models.load_model(path)
    except Exception as error:
        # What a layer refuses to load Keras raises anew, in its own words and these.
        if not _is_ours(error) and "Nothing of it was loaded" not in str(error):
            return "keras", repr(error)
        return "refused" if type(error) is ValueError else "wrong", repr(error)
    found = loaded.mask_set.values() if isinstance(loaded, kt.Ticket) else []
    same = len(found) == len(masks) and all(map(np.array_equal, found, masks))
    return "whole" if same else "wrong", "other masks"


def _is_ours(error: Exception) -> bool:
    """Returns whether our package raised an error, rather than Keras."""
    names = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    known = [n for n in names if "keras_tickets/" in n or "/keras/" in n]
    return bool(known) and "keras_tickets/" in known[-1]


def count(
    damage: Callable[[bytes, random.Random], bytes],
    suffix: str,
    pruner: str,
    masked: bool,
) -> dict[str, Any]:
    """Returns how often which came of damaged copies of a file."""
    ticket = ticket_of(pruner, masked)
    content, model = saved(ticket, suffix), network()
    load = partial(load_npz, model=model)
    if suffix == ".keras":
        load = partial(load_keras, masks=ticket.mask_set.values())
    counts: Counter[str] = Counter()
    examples, largest = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for i in range(NUMBER):
            rng = random.Random(f"{SEED} {damage.__name__} {i}")
            path = pathlib.Path(folder, f"{i}{suffix}")
            path.write_bytes(damage(content, rng))
            forget_peak()
            before = resident()
            result, words = load(path)
            largest = max(largest, resident(peak=True) - before)
            counts[result] += 1
            if result == "wrong":
                examples.append([i, words[:300]])
            path.unlink()
            if i % 50 == 49:
                keras.utils.clear_session()
    growth = round(largest / 2**20, 1)
    return {**counts, "wrong": counts["wrong"], "growth_mib": growth} | (
        {"examples": examples[:9]} if examples else {}
    )


ANY = (cut, flipped, overwritten, rearranged)
DAMAGE: dict[str, tuple[Callable[[bytes, random.Random], bytes], ...]] = {
    ".keras": (forged_masks, forged_config, forged_compiling, *ANY),
    ".ticket.npz": (forged_array, forged_header, forged_positions, claims_more, *ANY),
}


def saved(ticket: kt.Ticket, suffix: str) -> bytes:
    """Returns the content of a file of the ticket."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, f"x{suffix}")
        (ticket.save if suffix == ".keras" else ticket.save_ticket)(path)
        return path.read_bytes()


def bomb_growth() -> dict[str, Any]:
    """Returns the memory that a bomb took, over what a whole file takes."""
    ticket = kt.wrap(network(2**18), kt.Magnitude(0.5))
    ticket.draw(verbose=0)
    model, needs = network(2**18), sum(x.nbytes for x in values_of(ticket.model))
    found: dict[str, Any] = {"bytes_of_the_model": needs}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "x.ticket.npz")
        for name, content in bombs(saved(ticket, ".ticket.npz")).items():
            path.write_bytes(content)
            del content
            forget_peak()
            before = resident()
            result, words = load_npz(path, model)
            growth = round((resident(peak=True) - before) / needs, 2)
            found[name] = {"bytes": path.stat().st_size, "growth": growth}
            if result != "refused" or growth > 2:
                found["wrong"] = [*found.get("wrong", []), [name, words[:300]]]
    return {**found, "wrong": found.get("wrong", 0)}


def main() -> None:
    """Writes the record; fails if something went wrong."""
    record = Record("damaged_files", f"damage made here, seed {SEED}")
    failed = record.row(bomb_growth, format=".ticket.npz", damage="bombs")["wrong"]
    for suffix, kinds in DAMAGE.items():
        for i, damage in enumerate(kinds):
            masked = damage is forged_masks  # which learned masks do not go with
            name = "gradual_magnitude" if masked else sorted(PRUNERS)[i % len(PRUNERS)]
            row = {"format": suffix, "damage": damage.__name__, "pruner": name}
            measure = partial(count, damage, suffix, name, masked)
            result = record.row(measure, **row, files=NUMBER, masked=masked)
            print(row, result, flush=True)
            failed = failed or result["wrong"]
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
