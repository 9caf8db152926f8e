"""Gradients on torch: autograd, as it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def value_and_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """See `keras_tickets.backend`."""

    def run(variables: Sequence[Any], *rest: Any) -> Any:
        # Inside another derivative the graph of this one is part of the answer.
        inside = any(variable.requires_grad for variable in variables)
        leaves = [v if inside else v.detach().requires_grad_() for v in variables]
        # The fused kernels of attention have no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            value, aux = function(leaves, *rest)
            if not value.requires_grad:
                return (value, aux), [torch.zeros_like(leaf) for leaf in leaves]
            gradients = torch.autograd.grad(
                value, leaves, create_graph=inside, allow_unused=True
            )
        zeros = (torch.zeros_like(leaf) for leaf in leaves)
        filled = [
            zero if gradient is None else gradient
            for zero, gradient in zip(zeros, gradients, strict=True)
        ]
        if not inside:
            value = value.detach()
            aux = keras.tree.map_structure(torch.Tensor.detach, aux)
        return (value, aux), filled

    return run


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """See `keras_tickets.backend`."""

    def run(*arguments: Any) -> Any:
        with torch.no_grad():
            return function(*arguments)

    return run


def settled(tensor: Any) -> Any:
    """Return what NumPy can look at without a copy, where it knows the dtype."""
    tensor = tensor.detach().cpu()
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def in_eager(tensor: Any) -> Any:
    """See `keras_tickets.backend`."""
    return None if tensor.is_meta else settled(tensor)
