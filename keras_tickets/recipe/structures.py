"""What is kept together: the weight groups that a mask keeps or drops as one.

A structure returns the weight groups of one kernel (`Structure.on`). They pool the
scores of its weights into one for each group, and expand the choice of groups to a mask
of the kernel. Selection sees weight groups only. Inputs and outputs are those of
`Kernel.view`: the axes that a product sums over, and those that stay.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from keras_tickets._util import arguments
from keras_tickets._util.registry import Configurable, Registry
from keras_tickets.kernels import Kernel
from keras_tickets.recipe.groups import Pattern, WeightGroups

AXES = ("input", "output")


class Structure(Configurable, ABC):
    """How the weights of a kernel are grouped."""

    @abstractmethod
    def on(self, kernel: Kernel) -> WeightGroups:
        """Return the weight groups of `kernel`."""

    @property
    def label(self) -> str:
        """What a table calls it."""
        return type(self).__name__.lower()

    def check(self, kernels: Sequence[Kernel]) -> None:
        """Raise if some of `kernels` cannot be grouped so.

        Raises:
            ValueError: Naming them, and what would help.
        """


def _written(text: Any) -> Structure | None:
    """Return the structure that `"block_1x4"`, `"block_4"` or `"2:4"` spells."""
    if not isinstance(text, str):
        return None
    if found := re.fullmatch(r"(?i)block_?(\d+)(?:x(\d+))?", text):
        outputs, inputs = int(found[1]), int(found[2] or 1)
        if min(outputs, inputs) == 1:
            along = "input" if inputs > 1 else "output"
            return Block(max(outputs, inputs), along)
    if found := re.fullmatch(r"(\d+):(\d+)", text):
        return NM(int(found[1]), int(found[2]))
    return None


_registry = Registry("structure", Structure, adapt=_written)


@_registry.register
class Unstructured(Structure):
    """Every weight for itself.

    Example:
    >>> get("unstructured")
    Unstructured()
    """

    def on(self, kernel: Kernel) -> WeightGroups:
        """Return groups of one weight each."""
        return WeightGroups(kernel.view, kernel.shape)


@_registry.register
class Block(Structure):
    """Consecutive weights along the inputs or the outputs, aligned at their size.

    A block lies in one tap of a convolution. Along the outputs it has one input, and
    along the inputs one output:

        Block(4, "output") of a Conv2D:  kernel[h, w, i, 4k : 4k + 4]
        Block(4, "input") of a Dense:    kernel[4k : 4k + 4, o]

    For short `"block_<outputs>x<inputs>"`, as runtimes write the shape of blocks:
    `"block_1x4"` are four inputs, `"block_4x1"`, or `"block_4"`, four outputs. XNNPACK
    has ARM64 kernels for sparse 1x1 convolutions in blocks of 2 and 4 outputs; LiteRT
    has one for dense layers in blocks of 1x4 (float32) and 1x16 (int8).

    Where the outputs are no multiple of `size`, the last block is smaller. The inputs
    must be one: no runtime reads a sparse dense layer whose last block is cut short.

    Args:
        size: How many weights are kept or dropped together, at least two.
        axis: `"output"` or `"input"`.

    Raises:
        ValueError: On `wrap`, if the inputs of a kernel are no multiple of `size` and
            the blocks are along them.

    Example:
    >>> get("block_1x4")
    Block(size=4, axis='input')
    """

    def __init__(self, size: int = 4, axis: str = "output") -> None:
        hint = ' For single weights use "unstructured".'
        self.size = arguments.whole(
            "size is how many weights a block has and", size, 2, hint
        )
        self.axis = arguments.word("axis", axis, AXES)

    def on(self, kernel: Kernel) -> WeightGroups:
        """Return blocks of `size` inputs or outputs."""
        self.check([kernel])
        inputs = self.axis == "input"
        block_shape = (1, self.size, 1) if inputs else (1, 1, self.size)
        return WeightGroups(kernel.view, kernel.shape, block_shape)

    @property
    def label(self) -> str:
        """What a table calls it: outputs x inputs."""
        return f"1x{self.size}" if self.axis == "input" else f"{self.size}x1"

    def check(self, kernels: Sequence[Kernel]) -> None:
        """Raise if inputs cannot be cut into blocks."""
        if self.axis == "input":
            _check_inputs(self, self.size, kernels)


@_registry.register
class Channel(Structure):
    """Whole output channels: all weights of one output of a kernel.

    A unit of a dense layer, a filter of a convolution, one gate of one unit of a
    recurrent layer. Biases and normalizations are left as they are, so a channel
    without weights may still put out a constant, and the model keeps its shape. A
    classifier's outputs are classes: leave it alone with `skip=`.

    Example:
    >>> get("channel")
    Channel()
    """

    def on(self, kernel: Kernel) -> WeightGroups:
        """Return groups of all taps and inputs of one output."""
        view = kernel.view
        block_shape = (kernel.extent(view.taps), kernel.extent(view.inputs), 1)
        return WeightGroups(view, kernel.shape, block_shape)


@_registry.register
class NM(Structure):
    """N:M: at most `n` of every `m` consecutive inputs are kept, for each output.

    `n` counts what is *kept*, as in 2:4 of the hardware that runs it, and as in
    JaxPruner. (tfmot's `sparsity_m_by_n=(m, n)` counts zeros: its (1, 4) is 3:4 here.)
    For short `"2:4"`.

        2:4 of a Dense:  two of kernel[4k : 4k + 4, o] for each k and o

    At sparsity `1 - n / m` exactly `n` of every `m` are kept. A sparser ticket keeps
    the pattern, and drops the least of what it leaves. Masks on the way there are
    denser: the best `n` of each group come before all others.

    Args:
        n: How many are kept, at least one.
        m: Of how many inputs; that of each kernel must be a multiple of it.

    Raises:
        ValueError: On `wrap`, if the inputs of a kernel are no multiple of `m`, or the
            sparsity would keep more than the pattern leaves.

    Example:
    >>> get("2:4")
    NM(n=2, m=4)
    """

    def __init__(self, n: int = 2, m: int = 4) -> None:
        self.m = arguments.whole("m", m, least=2)
        self.n = arguments.whole("n", n, least=0)
        if not 1 <= self.n < self.m:
            raise ValueError(
                "n:m keeps n of m inputs: whole numbers with 1 <= n < m. Received: "
                f"n={n!r}, m={m!r}."
            )

    def on(self, kernel: Kernel) -> Pattern:
        """Return single weights in groups of `m` inputs."""
        self.check([kernel])
        return Pattern(kernel.view, kernel.shape, kept=self.n, of=self.m)

    @property
    def label(self) -> str:
        """What a table calls it."""
        return f"{self.n}:{self.m}"

    def check(self, kernels: Sequence[Kernel]) -> None:
        """Raise if the inputs of a kernel cannot be cut into groups of `m`."""
        _check_inputs(self, self.m, kernels)


@_registry.register
class Kinds(Structure):
    """A structure for each kind of kernel, as runtimes have kernels for kinds.

    `kt.mobile.structure()` returns what phones run sparse.

    Args:
        dense: Of kernels without a window: dense layers, projections, recurrent ones.
        pointwise: Of convolutions with a window of one pixel.
        others: Of all other convolutions.

    Example:
    >>> Kinds(dense="block_1x4").label
    'dense 1x4'
    """

    def __init__(
        self,
        dense: Any = "unstructured",
        pointwise: Any = "unstructured",
        others: Any = "unstructured",
    ) -> None:
        self.dense = get(dense)
        self.pointwise = get(pointwise)
        self.others = get(others)

    def on(self, kernel: Kernel) -> WeightGroups:
        """Return the weight groups of the kernel's kind."""
        return self._of(kernel).on(kernel)

    @property
    def label(self) -> str:
        """What a table calls it: the kinds that are not kept weight by weight."""
        named = {"dense": self.dense, "1x1": self.pointwise, "others": self.others}
        shown = [
            f"{kind} {words.label}"
            for kind, words in named.items()
            if not isinstance(words, Unstructured)
        ]
        return ", ".join(shown) or "unstructured"

    def check(self, kernels: Sequence[Kernel]) -> None:
        """Raise if some of `kernels` cannot be grouped as their kind is."""
        for words in (self.dense, self.pointwise, self.others):
            words.check([k for k in kernels if self._of(k) is words])

    def _of(self, kernel: Kernel) -> Structure:
        taps = kernel.view.taps
        if not taps:
            return self.dense
        return self.pointwise if kernel.extent(taps) == 1 else self.others


def _check_inputs(words: Structure, size: int, kernels: Sequence[Kernel]) -> None:
    """Raise if the number of inputs of a kernel is no multiple of `size`."""
    ragged = [k for k in kernels if k.extent(k.view.inputs) % size]
    if ragged:
        found = ", ".join(f"{k.path} {k.extent(k.view.inputs)}" for k in ragged)
        raise ValueError(
            f"{words.label} groups the inputs of a kernel by {size}, but the number of "
            f"inputs is no multiple of {size} in: {found}. Leave these alone: "
            f"kt.wrap(model, pruner, skip={[k.path for k in ragged]}); or use "
            'structure="unstructured".'
        )


def get(identifier: Any) -> Structure:
    """Return the structure that a name, config, class or instance stands for.

    Besides the names, `"block_1x4"` (outputs x inputs) and `"2:4"` are understood.
    """
    return _registry.get(identifier)
