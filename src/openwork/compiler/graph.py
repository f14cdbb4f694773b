"""The compiler's graph: immutable nodes in topological order, printable, verified after every pass.

A value is named after the node that makes it. The operators, with the attributes and constants of their nodes, are
described in `ops/`, one file a family.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from ..errors import CompileError

Array = NDArray[Any]
Shape = tuple[int, ...]


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

    @property
    def act(self) -> tuple[Any, ...]:
        """The fused activation: its name and parameters, or nothing. A node has a clamp or an activation, not both."""
        return tuple(self.attrs.get("act", ()))

    @property
    def plain(self) -> bool:
        """Whether neither clamp nor activation is fused into this node."""
        return not (self.clamps or self.act)

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
    from .operators import shape_rule  # whose rules are about this module's nodes

    if node.name in known:
        return "named twice"
    if any(name not in known for name in node.inputs):
        return "reads a value before it is made"
    if any(key not in graph.constants for key in node.constants.values()):
        return "names a constant that is not there"
    rule = shape_rule(node.op)
    if rule is None:
        return f"unknown operator {node.op!r}"
    implied = rule(node, [known[name].shape for name in node.inputs], graph)
    return "" if implied is None or implied == node.shape else f"shape {node.shape}, but its inputs imply {implied}"


def _short(value: Any) -> str:
    text = str(value).replace(" ", "")
    return text if len(text) <= 60 else text[:57] + "..."
