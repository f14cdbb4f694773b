"""The compiler's graph: immutable nodes in topological order, printable, verified after every pass.

A value is named after the node that makes it. Operators:

| op | inputs | attributes (besides `lo`, `hi` of the fused clamp) | constants |
| --- | --- | --- | --- |
| conv | x[, residual] | stride, padding, dilation (pairs), groups | weight, bias |
| linear | x | | weight, bias |
| scale | x | | weight, bias: one per channel (batch norm) |
| add | a, b | | |
| clamp | x | | |
| max_pool, avg_pool | x | kernel, stride, padding, dilation, ceil, count_padding, divisor | |
| mean | x | over height and width, kept as 1x1 | |
| concat | x, ... | along channels | |
| slice | x | start, stop, step along channels, height, width | |
| pad | x | amounts: (before, after) of channels, height, width; zeros | |
| flatten | x | all but the batch | |
| torch | any | target, args: what runs in PyTorch | any |
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from ..errors import CompileError

Array = NDArray[Any]
Shape = tuple[int, ...]

FUSES_CLAMP = ("conv", "linear", "scale", "add", "clamp")


@dataclass(frozen=True)
class Node:
    """One operator and the value it makes."""

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: Shape
    attrs: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    """Module path in the user's model, for messages and reports."""

    def __getitem__(self, attr: str) -> Any:
        return self.attrs[attr]

    @property
    def lo(self) -> float:
        """Lower bound of the fused clamp."""
        return float(self.attrs.get("lo", -math.inf))

    @property
    def hi(self) -> float:
        """Upper bound of the fused clamp."""
        return float(self.attrs.get("hi", math.inf))

    @property
    def clamps(self) -> bool:
        """Whether a clamp is fused into this node."""
        return self.lo != -math.inf or self.hi != math.inf

    def with_attrs(self, **attrs: Any) -> "Node":
        """A copy with some attributes replaced."""
        return replace(self, attrs={**self.attrs, **attrs})

    def __str__(self) -> str:
        attrs = "".join(f" {k}={_short(v)}" for k, v in sorted(self.attrs.items()))
        constants = "".join(f" {k}=%{v}" for k, v in sorted(self.constants.items()))
        shape = "x".join(map(str, self.shape))
        return f"{self.name}: {shape} = {self.op}({', '.join(self.inputs)}){attrs}{constants}"


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order, the values that go in and out, and the constants that the nodes name."""

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The model's inputs in order."""
        return tuple(n for n in self.nodes if n.op == "input")

    def users(self) -> dict[str, list[Node]]:
        """Which nodes read each value; a graph output counts as a use by `None`'s place: see `uses`."""
        found: dict[str, list[Node]] = {n.name: [] for n in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                found[name].append(node)
        return found

    def uses(self) -> dict[str, int]:
        """How often each value is read, graph outputs included."""
        count = {name: len(nodes) for name, nodes in self.users().items()}
        for name in self.outputs:
            count[name] += 1
        return count

    def constant(self, node: Node, role: str) -> Array:
        """The array of `node`'s constant `role`."""
        return self.constants[node.constants[role]]

    def __str__(self) -> str:
        return "\n".join([*map(str, self.nodes), f"return {', '.join(self.outputs)}"])


def rewritten(graph: Graph, nodes: Iterable[Node], constants: Mapping[str, Array] | None = None) -> Graph:
    """The graph with other nodes, without what no output needs any more."""
    nodes = tuple(nodes)
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(nodes):
        if node.name in needed or node.op == "input":
            kept.append(node)
            needed.update(node.inputs)
    kept.reverse()
    used = {key for node in kept for key in node.constants.values()}
    pool = {**graph.constants, **(constants or {})}
    return Graph(tuple(kept), graph.outputs, {k: v for k, v in pool.items() if k in used})


def verify(graph: Graph, after: str) -> Graph:
    """Check what every pass must keep: order, names, constants, and the shapes that the operators imply."""
    known: dict[str, Node] = {}
    for node in graph:
        problem = _problem(node, known, graph)
        if problem:
            raise CompileError(f"internal error after {after}: {node.name}: {problem}\n{graph}")
        known[node.name] = node
    missing = [name for name in graph.outputs if name not in known]
    if missing:
        raise CompileError(f"internal error after {after}: outputs {missing} are not made by any node")
    return graph


def _problem(node: Node, known: Mapping[str, Node], graph: Graph) -> str:
    if node.name in known:
        return "named twice"
    if any(name not in known for name in node.inputs):
        return "reads a value before it is made"
    if any(key not in graph.constants for key in node.constants.values()):
        return "names a constant that is not there"
    rule = _SHAPES.get(node.op)
    if rule is None:
        return f"unknown operator {node.op!r}"
    implied = rule(node, [known[name].shape for name in node.inputs], graph)
    return "" if implied is None or implied == node.shape else f"shape {node.shape}, but its inputs imply {implied}"


def window_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool = False) -> int:
    """Outputs of a sliding window along one axis (PyTorch's rule, also for ceil mode)."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-span // stride) if ceil else span // stride) + 1
    if ceil and (count - 1) * stride >= size + padding:  # the last window may not start in the padding
        count -= 1
    return count


def _conv(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    weight = graph.constant(node, "weight").shape
    n, _, *size = shapes[0]
    axes = zip(size, weight[2:], node["stride"], node["padding"], node["dilation"], strict=True)
    return (n, weight[0], *(window_size(*axis) for axis in axes))


def _pool(node: Node, shapes: list[Shape], _: Graph) -> Shape:
    n, c, *size = shapes[0]
    axes = zip(size, node["kernel"], node["stride"], node["padding"], node["dilation"], strict=True)
    return (n, c, *(window_size(*axis, ceil=node["ceil"]) for axis in axes))


def _slice(node: Node, shapes: list[Shape], _: Graph) -> Shape:
    n, *size = shapes[0]
    return (n, *(len(range(*part)) for part in zip(node["start"], node["stop"], node["step"], strict=True) if size))


_Rule = Callable[[Node, list[Shape], Graph], Shape | None]
_SHAPES: dict[str, _Rule] = {
    "input": lambda n, s, g: None,
    "torch": lambda n, s, g: None,
    "conv": _conv,
    "linear": lambda n, s, g: (*s[0][:-1], g.constant(n, "weight").shape[0]),
    "scale": lambda n, s, g: s[0],
    "add": lambda n, s, g: s[0] if s[0] == s[1] else (),
    "clamp": lambda n, s, g: s[0],
    "max_pool": _pool,
    "avg_pool": _pool,
    "mean": lambda n, s, g: (*s[0][:2], 1, 1),
    "concat": lambda n, s, g: (s[0][0], sum(x[1] for x in s), *s[0][2:]),
    "slice": _slice,
    "pad": lambda n, s, g: (s[0][0], *(d + a + b for d, (a, b) in zip(s[0][1:], n["amounts"], strict=True))),
    "flatten": lambda n, s, g: (s[0][0], math.prod(s[0][1:])),
}


def _short(value: Any) -> str:
    text = str(value).replace(" ", "")
    return text if len(text) <= 60 else text[:57] + "..."
