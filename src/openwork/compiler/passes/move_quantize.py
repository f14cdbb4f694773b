"""Round each value once, and as close to the layer that makes it as that changes nothing.

What is rounded again is not; what clamps before rounding are narrower bounds of the rounding; and values are rounded
before they are pooled or put together, so that a layer stores bytes and what follows moves bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..graph import Graph, Node, rewritten
from ..integers import Bytes, bytes_of, carries

ORDER = 16  # after clamps went before poolings, before they become part of layers

STAY = ("features", "token")
"""Operators that take a part of tokens, behind which a rounding stays: fewer values are to be rounded there."""


def run(graph: Graph) -> Graph:
    """quantize(max_pool(x)) becomes max_pool(quantize(x)), and the like, until nothing changes."""
    while (changed := _changed(graph)) is not None:
        graph = changed
    return graph


def _changed(graph: Graph) -> Graph | None:
    """The graph with one rounding in a better place, or without it; None if all are where they should be."""
    uses, known = graph.uses(), {n.name: n for n in graph}
    roundings: dict[object, str] = {}
    for node in graph:
        if node.op == "quantize":
            same = _same(node, known, roundings)
            if same is not None and node.name not in graph.outputs:
                return _without(graph, node, same)
            roundings.setdefault((node.inputs, node["bytes"]), node.name)
        made = _moved(node, known, uses) if node.inputs else None
        if made is not None:
            dropped = {node.name, node.inputs[0]}
            # as late as the node was: all that the new ones read is there by then
            nodes = [m for n in graph for m in (made if n is node else [] if n.name in dropped else [n])]
            return rewritten(graph, nodes)
    return None


def _same(node: Node, known: Mapping[str, Node], roundings: Mapping[object, str]) -> str | None:
    """Another name of the value that a rounding makes, if it has one already."""
    (source,) = node.inputs
    wanted, before = node["bytes"], bytes_of(known, source)
    if before is not None and before.scale == wanted.scale and wanted.lo <= before.lo and before.hi <= wanted.hi:
        return source
    return roundings.get((node.inputs, wanted))


def _without(graph: Graph, node: Node, name: str) -> Graph:
    """The graph whose readers of `node` read `name`."""
    others = (n for n in graph if n is not node)
    renamed = (replace(n, inputs=tuple(name if i == node.name else i for i in n.inputs)) for n in others)
    return rewritten(graph, renamed)


def _moved(node: Node, known: Mapping[str, Node], uses: Mapping[str, int]) -> Sequence[Node] | None:
    """The nodes that stand for `node` and for what it reads, which nobody else does, after a rounding has moved."""
    source = known[node.inputs[0]]
    if uses[source.name] > 1 or not source.inputs:
        return None
    if node.op == "quantize":
        if source.op == "clamp":
            return _joined(node, source.inputs, node["bytes"].clamped(source.lo, source.hi))
        moves = carries(source) and source.op not in STAY and not _pixel(source, known)
        if moves and _alone(source, known, uses, node["bytes"]):
            return _before(node, source, known)
    if source.op == "quantize" and node.op == "clamp":
        return _joined(node, source.inputs, _bounded(source["bytes"], node))
    if source.op == "quantize" and _pixel(node, known):
        inner = replace(node, name=source.name, inputs=source.inputs)
        return [inner, replace(source, name=node.name, inputs=(inner.name,), shape=node.shape)]
    return None


def _joined(node: Node, inputs: tuple[str, ...], found: Bytes | None) -> Sequence[Node] | None:
    """A clamp and a rounding as one rounding, if the bounds leave 0 between them."""
    if found is None or not found.fits:
        return None
    return [Node(node.name, "quantize", inputs, node.shape, {"bytes": found}, {}, node.source)]


def _bounded(found: Bytes, clamp: Node) -> Bytes | None:
    """The grid between the bounds of a clamp; None if a bound lies between two of its numbers."""
    bounded = found.clamped(clamp.lo, clamp.hi)
    below = clamp.lo <= found.lo * found.scale or _is_at(clamp.lo, bounded.lo * found.scale)
    above = clamp.hi >= found.hi * found.scale or _is_at(clamp.hi, bounded.hi * found.scale)
    return bounded if below and above else None


def _is_at(bound: float, number: float) -> bool:
    return abs(number - bound) <= 1e-6 * abs(bound)


def _before(node: Node, source: Node, known: Mapping[str, Node]) -> Sequence[Node]:
    """A rounding of each value that `source` reads, then `source` under the name that the rounding had."""
    names = (source.name, *(f"{source.name}.{i}" for i in range(1, len(source.inputs))))
    rounded = [
        Node(name, "quantize", (x,), known[x].shape, node.attrs, {}, node.source)
        for name, x in zip(names, source.inputs, strict=True)
    ]
    return [*rounded, replace(source, name=node.name, inputs=names)]


def _alone(source: Node, known: Mapping[str, Node], uses: Mapping[str, int], found: Bytes) -> bool:
    """Whether nobody else needs what `source` reads as it is."""
    others = [bytes_of(known, x) for x in source.inputs if uses[x] > 1]
    rounded = all(b is not None and b.scale == found.scale for b in others)
    return rounded and len(set(source.inputs)) == len(source.inputs)


def _pixel(node: Node, known: Mapping[str, Node]) -> bool:
    """Whether a node turns images of one pixel into features: a layer of these rounds what it reads itself."""
    return node.op == "flatten" and known[node.inputs[0]].shape[2:] == (1, 1)
