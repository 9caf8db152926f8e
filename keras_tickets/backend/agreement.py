"""Does a copy compute what the user's model computes?

The outputs of the model are taken first, before anything is made of it: what goes wrong
on the way, in the copy or in the model, is then seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_tickets._util.signature import input_signature
from keras_tickets.backend import copying, keras_private
from keras_tickets.backend.random_inputs import (
    Sample,
    make_samples,
    to_tensors,
    vocabulary_of,
)
from keras_tickets.backend.rebuilding import is_of_keras

# The largest difference allowed, relative to the largest value of an output: where the
# same numbers are computed in the same way, and where they are computed otherwise.
SAME, ROUNDING = 1e-5, 1e-3

# Where one of the two computes in half precision, and the other does not: rounding adds
# up over the layers of a deep network.
HALF = 0.25

# The same where a layer of the copy computes in half precision.
_IN_HALF = {SAME: 1e-2, ROUNDING: 0.1}


@dataclass(frozen=True)
class Reference:
    """What a model computes in inference, on random inputs.

    Args:
        model: The model that the user handed in.
        sample: The inputs; `None` if none are known that it can run on, so that nothing
            can be compared.
        outputs: The values of each output.
    """

    model: keras.Model
    sample: Sample | None
    outputs: tuple[np.ndarray, ...] = ()

    @classmethod
    def of(cls, model: keras.Model) -> Reference:
        """Run a model, which is left as it was."""
        # A ticket has the inputs of the model that it wraps.
        inner = model.model if hasattr(model, "mask_set") else model
        try:
            signature = input_signature(inner, None, batch=2)
            [sample] = make_samples(vocabulary_of(inner), signature, 1)
            return cls(model, sample, _outputs(model, sample))
        except Exception:  # what a model raises of random inputs is its own affair
            return cls(model, None)

    def check(self, copy: keras.Model, tolerance: float = SAME) -> None:
        """Compare a copy with the model.

        Args:
            copy: Takes the same inputs, and should give the same outputs.
            tolerance: The largest difference allowed, relative to the largest value of
                the same output, in float32.

        Raises:
            ValueError: If it computes something else. A model that is random in
                inference cannot be compared.
        """
        if self.sample is None:
            return
        try:
            given = _outputs(copy, self.sample)
        except Exception as error:
            why = f"the copy cannot run where the model runs: {error}"
            raise ValueError(copying.cannot_copy(self.model, why)) from error
        limit = _IN_HALF.get(tolerance, tolerance) if _is_half(copy) else tolerance
        if (found := _difference(self.outputs, given, limit)) and not self._is_random():
            raise ValueError(
                copying.cannot_copy(self.model, f"{found}{_suspects(self.model)}")
            )

    def _is_random(self) -> bool:
        """Return whether the model gives other outputs each time."""
        try:
            with copying.at_rest(self.model):
                first, second = (_run(self.model, self.sample) for _ in range(2))
        except Exception:  # a graph may have been run, at another size than the model
            return False
        return bool(_difference(first, second, SAME))


def _outputs(model: keras.Model, sample: Sample) -> tuple[np.ndarray, ...]:
    with copying.at_rest(model):
        return _run(model, sample)


def _run(model: keras.Model, sample: Any) -> tuple[np.ndarray, ...]:
    copying.begin_anew(model)
    given = model(*to_tensors(sample), training=False)
    return tuple(np.asarray(ops.convert_to_numpy(x)) for x in tree.flatten(given))


def _difference(
    expected: tuple[np.ndarray, ...], given: tuple[np.ndarray, ...], limit: float
) -> str:
    """Say how the outputs of a copy differ; empty if they do not."""
    if len(expected) != len(given):
        return f"the copy has {len(given)} outputs, the model {len(expected)}"
    for number, (wanted, found) in enumerate(zip(expected, given, strict=True)):
        which = f"output {number}" if len(given) > 1 else "the output"
        if wanted.shape != found.shape:
            return f"{which} of the copy has shape {found.shape}, not {wanted.shape}"
        if wanted.dtype.kind in "OSU":
            if not np.array_equal(wanted, found):
                return f"{which} of the copy is another text than the model's"
            continue
        a, b = wanted.astype("float64"), found.astype("float64")
        finite = np.isfinite(a)
        largest = float(np.abs(a[finite]).max(initial=0.0))
        far = np.abs(a[finite] - b[finite])
        worst = float(np.nan_to_num(far, nan=np.inf).max(initial=0.0))
        if worst > limit * largest + 1e-7:
            return (
                f"{which} of the copy differs from the model's by {worst:.3g} on "
                f"random inputs in inference (largest value {largest:.3g})"
            )
    return ""


def _suspects(model: keras.Model) -> str:
    """Name the layers that may hold what a copy does not get."""
    own = [
        f"{layer.name!r} ({type(layer).__name__})"
        for layer in keras_private.sublayers(model)
        if not is_of_keras(type(layer)) and not hasattr(layer, "mask_set")
    ]
    return f". Layers of classes of your own: {', '.join(own)}" if own else ""


def _is_half(model: keras.Model) -> bool:
    kinds = {layer.compute_dtype for layer in keras_private.sublayers(model)}
    return bool(kinds & {"float16", "bfloat16"})
