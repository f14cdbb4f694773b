"""One rule for each ATen operator that has a native form.

A rule returns the node to add, the name of a value that already is the result, or raises `Unsupported`: then PyTorch
runs the operator. Rules are looked up by the operator's full name, so one operator's overloads stay apart.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from torch import fx

from .graph import Array, Node

_END = 2**63 - 1


class Unsupported(Exception):
    """This use of the operator has no native form."""


class Converter(Protocol):
    """What a rule may ask of the capture."""

    def name(self, node: fx.Node) -> str: ...
    def is_constant(self, node: Any) -> bool: ...
    def tensor(self, node: fx.Node) -> Array: ...
    def make(
        self, node: fx.Node, op: str, inputs: list[fx.Node], attrs: dict[str, Any] | None = None, **constants: Array
    ) -> Node: ...


Rule = Callable[[Any, fx.Node], Node | str]
RULES: dict[str, Rule] = {}


def rule(*targets: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators such as 'aten.conv2d.default'."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        return function

    return register


def arguments(node: fx.Node, *defaults: Any) -> list[Any]:
    """Positional arguments with defaults filled in; keyword arguments are matched by the operator's schema."""
    names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return [given.get(name, default) for name, default in zip(names, defaults, strict=False)]


def require(fine: bool) -> None:
    """Leave the operator to PyTorch unless `fine`."""
    if not fine:
        raise Unsupported


