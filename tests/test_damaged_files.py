"""A file is data: what is damaged or forged is refused in words, and nothing changes.

`benchmarks/damaged_files.py` loads thousands; here is one of each kind.
"""

from __future__ import annotations

import io
import json
import re
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import keras_tickets as kt
from keras_tickets._util.patterns import check_pattern, search
from keras_tickets.backend import array_of
from keras_tickets.kernels import find_kernels
from keras_tickets.masks.masked_call import count
from keras_tickets.masks.masked_layer import masked_layers
from keras_tickets.ticket import Ticket
from keras_tickets.ticket.archive import checksum
from keras_tickets.ticket.keras_formats import exportable
from keras_tickets.ticket.parts import values_of

pytestmark = pytest.mark.backend_independent


@keras.saving.register_keras_serializable(package="tests_damaged")
class Described(layers.Layer):
    """Saves a number and a file by methods of its own, and loads them one by one."""

    scale, words = 1.0, "one two"

    def call(self, x):
        return x

    def save_own_variables(self, store):
        store["scale"] = np.array([self.scale])

    def load_own_variables(self, store):
        self.scale = float(store["scale"][0])

    def save_assets(self, folder):
        with open(f"{folder}/words.txt", "w") as file:
            file.write(self.words)

    def load_assets(self, folder):
        with open(f"{folder}/words.txt") as file:
            self.words = file.read()
        if not self.words.isprintable():
            raise RuntimeError("no words")


def network(masked: bool = False) -> keras.Model:
    dense = layers.Dense(4, name="first")
    first = kt.Masked(dense) if masked else dense
    return keras.Sequential(
        [keras.Input((5,)), first, Described(), layers.Dense(3, name="second")]
    )


def drawn(masked: bool = False) -> kt.Ticket:
    ticket = kt.wrap(network(masked), kt.Random(0.5, seed=1))
    ticket.draw(verbose=0)
    return ticket


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("ticket") / "x.npz"
    drawn().save_ticket(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def with_masked() -> kt.Ticket:
    return drawn(masked=True)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return network()


def arrays_of(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content)) as archive:
        return {name: archive[name] for name in archive.files}


def sealed(arrays, save=np.savez) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **{**arrays, "checksum": np.array(checksum(arrays))})
    return buffer.getvalue()


def refused(content: bytes, model: keras.Model, message: str, tmp_path) -> None:
    """Load the bytes: an error with these words, and the model as it was."""
    path = tmp_path / "x.ticket.npz"
    path.write_bytes(content)
    before, described = values_of(model), model.layers[-2]
    with pytest.raises(ValueError, match=message) as caught:
        kt.load_ticket(path, model)
    assert "x.ticket.npz" in str(caught.value)
    assert "The model was not changed" in str(caught.value)
    assert all(map(np.array_equal, values_of(model), before))
    assert (described.scale, described.words) == (1.0, "one two")


# -- ticket files: the header ----------------------------------------------------------


def deep(depth: int):
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def state(**changes):
    row = {"layer": "Described:0", "values": [["scale", "float64"]]}
    return [{**row, "assets": ["words.txt"], **changes}]


