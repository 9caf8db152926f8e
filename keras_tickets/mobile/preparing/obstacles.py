"""What XNNPACK does not take with channels first, between the stem and the pooling."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import keras

from keras_tickets.backend.rebuilding import (
    LeftAlone,
    is_of_keras,
)
from keras_tickets.mobile.preparing.match import (
    TRANSPARENT,
    Site,
    behind_convolutions,
    is_image,
    last_channels,
)
from keras_tickets.mobile.preparing.network_graph import (
    Graph,
    Node,
)
from keras_tickets.mobile.preparing.rewrites import kernel_padding
from keras_tickets.xnnpack.partition import UNARY

# What the converter makes of a function of single numbers. Those of other names it
# keeps, or takes apart into operators that are for other layouts, too.
_CONVERTED = {
    **{"absolute": "ABS", "exponential": "EXP", "negative": "NEG"},
    **{"sigmoid": "LOGISTIC", "silu": "LOGISTIC", "swish": "LOGISTIC"},
    **{"hardsilu": "HARD_SWISH", "hardswish": "HARD_SWISH"},
    **{"leakyrelu": "LEAKY_RELU", "hardtanh": "RELU_N1_TO_1"},
}

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
    ("ZeroPadding", "pads for what is no single kernel of 3x3 or 5x5"),
    ("Conv.*Transpose", "is transposed: channels last only"),
    ("Add$|Average$", "adds an image to itself, or what is none"),
    ("Subtract|Maximum|Minimum", "is not done with channels first"),
    ("Lambda", "is a function that can not be looked into"),
    (
        "UpSampling2D|Resizing",
        "resizes in another way than bilinearly: channels last only",
    ),
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
    return kernel_padding.is_entry(site) and _stands(site)


def _stands(site: Site) -> bool:
    """Return whether a convolution is one that XNNPACK has, padded as it is there."""
    try:
        sizes = kernel_padding.kernels(site)
        return sizes is not None and kernel_padding.stands(
            site, sizes, kernel_padding.geometry(site.node)[1]
        )
    except LeftAlone:
        return False


def _is_known(site: Site) -> bool:
    node, layer = site.node, site.node.layer
    if not all(map(is_image, node.inputs)) or not last_channels(layer):
        return False
    if _foreign_function(node):
        return False
    if node.kind in (*TRANSPARENT, "Activation"):
        return True
    rule = _RULES.get(node.kind)
    return _is_function(node.kind) if rule is None else rule(site)


def _is_function(name: str) -> bool:
    """Return whether XNNPACK has a function of single numbers for either layout."""
    plain = name.replace("_", "").lower()
    return _CONVERTED.get(plain, plain.upper()) in UNARY


def _foreign_function(node: Node) -> str:
    """Return the name of a layer's activation if XNNPACK does not have it."""
    function = getattr(node.layer, "activation", None)
    if function in (None, keras.activations.linear):
        return ""
    name = getattr(function, "__name__", type(function).__name__)
    return "" if _is_function(name) else name


def _is_pointwise(site: Site) -> bool:
    layer = site.node.layer
    shape = (layer.kernel_size, layer.strides, layer.groups)
    return shape == ((1, 1), (1, 1), 1)


def _is_of_images(site: Site) -> bool:
    return len(site.node.inputs) > 1


def _is_of_different_images(site: Site) -> bool:
    """Return whether no image is read twice; of a product, XNNPACK makes a square."""
    values = site.node.inputs
    return len({id(value) for value in values}) == len(values) > 1


def _is_folded(site: Site) -> bool:
    return site.linear_source(site.node.input) is not None


def _is_of_kernel(site: Site) -> bool:
    """Return whether zeros around an image become part of the one kernel behind."""
    reader = site.graph.next(site.node)
    return (
        reader is not None
        and reader.kind == "DepthwiseConv2D"
        and reader.layer.padding == "valid"
    )


def _is_mean(site: Site) -> bool:
    """Return whether a mean gives vectors, or pixels for 1x1 convolutions only."""
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


def _is_bilinear(site: Site) -> bool:
    layer, (rows, columns) = site.node.layer, site.node.input.shape[1:3]
    others = ("antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio")
    if layer.interpolation != "bilinear" or 1 in (rows, columns):
        return False
    return not any(getattr(layer, option, False) for option in others)


def _is_relu(site: Site) -> bool:
    layer = site.node.layer
    capped = layer.max_value is not None
    known = not capped or (layer.max_value == 6 and not layer.negative_slope)
    return known and not layer.threshold


_RULES: dict[str, Callable[[Site], bool]] = {
    "Add": _is_of_different_images,
    "Average": _is_of_different_images,
    "BatchNormalization": _is_folded,
    "Conv2D": _is_pointwise,
    "Dense": lambda site: True,
    "DepthwiseConv2D": _stands,
    "GlobalAveragePooling2D": _is_mean,
    "Multiply": _is_of_images,
    "ReLU": _is_relu,
    "Resizing": _is_bilinear,
    "UpSampling2D": _is_bilinear,
    "ZeroPadding2D": _is_of_kernel,
}
