"""`Diagnosis`: layer by layer, what runs sparse on a phone, and why others do not."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

from keras_tickets._util.shown import Shown
from keras_tickets._util.tables import facts, table
from keras_tickets.xnnpack import speed


@dataclasses.dataclass(frozen=True)
class Layer:
    """What becomes of one operator.

    Args:
        name: The layer it comes from, as far as the file tells.
        op: TFLite's name of the operator.
        shape: The shape of its weights; outputs first, as the file stores them.
        dtype: The type of its weights.
        encoding: How they are stored: `"dense"`, `"sparse"`, `"sparse 1x4"`.
        weights: How many there are.
        zeros: How many of them are zero.
        multiplications: Products that it computes for one input.
        runs: `"sparse"`, `"dense"`, or `"breaks"`: the file does not load, or it is
            wrong from there on.
        kernel: The sparse kernel, as `kt.mobile.sparse_path` names it.
        reason: Why it does not run sparse; empty if it never could.
        fix: What would help.
        cluster: The number of the cluster whose layout changes as a whole; 0 if it is
            in none.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    encoding: str
    weights: int
    zeros: int
    multiplications: int
    runs: str
    kernel: str
    reason: str
    fix: str
    cluster: int

    @property
    def candidate(self) -> bool:
        """Whether there is a sparse kernel for what it computes."""
        pointwise = self.op == "CONV_2D" and self.shape[1:3] == (1, 1)
        # Of a product of what is computed, no weights are known.
        return pointwise or (self.op == "FULLY_CONNECTED" and self.weights > 0)

    @property
    def sparsity(self) -> float:
        """The fraction of its weights that is zero."""
        return self.zeros / self.weights if self.weights else 0.0


@dataclasses.dataclass(frozen=True)
class ClusterZeros:
    """1x1 convolutions that run sparse together, or not at all.

    Args:
        number: As the layers name it.
        weights: How many weights they have.
        zeros: How many of them are zero; XNNPACK asks for more than two thirds.
    """

    number: int
    weights: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """The fraction of the weights that is zero."""
        return self.zeros / self.weights if self.weights else 0.0


def is_slower(speed_up: float) -> bool:
    """Return whether a file is expected to be slower; within 5 % it is as fast."""
    return speed_up < 0.95


