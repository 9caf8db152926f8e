"""XNNPACK's rules of what can run sparse, as one table.

They mirror XNNPACK as LiteRT 2.3.0 carries it (what `xnn_check_nchw_compatibility` of
its `src/subgraph.c` says in August 2026, revision 75db3c0), and are held against the
sparse kernels that ran on emulated ARM64 by `benchmarks/mobile_graphs.py`.

Sparse 1x1 convolutions want images in NCHW (channel by channel), everything else of a
`.tflite` in NHWC (pixel by pixel). So a network has to *enter* the other layout at one
operator, stay *inside* with operators that know it, and *leave* it at another.
"""

from __future__ import annotations

import dataclasses
import enum
import fractions
from collections.abc import Callable

from keras_tickets.tflite.graph import Graph
from keras_tickets.xnnpack import predicates
from keras_tickets.xnnpack.partition import BINARY, UNARY, Step

REVISION = "XNNPACK of LiteRT 2.3.0 (rules of revision 75db3c0)"

# XNNPACK changes the layout where more than this fraction of a cluster's weights is
# zero.
THRESHOLD = fractions.Fraction(2, 3)


class Role(enum.Flag):
    """What an operator can be to a sparse network."""

    NONE = 0
    INSIDE = enum.auto()
    ENTRY = enum.auto()
    EXIT = enum.auto()


