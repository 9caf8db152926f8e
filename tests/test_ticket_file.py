"""The ticket file: what it holds, and what it refuses before a model changes."""

from __future__ import annotations

import io
import json
import os

import keras
import numpy as np
import pytest
import zoo
from conftest import covering
from keras import layers

import keras_tickets as kt
from keras_tickets.kernels import find_kernels
from keras_tickets.ticket import architecture, archive
from keras_tickets.ticket.parts import values_of

TWO = ("functional", "subclassed")


def same(first, second) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def drawn(name: str = "sequential", pruner=None, **kwargs) -> kt.Ticket:
    ticket = kt.wrap(zoo.build(name), pruner or kt.Random(0.7, seed=3), **kwargs)
    zoo.compile_for(name, ticket, **zoo.COMPILED)
    ticket.draw(verbose=0)
    return ticket


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.ticket.npz"


# -- round trip ----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    covering(
        sorted(zoo.BUILDERS),
        quick=(*TWO, "frozen", "nested", "several", "shared"),
        elsewhere=(*TWO, "recurrent"),
        lowest=TWO,
    ),
)
def test_any_model_round_trip(name, path):
    """Into a model that was built anew, whose layers are called otherwise."""
    ticket = drawn(name)
    ticket.save_ticket(path)
    other = zoo.build(name, seed=1)
    loaded = kt.load_ticket(path, other)
    assert loaded.model is other
    assert loaded.pruner is None
    assert loaded.drawn
    assert same(loaded.mask_set.values(), ticket.mask_set.values())
    assert same(values_of(other), values_of(ticket.model))
    reasons = [(kernel.shape, reason) for kernel, reason in ticket.skipped]
    assert [(kernel.shape, reason) for kernel, reason in loaded.skipped] == reasons
    for ours, theirs in zip(
        zoo.predict(name, loaded), zoo.predict(name, ticket), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("how", [{"only": "dense"}, {"skip": "conv"}])
@pytest.mark.backend_independent
def test_filters_are_in_the_file(how, path):
    ticket = drawn(**how)
    ticket.save_ticket(path)
    loaded = kt.load_ticket(path, zoo.build("sequential"))
    assert [k.shape for k in loaded.kernels] == [k.shape for k in ticket.kernels]
    assert len(loaded.kernels) == 1
    assert loaded.sparsity == ticket.sparsity


def test_what_only_forces_is_in_the_file(path):
    """A depthwise kernel, which nothing but its name in `only=` prunes."""
    model = zoo.build("functional")
    name = next(k.path for k in find_kernels(model) if "depthwise" in k.path)
    ticket = kt.wrap(model, kt.Random(0.5, seed=1), only=name)
    ticket.draw()
    ticket.save_ticket(path)
    loaded = kt.load_ticket(path, zoo.build("functional"))
    assert same(loaded.mask_set.values(), ticket.mask_set.values())


@pytest.mark.parametrize(
    "remember", covering([True, False], quick=[True], elsewhere=[True])
)
def test_start_values_or_present_ones(remember, path):
    ticket = drawn("functional", remember=remember)
    start = values_of(ticket.model)
    zoo.train("functional", ticket)
    ticket.save_ticket(path)
    loaded = kt.load_ticket(path, zoo.build("functional", seed=1))
    expected = start if remember else values_of(ticket.model)
    assert same(values_of(loaded.model), expected)
    assert loaded.provenance["values"] == ("start" if remember else "present")
    assert (loaded.start is not None) == remember
    assert not remember or same(loaded.start.values(), start)


def test_the_loaded_ticket_trains_as_the_saved_one_did(path):
    ticket = drawn(remember=True)
    expected = zoo.train("sequential", ticket, epochs=2)
    ticket.save_ticket(path)
    loaded = kt.load_ticket(path, zoo.build("sequential", seed=1))
    zoo.compile_for("sequential", loaded)
    np.testing.assert_array_equal(zoo.train("sequential", loaded, epochs=2), expected)


@pytest.mark.parametrize("policy", ["bfloat16", "float16", "mixed_bfloat16"])
def test_dtypes_that_numpy_lacks(policy, path):
    def build():
        return keras.Sequential(
            [keras.Input((6,)), layers.Dense(5, dtype=policy), layers.Dense(2)]
        )

    ticket = kt.wrap(build(), kt.Magnitude(0.5))
    ticket.draw()
    before = values_of(ticket.model)
    ticket.save_ticket(path)
    loaded = kt.load_ticket(path, build())
    after = values_of(loaded.model)
    assert [v.dtype for v in after] == [v.dtype for v in before]
    assert same(after, before)
    assert before[0].any()


# -- Masked layers -------------------------------------------------------------


def dense(masked: bool, **kwargs) -> keras.Model:
    first = layers.Dense(5, **kwargs)
    return keras.Sequential(
        [keras.Input((6,)), kt.Masked(first) if masked else first, layers.Dense(2)]
    )


@pytest.mark.parametrize("source", [True, False])
@pytest.mark.parametrize("target", [True, False])
def test_with_and_without_masked_layers(source, target, path):
    ticket = kt.wrap(dense(source), kt.Random(0.5, seed=1))
    ticket.draw()
    ticket.save_ticket(path)
    loaded = kt.load_ticket(path, dense(target))

    def by_shape(one):
        shapes = [kernel.shape for kernel in one.kernels]
        return dict(zip(shapes, one.mask_set.values(), strict=True))

    ours, theirs = by_shape(loaded), by_shape(ticket)
    assert set(ours) == set(theirs) == {(6, 5), (5, 2)}
    assert all(np.array_equal(ours[shape], theirs[shape]) for shape in ours)
    assert same(values_of(loaded.model), values_of(ticket.model))


@pytest.mark.backend_independent
def test_a_masked_layer_that_the_file_does_not_mask(path):
    ticket = kt.wrap(dense(False), kt.Random(0.5, seed=1), skip="/dense/")
    assert len(ticket.kernels) == 1
    ticket.draw()
    ticket.save_ticket(path)
    model = dense(True)
    before = values_of(model)
    with pytest.raises(ValueError, match=r"kernel' of .* is inside a Masked layer"):
        kt.load_ticket(path, model)
    assert same(values_of(model), before)


# -- provenance ----------------------------------------------------------------


def test_provenance(path):
    few = zoo.images()[:8], zoo.labels()[:8]
    ticket = drawn(pruner=kt.SNIP(0.75, few, allocation="erk"))
    ticket.save_ticket(path)
    origin = kt.load_ticket(path, zoo.build("sequential")).provenance
    json.dumps(origin)
    pruner = kt.pruners.get(origin["pruner"])
    assert pruner.get_config() == ticket.pruner.get_config()
    assert pruner.score.data is None
    assert origin["sparsity"] == ticket.sparsity
    assert origin["weights"] - origin["kept"] == ticket.mask_set.count().zeros
    backend = keras.backend.backend()
    assert origin["backend"] == backend
    assert set(origin["versions"]) == {"keras_tickets", "keras", "numpy", backend}
    assert "unknown" not in origin["versions"].values()
    assert origin["saved"].endswith("+00:00")


def test_the_seed_draws_the_same_ticket_again(path):
    drawn(pruner=kt.Random(0.8)).save_ticket(path)
    loaded = kt.load_ticket(path, zoo.build("sequential"))
    again = drawn(pruner=kt.pruners.get(loaded.provenance["pruner"]))
    assert same(loaded.mask_set.values(), again.mask_set.values())


def test_saved_again_it_keeps_its_origin(path):
    drawn(remember=True).save_ticket(path)
    loaded = kt.load_ticket(path, zoo.build("sequential"))
    loaded.save(path.with_suffix(".keras"))
    restored = keras.models.load_model(path.with_suffix(".keras"))
    kt.wrap(restored).save_ticket(path, overwrite=True)
    again = kt.load_ticket(path, zoo.build("sequential"))
    assert again.provenance["pruner"] == loaded.provenance["pruner"] is not None
    assert again.provenance["values"] == "start"


@pytest.mark.backend_independent
def test_a_pruner_that_json_can_not_hold(path):
    def loss(y, predicted):
        return keras.losses.sparse_categorical_crossentropy(y, predicted, True)

    few = zoo.images()[:8], zoo.labels()[:8]
    drawn(pruner=kt.SNIP(0.75, few, loss=loss)).save_ticket(path)
    assert "loss" in str(kt.load_ticket(path, zoo.build("sequential")).provenance)


@pytest.mark.backend_independent
def test_masks_take_a_bit_for_each_weight(path):
    ticket = drawn()
    ticket.save_ticket(path)
    with np.load(path, allow_pickle=False) as archive:
        for i, kernel in enumerate(ticket.kernels):
            assert archive[f"mask_{i}"].nbytes == -(-kernel.size // 8)


def test_the_architecture_is_hashed_alike_everywhere():
    """On every backend, in every version; whatever the layers are called."""
    first, second = zoo.build("nested"), zoo.build("nested")
    assert {w.path for w in architecture.describe(first)} != {
        w.path for w in architecture.describe(second)
    }
    digests = {architecture.digest(architecture.describe(m)) for m in (first, second)}
    assert digests == {DIGEST}


DIGEST = "d3dac0ab7f34e98dd905bc142d9ccfbc69e6cb034fa1c773abd2193a0a542cec"


# -- what is refused -----------------------------------------------------------


def arrays_of(path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def rewrite(path, change, seal: bool = False) -> None:
    """Change the arrays of a file, with the checksum of the old or of the new ones."""
    arrays = arrays_of(path)
    change(arrays)
    if seal:
        arrays["checksum"] = np.array(archive.checksum(arrays))
    np.savez(path, **arrays)


def header(path, **changes):
    def change(arrays):
        content = json.loads(arrays["header"].tobytes()) | changes
        arrays["header"] = np.frombuffer(json.dumps(content).encode(), np.uint8)

    rewrite(path, change, seal=True)


def flip_a_bit(path):
    def change(arrays):
        arrays["value_0"].ravel().view(np.uint8)[3] ^= 4

    rewrite(path, change)


def flip_a_byte_on_the_disk(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def save_array(path):
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    path.write_bytes(buffer.getvalue())


def drop(name):
    return lambda path: rewrite(path, lambda arrays: arrays.pop(name), seal=True)


def put(name, array, seal=True):
    return lambda path: rewrite(path, lambda a: a.update({name: array}), seal=seal)


DAMAGE = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-50]), "damaged"),
    "half": (lambda p: p.write_bytes(p.read_bytes()[:900]), "damaged"),
    "empty": (lambda p: p.write_bytes(b""), "damaged"),
    "text": (lambda p: p.write_text("a ticket"), "damaged"),
    "another array": (save_array, "damaged"),
    "a byte on the disk": (flip_a_byte_on_the_disk, "damaged"),
    "a bit inside": (flip_a_bit, "checksum is wrong"),
    "no header": (lambda p: rewrite(p, lambda a: a.pop("header")), "header is missing"),
    "no checksum": (
        lambda p: rewrite(p, lambda a: a.pop("checksum")),
        "checksum is missing",
    ),
    "no mask": (drop("mask_1"), "mask_1 is missing"),
    "no value": (drop("value_2"), "value_2 is missing"),
    "short mask": (
        put("mask_1", np.zeros(3, np.uint8)),
        r"mask_1 is uint8 \(3,\), expected",
    ),
    "short value": (put("value_0", np.zeros(3, "float32")), "value_0 is float32"),
    "other dtype": (put("value_0", np.zeros((3, 3, 3, 6))), "value_0 is float64"),
    "pickled": (put("value_0", np.array([{}], object), seal=False), "damaged"),
    "no version": (lambda p: header(p, format=None), "damaged"),
    "newer": (lambda p: header(p, format=2), r"has format 2; .* up to 1\. Upgrade"),
    "gone": (lambda p: p.unlink(), "no ticket file"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.backend_independent
def test_damaged_files(kind, path):
    """Every one is named, and the model is as it was."""
    damage, message = DAMAGE[kind]
    drawn().save_ticket(path)
    damage(path)
    model = zoo.build("sequential", seed=1)
    before = values_of(model)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        kt.load_ticket(path, model)
    assert "x.ticket.npz" in str(caught.value)
    assert same(values_of(model), before)


def variant(units=4, filters=6, conv=layers.Conv2D, bias=True, extra=False, **kwargs):
    """Return zoo's sequential model with one difference."""
    below = [keras.Input((8, 8, 3)), conv(filters, 3, activation="relu", **kwargs)]
    below += [layers.Flatten(), layers.Dense(units, use_bias=bias)]
    return keras.Sequential(below + [layers.Dense(3)] * extra)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filters": 7}, r"expected Conv2D kernel \(3, 3, 3, 6\) .*\(3, 3, 3, 7\)"),
        ({"units": 5}, r"expected Dense kernel \(216, 4\) .* found .* \(216, 5\)"),
        ({"bias": False}, r"expected Dense bias .* found no further weight; 4 weights"),
        ({"extra": True}, r"expected no further weight, found Dense kernel \(4, 3\)"),
        ({"dtype": "float16"}, r"float32 .* found Conv2D kernel .* float16"),
        ({"conv": layers.SeparableConv2D}, r"found SeparableConv2D depthwise_kernel"),
    ],
)
@pytest.mark.backend_independent
def test_another_architecture(change, message, path):
    """The first weight that differs is named with both shapes."""
    drawn().save_ticket(path)
    kt.load_ticket(path, variant())
    model = variant(**change)
    before = values_of(model)
    with pytest.raises(ValueError, match=message):
        kt.load_ticket(path, model)
    assert same(values_of(model), before)


@pytest.mark.backend_independent
def test_what_is_no_plain_model(path):
    ticket = drawn()
    ticket.save_ticket(path)
    with pytest.raises(ValueError, match=r"is a ticket already.*ticket\.model"):
        kt.load_ticket(path, ticket)
    with pytest.raises(TypeError, match=r"Expected a keras\.Model"):
        kt.load_ticket(path, "model")


@pytest.mark.backend_independent
def test_a_ticket_that_was_not_drawn(path):
    with pytest.raises(ValueError, match="was never drawn"):
        kt.wrap(zoo.build("sequential"), kt.Random(0.5)).save_ticket(path)
    assert not path.exists()


@pytest.mark.backend_independent
def test_where_it_can_not_be_written(path):
    ticket = drawn()
    with pytest.raises(ValueError, match=r"'\.npz'"):
        ticket.save_ticket(path.with_suffix(".zip"))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ticket.save_ticket(path.parent / "nowhere" / "x.npz")
    ticket.save_ticket(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        ticket.save_ticket(path)
    assert path.read_bytes() == before


@pytest.mark.backend_independent
def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch):
    ticket = drawn()
    ticket.save_ticket(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError("the disk failed")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="the disk failed"):
        ticket.save_ticket(path, overwrite=True)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