@dataclasses.dataclass(frozen=True, repr=False)
class Diagnosis(Shown):
    """What of a file runs sparse. Prints as a table.

    Args:
        subject: The file, or the model.
        target: Whose sparse kernels are asked for: `"xnnpack"`.
        revision: Which rules these are.
        precision: How weights are stored: the least precise of the file.
        layers: What becomes of each operator with weights, and of any that breaks.
        clusters: The zeros of what runs sparse together, against two thirds.
        foreign: Operators that LiteRT does not carry, such as TensorFlow's (`Flex...`).
        assumed: What was assumed of a model that is not trained yet; of a file, the
            sizes that it leaves open, and who chose them.
        origin: What wrote the file, where it was written too early; else empty.
    """

    subject: str
    target: str
    revision: str
    precision: str
    layers: tuple[Layer, ...]
    clusters: tuple[ClusterZeros, ...]
    foreign: tuple[str, ...] = ()
    assumed: str = ""
    origin: str = ""

    @property
    def kernels(self) -> dict[str, int]:
        """How many operators run in which sparse kernel."""
        counted = collections.Counter(layer.kernel for layer in self._sparse)
        return dict(sorted(counted.items()))

    @property
    def breaks(self) -> bool:
        """Whether the file fails or computes wrong numbers on ARM64 and in wasm."""
        return any(layer.runs == "breaks" for layer in self.layers)

    @property
    def share(self) -> float:
        """The fraction of the multiplications in operators that run sparse."""
        total = sum(layer.multiplications for layer in self.layers)
        sparse = sum(layer.multiplications for layer in self._sparse)
        return sparse / total if total else 0.0

    @property
    def expected_speed_up(self) -> float:
        """Dense time over sparse time, as an estimate; see `speed`."""
        total = sum(layer.multiplications for layer in self.layers)
        time = sum(
            layer.multiplications * _relative_time(layer) for layer in self.layers
        )
        return total / time if time else 1.0

    @property
    def verdict(self) -> str:
        """The result in one line."""
        if self.foreign:
            return (
                f"LiteRT cannot run it: it has no {', '.join(self.foreign)}. Replace "
                "the layers that need them, and export with kt.export."
            )
        if self.breaks:
            wrong = next(layer for layer in self.layers if layer.runs == "breaks")
            return (
                "It fails or computes wrong numbers on ARM64 and in wasm, from "
                f"{wrong.op} '{wrong.name}' on: {wrong.reason}."
            )
        if not self._sparse:
            return f"Nothing runs sparse: {self._main_reason}."
        told = (
            f"{len(self._sparse)} of {len(self._candidates)} 1x1 convolutions and "
            f"dense layers run sparse: {self.share:.0%} of the multiplications."
        )
        if self.is_slower:
            return (
                f"Slower than dense: about {self.expected_speed_up:.2g} x. {told} In "
                "those of them that are less than 60 % zero a sparse kernel is the "
                'slower one: prune them further (allocation="uniform"), or store all '
                "zeros (kt.export(..., sparse=False))."
            )
        return f"{told} Expected: about {self.expected_speed_up:.1f} x dense."

    @property
    def is_slower(self) -> bool:
        """Whether zeros are expected to cost time in place of sparing it."""
        return is_slower(self.expected_speed_up)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for `json.dumps`."""
        return {
            **dataclasses.asdict(self),
            "kernels": self.kernels,
            "breaks": self.breaks,
            "share": self.share,
            "expected_speed_up": self.expected_speed_up,
            "expected_by": speed.BASIS,
            "verdict": self.verdict,
        }

    def __str__(self) -> str:
        """Return the table."""
        return f"{self._layer_table()}\n\n{self._facts()}"

    @property
    def _sparse(self) -> list[Layer]:
        return [layer for layer in self.layers if layer.runs == "sparse"]

    @property
    def _candidates(self) -> list[Layer]:
        return [layer for layer in self.layers if layer.candidate]

    @property
    def _main_reason(self) -> str:
        reasons = collections.Counter(layer.reason for layer in self._candidates)
        if not reasons:
            return "it has neither 1x1 convolutions nor dense layers"
        return reasons.most_common(1)[0][0]

    def _facts(self) -> str:
        rows = [
            ("verdict", self.verdict),
            ("precision", self.precision),
            *(
                (
                    f"cluster {cluster.number}",
                    f"{cluster.sparsity:.1%} of {cluster.weights:,} weights are zero; "
                    "it runs sparse above 66.7 %",
                )
                for cluster in self.clusters
            ),
            ("rules", self.revision),
        ]
        if self.origin:
            rows.insert(1, ("what it is", self.origin))
        if self.assumed:
            rows.append(("assumed", self.assumed))
        if self._sparse and not self.breaks:
            rows.append(("expected by", speed.BASIS))
        rows += self._fixes()
        return facts(f"{self.subject} on {self.target}", rows)

    def _fixes(self) -> list[tuple[str, str]]:
        """Return what would help, each once, with how many layers it would help."""
        fixes = collections.Counter(layer.fix for layer in self.layers if layer.fix)
        return [
            ("to do" if not at else "", f"{fix} ({number} layers)")
            for at, (fix, number) in enumerate(fixes.most_common())
        ]

    def _layer_table(self) -> str:
        return table(
            "",
            (
                *("layer", "operator", "weights", ">zeros", ">cluster"),
                *("runs sparse?", "why not"),
            ),
            [
                (
                    layer.name,
                    layer.op,
                    "x".join(map(str, layer.shape)),
                    f"{layer.sparsity:.1%}" if layer.weights else "",
                    str(layer.cluster or ""),
                    _answer(layer),
                    layer.reason,
                )
                for layer in self.layers
            ],
        )


def _answer(layer: Layer) -> str:
    if layer.runs == "sparse":
        return f"yes, {layer.kernel}"
    if layer.runs == "breaks":
        return "BREAKS"
    return "no" if layer.reason else "-"


def _relative_time(layer: Layer) -> float:
    if layer.runs != "sparse":
        return 1.0
    # XNNPACK's kernels are named by pixels x outputs, TFLite's by outputs x inputs.
    kind = "convolution" if " 32x" in layer.kernel else layer.kernel
    return speed.relative_time(kind, 1 - layer.sparsity)