@dataclasses.dataclass(frozen=True)
class Need:
    """What an operator must be like.

    Args:
        holds: Whether a step is.
        reason: What it is if it is not.
        fix: What would help, if something does.
    """

    holds: Callable[[Graph, Step], bool]
    reason: str
    fix: str = ""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One row of the table.

    Args:
        what: What it is about.
        matches: Whether a step is of this row; the first row that matches counts.
        role: What it can be if it has all that is needed.
        needs: What it needs.
    """

    what: str
    matches: Callable[[Graph, Step], bool]
    role: Role
    needs: tuple[Need, ...] = ()


@dataclasses.dataclass(frozen=True)
class Eligibility:
    """What a step is to XNNPACK's sparse mode.

    Args:
        role: What it can be.
        reason: Why it can be nothing.
        fix: What would help.
    """

    role: Role
    reason: str = ""
    fix: str = ""


def eligibility(graph: Graph, step: Step) -> Eligibility:
    """Look a step up in the table."""
    if not _all_float(graph, step):
        return Eligibility(Role.NONE, "it computes in integers (quantized)", _FLOAT)
    rule = next(rule for rule in RULES if rule.matches(graph, step))
    for need in rule.needs:
        if not need.holds(graph, step):
            return Eligibility(Role.NONE, need.reason, need.fix)
    return Eligibility(rule.role)


_FLOAT = "Export it in float32 or float16."


# Operators of which all inputs are numbers to compute with; of others, the first.
_ALL_INPUTS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", *BINARY}


def _all_float(graph: Graph, step: Step) -> bool:
    inputs = step.inputs if step.op in _ALL_INPUTS else step.inputs[:1]
    return all(graph.values[i].is_float for i in (*inputs, *step.outputs) if i >= 0)


_PREPARE = "kt.mobile.prepare(model)"

_GROUPS = Need(predicates.ungrouped, "it is grouped", "Use separable convolutions.")
_DILATION = Need(predicates.undilated, "it is dilated")

RULES: tuple[Rule, ...] = (
    Rule("dense layer on an image", predicates.named("FULLY_CONNECTED"), Role.INSIDE),
    Rule(
        "1x1 convolution",
        lambda graph, step: (
            step.op == "CONV_2D" and predicates.is_pointwise(graph, step)
        ),
        Role.INSIDE,
        (
            _GROUPS,
            Need(
                lambda graph, step: (
                    step.padding == (0, 0, 0, 0)
                    and predicates.strides(graph, step) == (1, 1)
                ),
                "it is a 1x1 convolution with strides or padding",
                f"{_PREPARE} strides in a depthwise convolution in front of it.",
            ),
        ),
    ),
    Rule(
        "first convolution",
        predicates.is_3x3,
        Role.ENTRY,
        (
            _GROUPS,
            _DILATION,
            Need(
                lambda graph, step: predicates.strides(graph, step) == (2, 2),
                "it is a 3x3 convolution without strides of 2",
                "Only the first convolution may be 3x3, with strides of 2; make the "
                "others separable.",
            ),
            Need(
                lambda graph, step: graph.values[step.inputs[1]].shape[-1] == 3,
                "it is a 3x3 convolution of other than 3 channels",
                f"{_PREPARE} gives a grey stem 3 channels; make later ones separable.",
            ),
            Need(
                lambda graph, step: step.padding == (1, 1, 1, 1),
                "its padding is not one pixel on each side",
                f"{_PREPARE} pads explicitly; exact for odd image sizes.",
            ),
        ),
    ),
    Rule(
        "other convolution",
        predicates.named("CONV_2D"),
        Role.NONE,
        (
            Need(
                predicates.never,
                "it is a convolution of another size than 1x1",
                "Make it separable: a depthwise and a 1x1 convolution.",
            ),
        ),
    ),
    Rule(
        "depthwise convolution",
        predicates.named("DEPTHWISE_CONV_2D"),
        Role.INSIDE,
        (
            _DILATION,
            Need(
                lambda graph, step: step.node.options.depthMultiplier == 1,
                "its depth multiplier is not 1",
                "Widen in the 1x1 convolution behind it.",
            ),
            Need(
                lambda graph, step: predicates.window(graph, step) in ((3, 3), (5, 5)),
                "its kernel is neither 3x3 nor 5x5",
                f"{_PREPARE} embeds kernels of one dimension.",
            ),
            Need(
                lambda graph, step: predicates.strides(graph, step) in ((1, 1), (2, 2)),
                "its strides are neither 1 nor 2",
            ),
            Need(
                predicates.padded,
                "its padding is not the same on each side",
                f"{_PREPARE} pads explicitly (odd sizes) or makes a 3x3 kernel 5x5 "
                "(even sizes); both are exact.",
            ),
        ),
    ),
    Rule(
        "product of two computed matrices",
        predicates.named("BATCH_MATMUL"),
        Role.NONE,
        (
            Need(
                predicates.never,
                "it multiplies by what is computed: there are no zeros to skip",
            ),
        ),
    ),
    Rule("depth to space", predicates.named("DEPTH_TO_SPACE"), Role.EXIT),
    Rule(
        "sum or product",
        predicates.named("ADD", "MUL"),
        Role.INSIDE,
        (
            Need(
                predicates.of_rank_4,
                "it adds or multiplies by a vector or number",
                f"{_PREPARE} folds a stand-alone BatchNormalization and a hard-sigmoid "
                "gate; move a Rescaling in front of the first convolution.",
            ),
            Need(predicates.known_vector, "it adds or multiplies by a constant"),
        ),
    ),
    Rule(
        "bilinear resizing",
        predicates.named("RESIZE_BILINEAR"),
        Role.INSIDE,
        (Need(predicates.more_than_a_pixel, "it enlarges a single row or column"),),
    ),
    Rule(
        "function of each number",
        lambda graph, step: step.op in UNARY or predicates.is_clamp(graph, step),
        Role.INSIDE,
        (Need(predicates.reads_image, "it is not applied to an image"),),
    ),
    Rule(
        "mean or sum",
        predicates.named("MEAN", "SUM"),
        Role.INSIDE | Role.EXIT,
        (Need(predicates.reads_image, "it does not pool an image"),),
    ),
    Rule(
        "other arithmetic",
        predicates.named(*BINARY),
        Role.NONE,
        (
            Need(
                predicates.never,
                "it is no sum or product; only these have a kernel for NCHW",
                "Use ReLU in place of PReLU, a sum in place of a difference.",
            ),
        ),
    ),
    Rule(
        "anything else",
        lambda graph, step: True,
        Role.NONE,
        (
            Need(
                predicates.never,
                "it has no kernel for NCHW, the layout of sparse networks",
                "Take it out of the part between the first convolution and the "
                f"pooling; {_PREPARE} turns pooling over the whole image into global "
                "average pooling.",
            ),
        ),
    ),
)
"""What an operator needs to be part of a sparse network, the first match counts."""