def rank(node: Any) -> int:
    """Dimensions of a tensor argument."""
    return len(node.meta["val"].shape) if isinstance(node, fx.Node) else 0


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """An int or a list of one or two as a pair."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def computed(c: Converter, *nodes: Any) -> None:
    """All of these are tensors that the model computes."""
    require(all(isinstance(n, fx.Node) and not c.is_constant(n) for n in nodes))


@rule("aten.conv2d.default", "aten.conv2d.padding")
def conv2d(c: Converter, node: fx.Node) -> Node:
    x, weight, bias, stride, padding, dilation, groups = arguments(node, None, None, None, 1, 0, 1, 1)
    computed(c, x)
    require(rank(x) == 4 and c.is_constant(weight) and (bias is None or c.is_constant(bias)))
    w = c.tensor(weight)
    b = np.zeros(len(w), np.float32) if bias is None else c.tensor(bias)
    if isinstance(padding, str):
        spans = [d * (k - 1) for d, k in zip(pair(dilation), w.shape[2:], strict=True)]
        require(padding == "valid" or all(s % 2 == 0 for s in spans))
        padding = [s // 2 if padding == "same" else 0 for s in spans]
    attrs = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation), "groups": int(groups)}
    return c.make(node, "conv", [x], attrs, weight=w, bias=b)


@rule("aten.linear.default")
def linear(c: Converter, node: fx.Node) -> Node:
    x, weight, bias = arguments(node, None, None, None)
    computed(c, x)
    require(rank(x) in (2, 3) and c.is_constant(weight) and (bias is None or c.is_constant(bias)))
    w = c.tensor(weight)
    return c.make(node, "linear", [x], weight=w, bias=np.zeros(len(w), np.float32) if bias is None else c.tensor(bias))


@rule("aten._native_batch_norm_legit_no_training.default")
def batch_norm(c: Converter, node: fx.Node) -> Node:
    x, gamma, beta, mean, var, _, eps = arguments(node, None, None, None, None, None, 0.1, 1e-5)
    computed(c, x)
    require(rank(x) in (2, 4) and c.is_constant(mean) and c.is_constant(var))
    inverse = 1 / np.sqrt(c.tensor(var).astype(np.float64) + eps)
    weight = inverse * (1 if gamma is None else c.tensor(gamma).astype(np.float64))
    bias = (0 if beta is None else c.tensor(beta).astype(np.float64)) - c.tensor(mean) * weight
    made = c.make(_first_output(node), "scale", [x], weight=weight.astype(np.float32), bias=bias.astype(np.float32))
    return made


def _first_output(node: fx.Node) -> fx.Node:
    """The only output of a tuple-valued operator that anyone reads; others need PyTorch."""
    users = list(node.users)
    require(all(u.target.__name__ == "getitem" and u.args[1] == 0 for u in users) and len(users) == 1)  # type: ignore[union-attr]
    return users[0]


@rule("<built-in function getitem>")
def getitem(c: Converter, node: fx.Node) -> str:
    source = node.args[0]
    require(isinstance(source, fx.Node) and str(source.target).startswith("aten._native_batch_norm_legit_no_training"))
    require(any(made.name == node.name for made in c.nodes))  # type: ignore[attr-defined]
    return node.name


@rule("aten.relu.default")
def relu(c: Converter, node: fx.Node) -> Node:
    computed(c, node.args[0])
    require(rank(node.args[0]) >= 1)
    return c.make(node, "clamp", [node.args[0]], {"lo": 0.0})  # type: ignore[list-item]


@rule("aten.relu6.default", "aten.hardtanh.default", "aten.clamp.default")
def clamp(c: Converter, node: fx.Node) -> Node:
    if str(node.target) == "aten.relu6.default":
        (x,), lo, hi = arguments(node, None), 0.0, 6.0
    else:
        default = (-1.0, 1.0) if str(node.target) == "aten.hardtanh.default" else (None, None)
        x, lo, hi = arguments(node, None, *default)
    computed(c, x)
    bounds = {"lo": -math.inf if lo is None else float(lo), "hi": math.inf if hi is None else float(hi)}
    require(rank(x) >= 1 and bounds["lo"] <= bounds["hi"] and bounds["lo"] < math.inf and bounds["hi"] > -math.inf)
    return c.make(node, "clamp", [x], bounds)


@rule("aten.add.Tensor")
def add(c: Converter, node: fx.Node) -> Node:
    a, b, alpha = arguments(node, None, None, 1)
    computed(c, a, b)
    require(alpha == 1 and rank(a) == 4 and a.meta["val"].shape == b.meta["val"].shape)
    return c.make(node, "add", [a, b])


def _pool_attrs(kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> dict[str, Any]:
    kernel = pair(kernel)
    return {
        "kernel": kernel,
        "stride": pair(stride) if stride else kernel,
        "padding": pair(padding),
        "dilation": pair(dilation),
        "ceil": bool(ceil),
    }


@rule("aten.max_pool2d.default")
def max_pool(c: Converter, node: fx.Node) -> Node:
    x, kernel, stride, padding, dilation, ceil = arguments(node, None, None, [], 0, 1, False)
    computed(c, x)
    require(rank(x) == 4)
    return c.make(node, "max_pool", [x], _pool_attrs(kernel, stride, padding, dilation, ceil))


@rule("aten.avg_pool2d.default")
def avg_pool(c: Converter, node: fx.Node) -> Node:
    x, kernel, stride, padding, ceil, count, divisor = arguments(node, None, None, [], 0, False, True, None)
    computed(c, x)
    require(rank(x) == 4)
    attrs = _pool_attrs(kernel, stride, padding, 1, ceil) | {"count_padding": bool(count), "divisor": divisor}
    if tuple(x.meta["val"].shape[2:]) == attrs["kernel"] and attrs["padding"] == (0, 0) and divisor is None:
        return c.make(node, "mean", [x])
    return c.make(node, "avg_pool", [x], attrs)


@rule("aten.adaptive_avg_pool2d.default")
def adaptive_avg_pool(c: Converter, node: fx.Node) -> Node | str:
    x, size = arguments(node, None, None)
    computed(c, x)
    require(rank(x) == 4)
    image, size = tuple(x.meta["val"].shape[2:]), pair(size)
    if size == (1, 1):
        return c.make(node, "mean", [x])
    if size == image:
        return c.name(x)
    require(all(i % o == 0 for i, o in zip(image, size, strict=True)))
    kernel = tuple(i // o for i, o in zip(image, size, strict=True))
    return c.make(
        node, "avg_pool", [x], _pool_attrs(kernel, kernel, 0, 1, False) | {"count_padding": True, "divisor": None}
    )


@rule("aten.mean.dim")
def mean(c: Converter, node: fx.Node) -> Node:
    x, dims, keep, dtype = arguments(node, None, None, False, None)
    computed(c, x)
    require(rank(x) == 4 and dims is not None and sorted(d % 4 for d in dims) == [2, 3] and dtype is None)
    if keep:
        return c.make(node, "mean", [x])
    pooled = Node(f"{node.name}.mean", "mean", (c.name(x),), (*node.meta["val"].shape, 1, 1))
    c.nodes.append(pooled)  # type: ignore[attr-defined]
    return Node(node.name, "flatten", (pooled.name,), tuple(node.meta["val"].shape))


@rule("aten.cat.default")
def concat(c: Converter, node: fx.Node) -> Node:
    tensors, dim = arguments(node, None, 0)
    computed(c, *tensors)
    require(all(rank(t) == 4 for t in tensors) and dim % 4 == 1)
    return c.make(node, "concat", list(tensors))


@rule("aten.slice.Tensor")
def slice_(c: Converter, node: fx.Node) -> Node | str:
    x, dim, start, stop, step = arguments(node, None, 0, None, None, 1)
    computed(c, x)
    shape = tuple(x.meta["val"].shape)
    dim %= len(shape)
    start, stop, step = slice(start, None if stop == _END else stop, step).indices(shape[dim])
    if (start, stop, step) == (0, shape[dim], 1):
        return c.name(x)
    require(len(shape) == 4 and dim >= 1 and stop > start and (dim != 1 or step == 1))
    bounds = [[0, 0, 0], list(shape[1:]), [1, 1, 1]]
    for values, value in zip(bounds, (start, stop, step), strict=True):
        values[dim - 1] = value
    return c.make(node, "slice", [x], dict(zip(("start", "stop", "step"), map(tuple, bounds), strict=True)))


@rule("aten.pad.default", "aten.constant_pad_nd.default")
def pad(c: Converter, node: fx.Node) -> Node | str:
    x, amounts, mode, value = (
        arguments(node, None, None, "constant", None)
        if "pad.default" in str(node.target)
        else [*arguments(node, None, None), "constant", arguments(node, None, None, 0)[2]]
    )
    computed(c, x)
    require(rank(x) == 4 and mode == "constant" and not value and len(amounts) <= 6 and min(amounts) >= 0)
    if not any(amounts):
        return c.name(x)
    amounts = [*amounts, *[0] * (6 - len(amounts))]
    return c.make(node, "pad", [x], {"amounts": tuple((amounts[i], amounts[i + 1]) for i in (4, 2, 0))})


@rule(
    "aten.flatten.using_ints",
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.squeeze.dims",
)
def flatten(c: Converter, node: fx.Node) -> Node | str:
    x = node.args[0]
    computed(c, x)
    before, after = tuple(x.meta["val"].shape), tuple(node.meta["val"].shape)  # type: ignore[union-attr]
    if before == after:
        return c.name(x)  # type: ignore[arg-type]
    require(len(after) == 2 and len(before) == 4 and after == (before[0], math.prod(before[1:])))
    return c.make(node, "flatten", [x])  # type: ignore[list-item]


@rule(
    "aten.clone.default",
    "aten.alias.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.lift_fresh_copy.default",
)
def identity(c: Converter, node: fx.Node) -> str:
    computed(c, node.args[0])
    return c.name(node.args[0])  # type: ignore[arg-type]


@rule("aten.dropout.default")
def dropout(c: Converter, node: fx.Node) -> str:
    x, _, train = arguments(node, None, 0.5, False)
    computed(c, x)
    require(not train)
    return c.name(x)
