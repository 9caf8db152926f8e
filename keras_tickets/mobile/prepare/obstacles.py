"""What XNNPACK does not take with channels first, between the stem and the pooling."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from keras_tickets.layered import LeftAlone, is_of_keras
from keras_tickets.mobile.prepare.graph import Graph, Node
from keras_tickets.mobile.prepare.rewrites import padding
from keras_tickets.mobile.prepare.site import (
    CONVOLUTIONS,
    TRANSPARENT,
    Site,
    behind_convolutions,
    is_image,
    is_linear,
    last_channels,
)

# Functions of single numbers that XNNPACK has for either layout.
_FUNCTIONS = (
    *("linear", "relu", "relu6", "hard_swish", "hard_silu", "swish", "silu"),
    *("leaky_relu", "elu", "gelu", "sigmoid", "tanh"),
)
_OPERATORS = (
    *("Relu", "Relu6", "HardSilu", "Silu", "LeakyRelu", "Elu", "Gelu"),
    *("Sigmoid", "Tanh"),
)

REASONS = (
    (
        "MaxPooling",
        "takes the maximum of pixels, which XNNPACK does channels last only",
    ),
    (
        "GlobalAveragePooling",
        "keeps the axes that it pools (keepdims), and what reads it is no 1x1 "
        "convolution: its shape would be wrong",
    ),
    ("AveragePooling", "pools a part of the image: channels last only"),
    ("Concatenate", "joins channels: channels last only"),
    ("PReLU", "has a slope for each channel: channels last only"),
    ("Flatten|Reshape|Permute", "reads the pixels in an order: end in a global mean"),
    ("GlobalMaxPooling", "is no mean: end in GlobalAveragePooling2D"),
    ("Normalization", "normalises, and no convolution in front or behind takes it"),
    ("Softmax|Sparsemax|Glu", "computes each channel from several"),
    (
        "DepthwiseConv",
        "has a kernel, strides or a depth multiplier of its own: XNNPACK has "
        "3x3 and 5x5, strides of 1 and 2, one output for each channel",
    ),
    (
        "Conv2D$",
        "is a convolution over pixels: with channels first XNNPACK has 1x1 ones of "
        "stride 1, and depthwise ones",
    ),
    ("Conv.*Transpose", "is transposed: channels last only"),
    ("Subtract|Maximum|Minimum|Average", "is not done with channels first"),
    ("Lambda", "is a function that can not be looked into"),
    ("UpSampling2D", "repeats pixels: only bilinear doubling is done channels first"),
)


_NO_STEM = (
    "has no way in for XNNPACK, which is a 3x3 convolution of stride 2 that reads an "
    "image of three channels"
)
_DENSE = (
    "; dense layers need none: they run sparse as they are, in the blocks of "
    "kt.mobile.structure()"
)


def obstacles(graph: Graph, reasons: Mapping[str, str]) -> dict[str, str]:
    """Return by layer why XNNPACK does not take it.

    Args:
        graph: A network, rewritten as far as it can be.
        reasons: By layer, why a rewrite was not done: what the user can mend.
    """
    behind = behind_convolutions(graph)
    sites = [
        Site(scope, node, id(node) in behind, {})
        for scope in graph.scopes()
        for node in scope.nodes
        if node.inner is None
    ]
    rows = ((site.node.path, _reason(site)) for site in sites)
    found = {path: reasons.get(path, reason) for path, reason in rows if reason}
    if not found and not any(map(_is_way_in, sites)):
        found[graph.model.name] = _NO_STEM + _DENSE
    return found


def _reason(site: Site) -> str:
    node = site.node
    if not site.behind:
        stem = "Conv" in node.kind and not _is_way_in(site)
        return f"is the stem, and it {_NO_STEM}" if stem else ""
    if all(len(value.shape) < 3 for value in node.inputs) or _is_known(site):
        return ""
    if not is_of_keras(type(node.layer)):
        return f"is a class of its own, {type(node.layer).__name__}"
    if any(len(value.shape) != 4 for value in node.inputs):
        return "works on series or volumes, and XNNPACK on images"
    if name := _foreign_function(node):
        return f"applies {name}, which is not done with channels first"
    found = (why for pattern, why in REASONS if re.search(pattern, node.kind))
    return next(found, f"is a {node.kind}, which has channels last only")


def _is_way_in(site: Site) -> bool:
    layer = site.node.layer
    if not (is_image(site.node.input) and last_channels(layer)):
        return False
    return padding.is_entry(site) and _stands(site)


def _stands(site: Site) -> bool:
    """Return whether a convolution is one that XNNPACK has, padded as it is there."""
    try:
        sizes = padding.kernels(site)
        return sizes is not None and padding.stands(
            site, sizes, padding.geometry(site.node)[1]
        )
    except LeftAlone:
        return False


def _is_known(site: Site) -> bool:
    node, layer = site.node, site.node.layer
    if not all(map(is_image, node.inputs)) or not last_channels(layer):
        return False
    if _foreign_function(node):
        return False
    if node.kind in (*TRANSPARENT, *_OPERATORS, *_LAYERS):
        return True
    rule = _RULES.get(node.kind)
    return rule is not None and rule(site)


def _foreign_function(node: Node) -> str:
    """Return the name of a layer's activation if XNNPACK does not have it."""
    function = getattr(node.layer, "activation", None)
    if function is None or is_linear(node):
        return ""
    name = getattr(function, "__name__", type(function).__name__)
    return "" if name in _FUNCTIONS else name


_LAYERS = ("Activation", "LeakyReLU", "ELU")


def _is_pointwise(site: Site) -> bool:
    layer = site.node.layer
    shape = (layer.kernel_size, layer.strides, layer.groups)
    return shape == ((1, 1), (1, 1), 1)


def _is_of_images(site: Site) -> bool:
    return len(site.node.inputs) > 1


def _is_folded(site: Site) -> bool:
    return site.linear_source(site.node.input) is not None


def _is_read_by_convolutions(site: Site) -> bool:
    readers = site.graph.readers(site.node.output)
    return all(reader.kind in CONVOLUTIONS for reader in readers)


def _is_mean(site: Site) -> bool:
    """Return whether a mean gives vectors, or pixels that only 1x1 convolutions read."""
    open_values = [site.node.output] if site.node.layer.keepdims else []
    for value in open_values:
        if site.graph.is_output(value):
            return False
        for reader in site.graph.readers(value):
            if reader.kind in TRANSPARENT:
                open_values.append(reader.output)
            elif reader.kind not in ("Conv2D", "Dense"):
                return False
    return True


def _is_doubling(site: Site) -> bool:
    layer = site.node.layer
    return layer.size == (2, 2) and layer.interpolation == "bilinear"


def _is_relu(site: Site) -> bool:
    layer = site.node.layer
    return layer.max_value in (None, 6) and layer.threshold == 0


_RULES: dict[str, Callable[[Site], bool]] = {
    "Add": _is_of_images,
    "BatchNormalization": _is_folded,
    "Conv2D": _is_pointwise,
    "DepthwiseConv2D": _stands,
    "GlobalAveragePooling2D": _is_mean,
    "Multiply": _is_of_images,
    "ReLU": _is_relu,
    "UpSampling2D": _is_doubling,
    "ZeroPadding2D": _is_read_by_convolutions,
}