HEADERS = {
    "beyond": ({"kernels": [0, 2]}, "'2' is the position of no kernel: .*2 kernels"),
    "negative": ({"kernels": [-1, 0]}, "'-1' is the position of no kernel"),
    "twice": ({"kernels": [0, 0]}, "position 0 is named twice"),
    "true": ({"kernels": [True, 0]}, "kernels holds 'True'"),
    "a million": ({"kernels": [0] * 10**6}, r"header claims [\d,]+ bytes|1000000"),
    "thousands": ({"kernels": [0] * 10**4}, "10000 kernels are named"),
    "masked and skipped": ({"skipped": [[0, "x"]]}, "named, but the model has 2"),
    "no reason": ({"skipped": [[0]]}, "a position and a reason"),
    "shape": ({"shapes": [[4, 5], [4, 3]]}, r"'.*first/kernel' \(5, 4\)"),
    "size": ({"shapes": [[-1, 4], [4, 3]]}, "is no shape"),
    "a shape less": ({"shapes": [[5, 4]]}, "1 shapes for 2 masks"),
    "format": ({"format": 0}, "its format is 0"),
    "weights": ({"weights": [{"layer": "Dense"}]}, "a weight has"),
    "no provenance": ({"provenance": None}, "provenance is None, expected dict"),
    "values": ({"provenance": {"values": "?"}}, "of when its values are"),
    "deep": ({"provenance": {"values": "start", "x": deep(99)}}, "more than 64 deep"),
    "deeper": ({"kernels": deep(900)}, "damaged"),
    "other layer": ({"states": state(layer="Dense:0")}, "layers .* cannot load"),
    "no such": ({"states": state(layer="Dense:7")}, "no such layer"),
    "no layer": ({"states": state(layer="x")}, "no class and number"),
    "climbs out": ({"states": state(assets=["../x"])}, "no path inside"),
    "absolute": ({"states": state(assets=["C:\\x"])}, "no path inside"),
    "both": ({"states": state(assets=["x", "x/y"])}, "the same path"),
    "dtype": ({"states": state(values=[["scale", "float32"]])}, "not float32"),
    "no dtype": ({"states": state(values=[["scale", "getsource"]])}, "is no dtype"),
    "a dtype's kin": ({"states": state(values=[["scale", "finfo"]])}, "is no dtype"),
    "more": ({"states": state(values=[["scale", "f8"], ["y", "f8"]])}, "is missing"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_forged_headers(kind, content, model, tmp_path):
    """With a checksum that fits."""
    changes, message = HEADERS[kind]
    arrays = arrays_of(content)
    header = json.loads(arrays["header"].tobytes()) | changes
    text = json.dumps(header).encode()
    forged = sealed({**arrays, "header": np.frombuffer(text, np.uint8)})
    refused(forged, model, message, tmp_path)


# -- ticket files: the arrays ----------------------------------------------------------

ARRAYS = {
    "dtype": ("value_0", np.zeros((5, 4), "float64"), "value_0 is float64"),
    "byte order": ("value_0", np.zeros((5, 4), ">f4"), "value_0 is >f4"),
    "shape": ("value_1", np.zeros((4, 1), "float32"), r"value_1 is .*\(4, 1\)"),
    "mask": ("mask_0", np.zeros(20, bool), "mask_0 is bool"),
    "fields": ("state_0_0", np.zeros(1, [("a", "f8")]), "none of numbers or text"),
    "more": ("value_9", np.zeros(1), "'value_9' does not belong there"),
    "header": ("header", np.zeros(4), "its header is float64"),
    "bomb": ("asset_0_0", np.zeros(2**23, np.uint8), "claims 8,388,608 bytes"),
    "no words": ("asset_0_0", np.zeros(5, np.uint8), "RuntimeError: no words"),
    "no number": ("state_0_0", np.zeros(0), "layers .* cannot load what"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_forged_arrays(kind, content, model, tmp_path):
    """The last two only the layer itself can tell: what it has loaded is undone."""
    name, array, message = ARRAYS[kind]
    forged = sealed({**arrays_of(content), name: array}, np.savez_compressed)
    refused(forged, model, message, tmp_path)


def member(content: bytes, name: str, change, kind=zipfile.ZIP_STORED) -> bytes:
    """Return an archive with other bytes in one member."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(buffer, "w", kind) as new,
    ):
        for entry in old.namelist():
            stored = old.read(entry)
            new.writestr(entry, change(stored) if entry == name else stored)
    return buffer.getvalue()


def claim(shape, descr="<f4"):
    def change(_):
        buffer = io.BytesIO()
        form = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, form)
        return buffer.getvalue() + bytes(8)

    return change


MEMBERS = {
    "claims a terabyte": ("value_0.npy", claim((10**12,)), "value_0 is float32"),
    "a state does": ("state_0_0.npy", claim((10**12,)), "claims 4,000,000,000,000"),
    "a checksum does": ("checksum.npy", claim((), "<U99999999"), "claims"),
    "less than none": ("state_0_0.npy", claim((-1, 9)), "has the shape"),
    "empty": ("mask_0.npy", lambda old: b"", "damaged"),
    "cut": ("value_0.npy", lambda old: old[:-9], "value_0 holds 71 of 80 bytes"),
    "longer": ("value_0.npy", lambda old: old + b"x", "holds more than 80 bytes"),
    "pickled": ("value_0.npy", claim((5, 4), "|O"), "none of numbers or text"),
    "version": ("value_0.npy", lambda old: old[:6] + b"\2" + old[7:], "version"),
}


@pytest.mark.parametrize("kind", MEMBERS)
def test_members_that_are_not_what_they_claim(kind, content, model, tmp_path):
    """What is claimed is checked before memory is taken for it."""
    name, change, message = MEMBERS[kind]
    refused(member(content, name, change), model, message, tmp_path)


@pytest.mark.parametrize("seed", range(24))
def test_random_damage(seed, content, model, tmp_path):
    rng = np.random.default_rng(seed)
    damaged = bytearray(content)
    for place in rng.integers(len(damaged), size=1 + seed % 4):
        damaged[place] ^= 1 << rng.integers(8)
    path = tmp_path / "x.ticket.npz"
    path.write_bytes(damaged[: rng.integers(len(damaged))] if seed % 3 else damaged)
    before, words = values_of(model), None
    try:
        kt.load_ticket(path, model)
    except ValueError as error:
        words = str(error)
    if words is not None:
        assert "x.ticket.npz" in words
        assert all(map(np.array_equal, values_of(model), before))


def test_what_compresses_well_is_loaded(tmp_path):
    """The bound is on files from anywhere, and not on what was saved."""
    ticket = drawn()
    ticket.model.layers[-2].words = "a" * 400_000
    ticket.save_ticket(tmp_path / "x.npz")
    fresh = network()
    kt.load_ticket(tmp_path / "x.npz", fresh)
    assert fresh.layers[-2].words == ticket.model.layers[-2].words


# -- .keras files: the config of a ticket ----------------------------------------------

CONFIGS = {
    "beyond": ({"kernels": [0, 7]}, "'7' is the position of no kernel"),
    "negative": ({"kernels": [-1]}, "'-1' is the position of no kernel"),
    "twice": ({"kernels": [1, 1]}, "named twice"),
    "a million": ({"kernels": [0] * 10**6}, "1000000 kernels are named"),
    "skipped by the million": ({"skipped": [[0, "x"]] * 10**6}, "kernels are named"),
    "no pair": ({"skipped": [0]}, "a position and a reason"),
    "fraction": ({"kernels": [0.0]}, "position of no kernel"),
    "name": ({"name": 3}, "'name' is '3'"),
    "no model": ({"model": None}, "'model' is 'None'"),
    "another model": ({"model": layers.Dense(3)}, "its model is <Dense"),
    "a ticket": ({"model": "itself"}, "its model is a ticket itself"),
    "no pruner": ({"pruner": layers.Dense(3)}, "its pruner is <Dense"),
    "unknown": ({"unknown": 3}, "'unknown' is none of its fields"),
    "deep": ({"provenance": {"x": deep(500)}}, "nested"),
}


@pytest.fixture(scope="module")
def ticket() -> kt.Ticket:
    return drawn()


@pytest.mark.parametrize("kind", CONFIGS)
def test_forged_configs(kind, ticket):
    changes, message = CONFIGS[kind]
    config = ticket.get_config()
    for name, value in changes.items():
        is_object = isinstance(value, keras.Layer) or value == "itself"
        thing = ticket if value == "itself" else value
        config[name] = (
            keras.saving.serialize_keras_object(thing) if is_object else value
        )
    with pytest.raises(
        ValueError, match=rf"config of a ticket is damaged: .*{message}"
    ):
        Ticket.from_config(config)


def test_a_config_that_lacks_a_field(ticket):
    config = ticket.get_config()
    del config["kernels"]
    with pytest.raises(ValueError, match="'kernels' is missing"):
        Ticket.from_config(config)


def test_a_kernel_that_a_masked_layer_holds(with_masked):
    config = with_masked.get_config()
    with pytest.raises(ValueError, match="is masked by 'masked_first' already"):
        Ticket.from_config({**config, "kernels": [0, 1]})


def test_a_config_nested_too_deep(ticket):
    config = ticket.get_config()
    inner = config["model"]
    for _ in range(300):
        inner = {**inner, "config": {**inner["config"], "layers": [inner]}}
    with pytest.raises(ValueError, match="nested too deep"):
        Ticket.from_config({**config, "model": inner})


# -- .keras files: the variables -------------------------------------------------------


def other(change):
    return lambda store: {**store, "0": change(store["0"])}


def without(name):
    return lambda store: {key: store[key] for key in store if key != name}


VARIABLES = {
    "numbers": (other(lambda mask: mask + 0.5), "the file holds float"),
    "bytes": (other(lambda mask: mask.astype("uint8")), "the file holds uint8"),
    "text": (other(lambda mask: mask.astype("S")), r"the file holds \|S"),
    "shape": (other(lambda mask: mask.T), r"the shape \(4, 5\)"),
    "neither": (
        other(lambda mask: (mask.astype(np.uint8) * 2).view(bool)),
        "neither 0 nor 1",
    ),
    "less": (without("1"), "has . variables of its own"),
    "more": (lambda store: {**store, "17": store["0"]}, "variables of its own"),
    "renamed": (lambda store: {**without("1")(store), "x": store["1"]}, "of its own"),
}


@pytest.mark.parametrize("masked", [False, True], ids=["ticket", "masked"])
@pytest.mark.parametrize("kind", VARIABLES)
def test_forged_variables(kind, masked, ticket, with_masked):
    """None is cast to "kept", and none assigned before all are seen."""
    change, message = VARIABLES[kind]
    whole = with_masked if masked else ticket
    holder = whole.model.layers[0] if masked else whole
    store: dict[str, np.ndarray] = {}
    holder.save_own_variables(store)
    store = {key: keras.ops.convert_to_numpy(value) for key, value in store.items()}
    holder.load_own_variables(store)
    before = whole.mask_set.values()
    with pytest.raises(ValueError, match=message):
        holder.load_own_variables(change(store))
    assert all(map(np.array_equal, whole.mask_set.values(), before))


def test_a_mask_that_claims_gigabytes(ticket, tmp_path):
    """Its shape is compared before it is read."""
    path = tmp_path / "x.weights.h5"
    ticket.save_weights(path)
    with h5py.File(path, "r+") as file:
        del file["vars/0"]
        file["vars"].create_dataset("0", (2**40,), "bool", chunks=(2**16,))
    with pytest.raises(ValueError, match=rf"file holds the shape \({2**40},\)"):
        ticket.load_weights(path)
    with h5py.File(path, "r+") as file:
        del file["vars/0"]
        file["vars/0"] = h5py.ExternalLink("elsewhere.h5", "/x")
    with pytest.raises(ValueError, match="file holds no array"):
        ticket.load_weights(path)


# -- configs of pruners, scores, schedules ... -----------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"sparsity": "0.9"},
        {"sparsity": [0.5]},
        {"unknown": 1},
        {"allocation": {"(a+)+$": 0.5}},
        {"allocation": {"(": 0.5}},
        {"schedule": {"class_name": "X", "config": 1}},
        {"schedule": {"class_name": "__lambda__", "config": {"value": "eA=="}}},
        {"rounds": None},
        {"score": {"class_name": "Dense", "config": {"units": 1}, "module": "keras"}},
    ],
    ids=str,
)
def test_forged_settings(changes):
    saved = keras.saving.serialize_keras_object(kt.Magnitude(0.5))
    with pytest.raises(ValueError, match=r"."):
        kt.pruners.get({**saved, "config": {**saved["config"], **changes}})


def test_a_config_of_nothing_that_is_known():
    forged = {"class_name": "getoutput", "config": {}, "module": "subprocess"}
    with pytest.raises(ValueError, match="A pruner cannot be made of this config"):
        kt.pruners.get(forged)


# -- patterns --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+b", "(a|a)*b", "(a?){50}a", "((a+))*", "(a|b){2,}", "(?:(?:a|b)c)+"),
        *("(?x)(a+#)\n)+b", "(", "*a", "a" * 2000, 3),
    ],
)
def test_patterns_that_might_not_end(pattern):
    with pytest.raises(ValueError, match=re.escape(repr(pattern)[:60])):
        check_pattern(pattern)


def test_patterns_that_people_write():
    path = "sequential/block_3/conv/kernel"
    for pattern in (
        r"block_\d+/.*kernel$",
        "(conv|dense)/",
        "^s.*?/[^/]+/",
        r"\(a+\)*",
    ):
        check_pattern(pattern)
        assert search(pattern, path) is (re.search(pattern, path) is not None)
    with pytest.raises(ValueError, match=r"9 repeats, too many for a path of 60"):
        search(".*" * 9 + "x", "a" * 60)


# -- formats of Keras' own -------------------------------------------------------------


def checkpoint(ticket, path):
    callback = keras.callbacks.ModelCheckpoint(path)
    callback.set_model(ticket)
    callback.on_epoch_end(0, {})


@pytest.mark.parametrize("suffix", ["h5", "hdf5"])
@pytest.mark.parametrize(
    "save", [Ticket.save, checkpoint, keras.saving.save_model], ids=lambda f: f.__name__
)
def test_the_legacy_format_is_refused(save, suffix, ticket, tmp_path):
    path = str(tmp_path / f"x.{suffix}")
    if save is checkpoint and suffix == "hdf5":
        path = path.replace("hdf5", "h5")
    with pytest.raises(ValueError, match=r"cannot be saved as .*'x\.keras'.*strip\(\)"):
        save(ticket, path)
    assert not list(tmp_path.iterdir())


def test_the_legacy_format_leaves_an_old_file(ticket, tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="cannot be saved as"):
        ticket.save(path)
    assert path.read_bytes() == b"old"


def test_no_module_is_imported_for_a_name_in_a_config(tmp_path):
    """The process that converts imports classes of the user's, by name."""
    from keras_tickets.convert import converter_process

    forged = {"module": "never_imported", "class_name": "Dense", "config": {}}
    known = {"module": __name__, "class_name": "Described", "config": {}}
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"config": [forged, known]}))
    found = converter_process._custom_classes(network(), path)
    assert found == [(__name__, "Described")]


def test_what_keras_exports_is_the_plain_model(ticket, with_masked):
    for own in (ticket, with_masked):
        plain, [spec] = exportable(own, None)
        assert not masked_layers(plain)
        assert spec.shape == (None, 5)
        kernels = [array_of(k.variable) for k in find_kernels(plain)]
        assert count(kernels) == own.mask_set.count()


@pytest.mark.slow
@pytest.mark.backend_independent(False)
@pytest.mark.filterwarnings("ignore:.*native_serialization:DeprecationWarning")
def test_exports_of_keras_own(ticket, tmp_path):
    """The plain model is exported, without the masks."""
    if keras.backend.backend() == "torch":
        pytest.skip("Keras cannot write a SavedModel of this on torch")
    tf = pytest.importorskip("tensorflow")
    ticket.export(str(tmp_path / "x"), verbose=False)
    x = np.ones((2, 5), "float32")
    exported = tf.saved_model.load(str(tmp_path / "x"))
    served = exported.serve(x)
    expected = keras.ops.convert_to_numpy(ticket(x, training=False))
    np.testing.assert_allclose(np.asarray(served), expected, atol=1e-6)


def test_an_export_without_masks_is_refused(tmp_path):
    undrawn = kt.wrap(network(), kt.Random(0.5))
    with pytest.raises(ValueError, match=r"never drawn.*ticket\.model\.export"):
        undrawn.export(str(tmp_path / "x"))


def test_copies_by_config_have_the_kernels(ticket):
    """A clone has no masks yet, as it has no weights of the original."""
    clone = keras.models.clone_model(ticket)
    assert isinstance(clone, kt.Ticket)
    assert not clone.drawn
    again = keras.models.model_from_json(ticket.to_json())
    assert [k.shape for k in again.kernels] == [k.shape for k in ticket.kernels]
    assert len(find_kernels(clone.model)) == 2
