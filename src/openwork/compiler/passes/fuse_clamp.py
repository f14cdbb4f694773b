"""Fuse ReLU, ReLU6 and other clamps into the operator that makes their input."""

from dataclasses import replace

from ..graph import Graph, Node, rewritten
from ..operators import has_epilogue

ORDER = 20


def run(graph: Graph) -> Graph:
    """clamp(op(x)) becomes op(x) with bounds, where nothing else reads op(x)."""
    uses = graph.uses()
    made: dict[str, Node] = {}
    for node in graph:
        source = made.get(node.inputs[0]) if node.op == "clamp" else None
        if source is not None and has_epilogue(source.op) and not source.act and uses[source.name] == 1:
            # clamp(clamp(v, a, b), c, d) is one clamp: first to [a, b], then to [c, d]
            lo, hi = (min(max(bound, node.lo), node.hi) for bound in (source.lo, source.hi))
            node = replace(source, name=node.name).with_attrs(lo=lo, hi=hi)
        made[node.name] = node
    return rewritten(graph, made.values())
