"""Let the layer that makes a value round it: what it stores are bytes."""

from dataclasses import replace

from ..graph import Graph, Node, rewritten
from ..integers import bytes_of, is_integer
from ..ops._positions import on_rows

ORDER = 40  # after layers compute with whole numbers


def run(graph: Graph) -> Graph:
    """quantize(conv(x)) becomes conv(x) on a grid, where nothing else reads conv(x), which computes with whole
    numbers; likewise sums of two values on grids, and activations of one, which are then a table of bytes."""
    uses = graph.uses()
    made: dict[str, Node] = {}
    for node in graph:
        source = made.get(node.inputs[0]) if node.op == "quantize" else None
        if source is not None and uses[source.name] == 1 and _stores_bytes(source, made):
            grid = node["bytes"].clamped(source.lo, source.hi)
            if grid.fits:
                attrs = {k: v for k, v in source.attrs.items() if k not in ("lo", "hi")}
                node = replace(source, name=node.name, attrs={**attrs, "bytes": grid})
        elif source is not None and uses[source.name] == 1 and _looks_up(source, made) and not node.act:
            node = replace(node.with_attrs(act=source.act), inputs=source.inputs)
        made[node.name] = node
    return rewritten(graph, made.values())


def _looks_up(node: Node, made: dict[str, Node]) -> bool:
    """Whether an activation takes no more than 256 values."""
    alone = node.op == "pointwise" and not node.constants and not on_rows(node)
    return alone and bytes_of(made, node.inputs[0]) is not None


def _stores_bytes(node: Node, made: dict[str, Node]) -> bool:
    """Whether the kernels of an operator can round its result; those of few samples give floats, and those of depthwise
    convolutions round nothing behind an activation."""
    whole = is_integer(node) and (not node.act or node.attrs.get("groups", 1) == 1)
    if node.op == "add":
        whole = not node.act and all(bytes_of(made, name) is not None for name in node.inputs)
    return whole and not on_rows(node) and "bytes" not in node.attrs
