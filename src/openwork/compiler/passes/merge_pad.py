"""Merge zero padding of height and width into the convolution that follows it."""

from dataclasses import replace

from ..graph import Graph, Node, rewritten

ORDER = 5


def run(graph: Graph) -> Graph:
    """conv(pad(x)) becomes conv(x) with more padding, which need not be the same on both sides."""
    made: dict[str, Node] = {}
    for node in graph:
        source = made.get(node.inputs[0]) if node.op == "conv" else None
        if source is not None and source.op == "pad":
            channels, *image = source["amounts"]
            if channels == (0, 0):
                behind = node.attrs.get("after", node["padding"])
                padding = tuple(p + before for p, (before, _) in zip(node["padding"], image, strict=True))
                after = tuple(p + more for p, (_, more) in zip(behind, image, strict=True))
                sides = {"padding": padding} if padding == after else {"padding": padding, "after": after}
                node = replace(node, inputs=(source.inputs[0], *node.inputs[1:])).with_attrs(**sides)
        made[node.name] = node
    return rewritten(graph, made.values())
