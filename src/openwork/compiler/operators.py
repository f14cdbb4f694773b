"""The rules that a file of `ops/` is made of, their look-up, and what capture rules may ask.

A file offers one family of operators, in three kinds of rules:

- `@captures("aten.conv2d.default")`: from a PyTorch operator, by its full name, to the node to add or to the name of a
  value that already is the result. Where every rule raises `Unsupported`, PyTorch runs the operator.
- `@implies("conv")`: the shape that a node's inputs imply, which `verify` compares with the one it has; None: any.
- `@lowers("conv")`: where a node's value lies, and the steps that make it. `epilogue=True`: they also do what is fused
  into the node, a clamp (attributes `lo`, `hi`) or an activation (`act`, see `ops/pointwise.py`).
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor, fx

from .. import plugins
from .graph import Array, Graph, Node, Shape
from .lowering import Lowering

R = TypeVar("R")
CaptureRule = Callable[[Any, fx.Node], Node | str]
ShapeRule = Callable[[Node, list[Shape], Graph], Shape | None]
LoweringRule = Callable[[Lowering, Node], None]

_captures: dict[str, list[CaptureRule]] = {}
_shapes: dict[str, ShapeRule] = {}
_lowerings: dict[str, LoweringRule] = {}
_epilogues: set[str] = set()
_any_type: set[CaptureRule] = set()


def captures(*targets: str, pattern: bool = False, any_type: bool = False) -> Callable[[CaptureRule], CaptureRule]:
    """Register a capture rule for PyTorch operators such as 'aten.conv2d.default'.

    An operator may have several rules. Those of a `pattern`, which knows what several operators mean together, are
    tried before those of the operator alone. One for `any_type` is tried for whole numbers and truth values, too.
    """

    def register(rule: CaptureRule) -> CaptureRule:
        _any_type.update([rule] if any_type else [])
        for target in targets:
            rules = _captures.setdefault(target, [])
            rules.insert(0 if pattern else len(rules), rule)
        return rule

    return register


def implies(*ops: str) -> Callable[[ShapeRule], ShapeRule]:
    """Register a shape rule for operators of ours: (node, shapes of its inputs, graph) -> shape."""
    return lambda rule: _register(_shapes, ops, rule)


def lowers(*ops: str, epilogue: bool = False) -> Callable[[LoweringRule], LoweringRule]:
    """Register a lowering for operators of ours; `epilogue`: its steps apply the node's `lo`, `hi` and `act`."""
    _epilogues.update(ops if epilogue else ())
    return lambda rule: _register(_lowerings, ops, rule)


def _register(rules: dict[str, R], names: Sequence[str], rule: R) -> R:
    for name in names:
        assert name not in rules, f"two rules for {name}"
        rules[name] = rule
    return rule


@cache
def _load() -> None:
    """Import every file of `ops/`, once."""
    for name in plugins.names("compiler.ops"):
        plugins.module("compiler.ops", name)


def capture_rules(target: str) -> Sequence[CaptureRule]:
    """The rules for a PyTorch operator, in the order in which to try them; none if it has no native form."""
    _load()
    return _captures.get(target, ())


def takes_any_type(rule: CaptureRule) -> bool:
    """Whether a rule is tried for results that are no floats."""
    return rule in _any_type


def shape_rule(op: str) -> ShapeRule | None:
    """The shape rule of an operator of ours."""
    _load()
    return _shapes.get(op)


def lowering_rule(op: str) -> LoweringRule:
    """The lowering of an operator of ours."""
    _load()
    return _lowerings[op]


def has_epilogue(op: str) -> bool:
    """Whether a clamp or an activation of the operator's result may become part of its node."""
    _load()
    return op in _epilogues


# ---- for capture rules ----


class Unsupported(Exception):
    """This use of the operator has no native form."""


Inputs = Sequence[fx.Node | str]
"""Exported values, or names of ours."""


class Converter(Protocol):
    """What a rule may ask of the capture."""

    nodes: list[Node]
    """The nodes so far."""

    def name(self, node: fx.Node) -> str: ...
    def is_constant(self, node: Any) -> bool: ...
    def value(self, node: fx.Node) -> Tensor: ...
    def tensor(self, node: fx.Node) -> Array: ...
    def keep(self, key: str, value: Array) -> str: ...
    def make(
        self, node: fx.Node, op: str, inputs: Inputs, attrs: dict[str, Any] | None = None, **constants: Array
    ) -> Node: ...
    def part(
        self,
        node: fx.Node,
        name: str,
        op: str,
        inputs: Inputs,
        shape: Shape,
        attrs: dict[str, Any] | None = None,
        **constants: Array,
    ) -> str: ...


def arguments(node: fx.Node, *defaults: Any) -> list[Any]:
    """The first arguments, as many as there are defaults; keyword arguments are matched by the operator's schema."""
    names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return [given.get(name, default) for name, default in zip(names, defaults, strict=False)]


def require(fine: bool) -> None:
    """Leave the operator to PyTorch unless `fine`."""
    if not fine:
        raise Unsupported


def computed(c: Converter, *nodes: Any) -> None:
    """All of these are tensors that the model computes."""
    require(all(isinstance(n, fx.Node) and not c.is_constant(n) for n in nodes))


def shape_of(node: Any) -> Shape:
    """Shape of a tensor argument."""
    return tuple(node.meta["val"].shape)


def rank(node: Any) -> int:
    """Dimensions of a tensor argument."""
    return len(node.meta["val"].shape) if isinstance(node, fx.Node) else 0


def channels(node: Any) -> int:
    """Channels of an image, else the length of the last axis."""
    shape = shape_of(node)
    return shape[1] if len(shape) == 4 else shape[-1]


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """An int or a list of one or two as a pair."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def layer_constants(c: Converter, weight: Any, bias: Any) -> dict[str, Array]:
    """Weight and bias of a layer as a node's constants; a missing bias is zeros."""
    require(c.is_constant(weight) and (bias is None or c.is_constant(bias)))
    w = c.tensor(weight)
    return {"weight": w, "bias": np.zeros(len(w), np.float32) if bias is None else c.tensor(bias)}


# ---- for shape rules ----


def window_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool = False) -> int:
    """Outputs of a sliding window along one axis (PyTorch's rule, also for ceil mode)."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-span // stride) if ceil else span // stride) + 1
    if ceil and (count - 1) * stride >= size + padding:  # the last window may not start in the padding
        count -= 1
    return count
