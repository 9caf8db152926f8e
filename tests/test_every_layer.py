"""What becomes of every layer class that Keras exports: the same outputs, or a refusal.

The exports of each are in `benchmarks/every_layer.py`.
"""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

import keras_tickets as kt
from benchmarks import every_layer
from benchmarks import every_layer_recipes as recipes

pytestmark = pytest.mark.filterwarnings("ignore:.*collapse", "ignore:.*[Ss]afe mode")

# What holds weights, or something else that a copy has to have.
STATE = re.compile(
    r"Conv|RNN|LSTM|GRU|Dense|Normalization|Embedding|Attention|Lookup|Vectorization"
    r"|Hash|Discretization|PReLU|Bidirectional|TimeDistributed|Wrapper|Lambda|^Layer$"
)
# Keras cannot build them from their own config; nor does it load what it saved of them.
REFUSED = {"RandomShear"}
# What takes longer to make than all the others.
SLOW = {"TFSMLayer"}


def wrong(names, folder):
    """Returns which layers come out otherwise than the user's own, with the zeros."""
    model, inputs, owners = recipes.everything(names)
    ticket = kt.wrap(model, kt.Magnitude(0.5, on_collapse="warn"))
    ticket.draw(verbose=0)
    wanted = every_layer.with_zeros(ticket, inputs)
    path = folder / "ticket.keras"
    ticket.save(path)
    copies = {
        "stripped": ticket.strip(),
        "loaded": keras.models.load_model(path, safe_mode=False),
    }
    found = {}
    for how, copy in copies.items():
        given = every_layer.outputs(copy, inputs)
        for owner, a, b in zip(owners, wanted, given, strict=True):
            if not np.allclose(a, b, atol=1e-5):
                found.setdefault(owner, []).append(how)
    return found


@pytest.mark.backend_independent
def test_every_class_has_a_recipe():
    assert [name for name in recipes.classes() if recipes.recipe(name) is None] == []


@pytest.mark.backend_independent
def test_layers_with_state_come_out_equal(tmp_path):
    # Those of other ranks are like the two-dimensional ones.
    held = [name for name in recipes.available() if STATE.search(name)]
    names = [name for name in held if not re.search("1D|3D", name)]
    assert len(names) > 35  # Keras 3.13 exports fewer
    assert wrong(names, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64")
def test_every_layer_comes_out_equal(tmp_path):
    names = [name for name in recipes.available() if name not in REFUSED | SLOW]
    assert len(names) > 100
    assert wrong(names, tmp_path) == {}


@pytest.mark.backend_independent
@pytest.mark.parametrize("name", REFUSED)
def test_what_keras_cannot_build_again_is_refused_by_name(name):
    ticket = kt.wrap(recipes.make(name)[0], kt.Magnitude(0.5))
    ticket.draw(verbose=0)
    with pytest.raises(
        ValueError, match=rf"^{name} '\w+' cannot be copied .* own, and"
    ):
        ticket.strip()
