"""The rewrites, in the order in which they are tried.

To teach `prepare` another one, write it as a function of a `Match` in `rewrites/`, and
add its row. It returns the values whose numbers must be as before (None if it does not
apply), or raises `LeftAlone` before it changes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from keras_tickets.mobile.preparing.match import Match
from keras_tickets.mobile.preparing.network_graph import Value
from keras_tickets.mobile.preparing.rewrites import (
    conv1d,
    gates,
    input_channels,
    kernel_padding,
    pointwise,
    pooling,
    scale_shift,
    separable,
)

# What may change the outputs: nothing; what has no exact form; what has a slower one,
# too.
Inexact = Literal[False, True, "faster"]
INEXACT: tuple[Inexact, ...] = (False, True, "faster")


@dataclass(frozen=True)
class Rewrite:
    """One thing that `prepare` does.

    Args:
        name: What the table of a plan calls it.
        what: What it does, in one line.
        apply: Does it.
        inexact: What has to be allowed for it.
    """

    name: str
    what: str
    apply: Callable[[Match], list[Value] | None]
    inexact: Inexact = False

    @property
    def exact(self) -> bool:
        """Whether the outputs stay, up to rounding."""
        return self.inexact is False

    def allowed(self, inexact: Inexact) -> bool:
        """Return whether it may be done where this much may change."""
        return INEXACT.index(self.inexact) <= INEXACT.index(inexact)


REWRITES = (
    Rewrite(
        "image_of_series",
        "layers of one dimension behind a stem that can be the way in -> layers of two "
        "on an image of one row",
        conv1d.to_2d,
    ),
    Rewrite(
        "split_separable",
        "SeparableConv2D -> depthwise convolution, 1x1 convolution",
        separable.split,
    ),
    Rewrite(
        "global_mean",
        "AveragePooling2D over the whole image -> GlobalAveragePooling2D",
        pooling.mean,
    ),
    Rewrite(
        "pixel_squeeze",
        "squeeze-and-excite by Dense and Reshape, as 1x1 convolutions of one pixel",
        pooling.squeeze,
    ),
    Rewrite(
        "dense_head",
        "GlobalAveragePooling2D(keepdims) -> 1x1 convolutions, as Dense layers",
        pooling.head,
    ),
    Rewrite(
        "relu6_gate",
        "hard sigmoid -> ReLU6, with 3 in the bias before and 1/6 in the kernel behind",
        gates.open_gate,
    ),
    Rewrite(
        "folded_scale",
        "BatchNormalization without a convolution in front, and numbers that an image "
        "is multiplied by, folded into what reads them or a depthwise 3x3",
        scale_shift.fold,
    ),
    Rewrite(
        "split_stride",
        "1x1 convolution of stride 2 -> depthwise 3x3 of stride 2 with one tap, 1x1",
        pointwise.split,
    ),
    Rewrite(
        "sampled_pixels",
        "pooling of single pixels, stride 2 -> depthwise 3x3 of stride 2 with one tap",
        pointwise.sample,
    ),
    Rewrite(
        "colour_stem",
        "stem of 1 or 2 channels -> 3 channels, the others with zero weights",
        input_channels.widen,
    ),
    Rewrite(
        "own_size",
        "ZeroPadding2D alike at both sides, where a larger kernel would be exact",
        kernel_padding.own_size,
        inexact="faster",
    ),
    Rewrite(
        "centred_padding",
        "ZeroPadding2D alike at both sides, the kernel moved in a larger one",
        kernel_padding.exact,
    ),
    Rewrite(
        "shifted_padding",
        "the same where it reads other pixels: at most half a kernel away",
        kernel_padding.shifted,
        inexact=True,
    ),
)
