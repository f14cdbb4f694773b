"""Move a clamp that follows a max-pooling before it, so that it becomes part of the layer before both.

The larger of two values stays the larger when both are clamped, and NaN passes through either.
"""

from dataclasses import replace

from ..graph import Graph, Node, rewritten
from ..integers import has_pixels
from ..operators import has_epilogue

ORDER = 15  # after batch norm has become part of layers, before clamps do


def run(graph: Graph) -> Graph:
    """clamp(max_pool(op(x))) becomes max_pool(clamp(op(x))), where nothing else reads what is between them."""
    uses = graph.uses()
    made: dict[str, Node] = {}
    for node in graph:
        pool = made.get(node.inputs[0]) if node.op == "clamp" else None
        if pool is not None and pool.op == "max_pool" and uses[pool.name] == 1 and has_pixels(pool):
            source = made[pool.inputs[0]]
            if has_epilogue(source.op) and not source.act and uses[source.name] == 1:
                # each takes the other's name, so that readers need not change
                made[pool.name] = replace(node, name=pool.name, inputs=pool.inputs, shape=source.shape)
                node = replace(pool, name=node.name, inputs=(pool.name,))
        made[node.name] = node
    return rewritten(graph, made.values())
