"""Are the zeros of the model in the file?"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from keras_tickets._util.errors import VerificationError
from keras_tickets._util.file_tensor import Array, FileTensor
from keras_tickets._util.layer_traits import is_bias
from keras_tickets.backend import on_host


@dataclasses.dataclass(frozen=True)
class Weight:
    """A float weight of the model of rank 2 or more; biases are none.

    Args:
        name: Its path in the model.
        values: Its values.
    """

    name: str
    values: Array

    @property
    def zeros(self) -> int:
        """How many values are zero."""
        return self.values.size - int(np.count_nonzero(self.values))


def model_weights(model: keras.Model) -> list[Weight]:
    """List the weights that count: float, rank 2 or more, no biases; each once.

    Attention and GRU layers have biases of rank 2, which converters add to other
    constants; nobody prunes them.

    Raises:
        ValueError: If a float variable of the model holds NaN or infinity.
    """
    weights = []
    for variable in model.variables:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue
        values = on_host(variable.value)
        bad = values.size - int(np.isfinite(values.astype(np.float64)).sum())
        if bad:
            raise ValueError(
                f"'{variable.path}' holds {bad} values of {values.size} that are not "
                "finite (NaN or infinite), so no file of this model can be checked. "
                "Restore weights from before the training diverged."
            )
        if values.ndim >= 2 and not is_bias(variable.name):
            weights.append(Weight(variable.path, values))
    return weights


def check_zeros(weights: list[Weight], tensors: list[FileTensor]) -> None:
    """Check that no zero of the model was lost on the way into the file.

    A converter may transpose, fold and rename a weight, but keeps its size: weights
    are compared with the constants of equal size, most zeros first. What the file
    has no constant for was split, joined or computed away (weights that are zero
    throughout are); if the constants left over can hold them, their zeros must be
    there in total.

    Args:
        weights: The weights of the model.
        tensors: The constants of the file.

    Raises:
        RuntimeError: If zeros were lost.
    """
    constants = [t for t in tensors if t.is_real and t.values.ndim]
    missing: list[Weight] = []
    left: list[FileTensor] = []
    for size in {w.values.size for w in weights} | {t.values.size for t in constants}:
        wanted = [w for w in _unique(weights) if w.values.size == size]
        found = [t for t in constants if t.values.size == size]
        wanted.sort(key=lambda weight: weight.zeros, reverse=True)
        found.sort(key=lambda tensor: tensor.zeros, reverse=True)
        gone = max(0, len(wanted) - len(found))
        missing += wanted[:gone]
        left += found[len(wanted) :]
        for weight, tensor in zip(wanted[gone:], found, strict=False):
            if tensor.zeros < weight.zeros:
                raise VerificationError(_lost([weight], tensor.zeros))
    _check_total(missing, left)


def _check_total(weights: list[Weight], left: list[FileTensor]) -> None:
    if sum(w.values.size for w in weights) > sum(t.values.size for t in left):
        return
    found = sum(tensor.zeros for tensor in left)
    if found < sum(weight.zeros for weight in weights):
        raise VerificationError(_lost(weights, found))


def _unique(weights: list[Weight]) -> list[Weight]:
    """Equal weights once: converters store equal constants once."""
    return list({(w.values.size, w.values.tobytes()): w for w in weights}.values())


def _lost(weights: list[Weight], found: int) -> str:
    names = ", ".join(f"'{weight.name}'" for weight in weights)
    expected = sum(weight.zeros for weight in weights)
    return (
        f"Zeros were lost on the way into the file: {names} has {expected:,} zeros in "
        f"the model, but what the file stores for it has {found:,}. No file was "
        "written."
    )
