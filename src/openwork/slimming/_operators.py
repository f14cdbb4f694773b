"""Operators that keep channels apart, by what they do with a channel that holds one value everywhere."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU,
    nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus,
    nn.Softsign, nn.LogSigmoid,
)  # fmt: skip
"""Modules that treat every element by itself."""

POOLING: tuple[type[nn.Module], ...] = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.ReflectionPad2d, nn.ReplicationPad2d,
)  # fmt: skip
"""Modules that look around within a channel: from one value everywhere they make the same value everywhere, but for
averages over a border of zeros."""

ELEMENTWISE_NAMES = frozenset({
    "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "hardsigmoid",
    "hardtanh", "sigmoid", "tanh", "softplus", "softsign", "logsigmoid", "dropout", "dropout1d", "dropout2d",
    "clamp", "clip", "abs", "neg", "exp", "square", "sqrt", "contiguous", "clone", "detach",
})  # fmt: skip
"""Functions and methods of the first kind."""

POOLING_NAMES = frozenset({
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "interpolate",
})  # fmt: skip
"""Functions of the second kind."""

BINARY_NAMES = frozenset({"add", "sub", "mul", "div", "maximum", "minimum"})
"""Elementwise functions and methods of two values."""

_ALIASES = {
    "iadd": "add", "isub": "sub", "imul": "mul", "truediv": "div", "itruediv": "div", "multiply": "mul",
    "subtract": "sub", "divide": "div", "concat": "cat", "concatenate": "cat", "view": "reshape",
}  # fmt: skip
_HOMES = (torch, functional, operator)


def name_of(node: fx.Node) -> str:
    """What a function of torch or a method is called, in-place forms like the others; empty for all else."""
    target: Any = node.target
    if node.op == "call_method":
        name = str(target)
    elif node.op == "call_function":
        name = getattr(target, "__name__", "")
        if not any(getattr(home, name, None) is target for home in _HOMES):
            return ""
    else:
        return ""
    name = name if name.endswith("__") else name.removesuffix("_")
    return _ALIASES.get(name, name)


def overwrites(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether an operator writes its result where its input was."""
    if module is not None:
        return bool(getattr(module, "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    written: tuple[Callable[..., Any], ...] = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
    named = str(getattr(node.target, "__name__", ""))
    return node.target in written or node.kwargs.get("inplace") is True or (named.endswith("_") and named[-2:] != "__")
