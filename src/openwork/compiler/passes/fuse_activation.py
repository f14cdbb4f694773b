"""Fuse an activation into the operator that makes its input."""

from dataclasses import replace

from ..graph import Graph, Node, rewritten
from ..operators import has_epilogue

ORDER = 22


def run(graph: Graph) -> Graph:
    """pointwise(op(x)) becomes op(x) with the activation, where nothing else reads op(x)."""
    uses = graph.uses()
    made: dict[str, Node] = {}
    for node in graph:
        source = made.get(node.inputs[0]) if node.op == "pointwise" else None
        if source is not None and uses[source.name] == 1 and _takes(source, node):
            fused = replace(source, name=node.name, constants={**source.constants, **node.constants})
            node = fused.with_attrs(act=node.act)
        made[node.name] = node
    return rewritten(graph, made.values())


def _takes(source: Node, node: Node) -> bool:
    # one slope a channel is for planes of pixels, one a channel
    slopes = source.op != "conv_transpose" and source.shape[2:] != (1, 1)
    return has_epilogue(source.op) and source.plain and (slopes or not node.constants)
