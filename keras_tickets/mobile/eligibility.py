"""What to prune for a phone, and in which blocks: what runs faster there."""

from __future__ import annotations

from collections.abc import Callable

import keras

from keras_tickets.kernels import Kernel, choose_kernels
from keras_tickets.mobile.probe_model import diagnose_probe, pruned
from keras_tickets.pruners.base import Pruner
from keras_tickets.recipe import structures
from keras_tickets.recipe.structures import Kinds, Structure
from keras_tickets.xnnpack.support import DENSE_BLOCKS

TARGETS = ("arm64", "wasm")


def structure(
    place: str = "arm64", precision: str = "float32", outputs: int = 1
) -> Structure:
    """Return what a phone's sparse kernels take together, for each kind of layer.

    1x1 convolutions run sparse with single zeros, dense layers and attention
    projections in blocks along their inputs: 1x4 in float32, 1x16 in int8. On ARM64,
    blocks of 2 or 4 output channels spare instructions: a MobileNetV1 of 96 x 96 pixels
    executed at 80 % 1.45 times fewer than dense with single zeros, 2.29 times fewer in
    blocks of 4. They cost accuracy, and in browsers they are slower (1.83 ms became
    3.65 ms), so there they are refused.

    Args:
        place: `"arm64"` (phones) or `"wasm"` (browsers).
        precision: Of the file: `"float32"` or `"int8"`.
        outputs: Output channels of 1x1 convolutions that are kept or dropped together:
            1, 2 or 4.

    Returns:
        A structure for `structure=` of any pruner.

    Raises:
        ValueError: If there are no sparse kernels for that.

    Example:
    >>> structure("arm64", precision="int8").label
    'dense 1x16'
    """
    if place not in TARGETS:
        raise ValueError(f"place must be one of {list(TARGETS)}. Received: {place!r}.")
    if precision not in DENSE_BLOCKS:
        raise ValueError(
            "There are sparse kernels for dense layers in "
            f"{' and '.join(DENSE_BLOCKS)} only. Received: precision={precision!r}."
        )
    if outputs not in (1, 2, 4) or (place == "wasm" and outputs > 1):
        raise ValueError(
            "outputs must be 1, or on ARM64 2 or 4: XNNPACK has fast kernels for "
            f"blocks of these. Received: outputs={outputs!r} for place={place!r}."
        )
    blocks = f"block_{outputs}" if outputs > 1 else "unstructured"
    return Kinds(dense=f"block_1x{DENSE_BLOCKS[precision]}", pointwise=blocks)


class Eligible:
    """Chooses the kernels that a phone runs faster with zeros; a filter for `only=`.

    A copy of the model is pruned at random and converted, and `kt.diagnose` says which
    of its 1x1 convolutions, dense layers and attention projections would run in a
    sparse kernel.

    Args:
        precision: Of the file that will be exported: `"float32"` or `"int8"`.

    Raises:
        ValueError: If there are no sparse kernels for that precision.

    Example:
    >>> Eligible("int8")
    kt.mobile.Eligible('int8')
    """

    def __init__(self, precision: str = "float32") -> None:
        self._blocks = structure(precision=precision)
        self.precision = precision

    def of_pruner(self, pruner: Pruner) -> Eligible:
        """Return the filter for what a pruner cuts; `kt.wrap` asks for it.

        Zeros run sparse in the blocks that kernels read, and a pruner of single zeros
        leaves none of these in dense layers.
        """
        asked = Eligible(self.precision)
        asked._blocks = pruner.structure
        return asked

    def within(self, model: keras.Model) -> Callable[[Kernel], bool]:
        """Return the filter for the kernels of a model.

        Raises:
            ValueError: If nothing of the model would run faster; with the reason.
            RuntimeError: If the model cannot be converted.
        """
        blocks = self._blocks
        fitting = [
            kernel for kernel in choose_kernels(model).kernels if _fits(blocks, kernel)
        ]
        if not fitting:
            raise ValueError(
                f"No kernel of '{model.name}' can be cut into the blocks that a phone "
                f"reads in {self.precision}: {blocks.label}. Give its dense layers "
                f"inputs in multiples of {DENSE_BLOCKS[self.precision]}, or prune "
                f"without only={self!r}, for a smaller file."
            )
        copy = pruned(model, structure=blocks, kernels=fitting)
        found = diagnose_probe(copy, f"'{model.name}'", self.precision, named=str)
        faster = {layer.name for layer in found.layers if layer.runs == "sparse"}
        if not faster:
            raise ValueError(
                f"Nothing of '{model.name}' would run faster on a phone with zeros. "
                f"{found.verdict} {self._way_out()}"
            )
        return lambda kernel: kernel.path in faster

    def _way_out(self) -> str:
        blocks = structure(precision=self.precision)
        way = (
            "kt.mobile.prepare(model) rewrites what can be; kt.diagnose(model) says "
            "why, layer by layer."
        )
        if self._blocks.label == blocks.label:
            return way
        return (
            f"The pruner's structure is {self._blocks.label!r}, and dense layers run "
            f"sparse in blocks only: pass structure=kt.mobile.structure(). {way}"
        )

    def __call__(self, kernel: Kernel) -> bool:
        """Raise: whether a kernel runs sparse depends on the whole model."""
        raise TypeError(
            f"{self!r} chooses among the kernels of a whole model: pass it itself, "
            f"kt.wrap(model, pruner, only={self!r})."
        )

    def __repr__(self) -> str:
        """Return how the user writes it."""
        if self.precision == "float32":
            return "kt.mobile.eligible"
        return f"kt.mobile.Eligible({self.precision!r})"


eligible = Eligible()
"""For `kt.wrap(model, pruner, only=kt.mobile.eligible)`; see `Eligible`."""


def _fits(words: Structure, kernel: Kernel) -> bool:
    """Return whether a kernel can be cut into the blocks of a structure."""
    try:
        structures.get(words).check([kernel])
    except ValueError:
        return False
    return True
