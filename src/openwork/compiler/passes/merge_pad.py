"""Merge zero padding of height and width into the convolution that follows it."""

from dataclasses import replace

from ..graph import Graph, Node, rewritten

ORDER = 5


def run(graph: Graph) -> Graph:
    """conv(pad(x)) becomes conv(x) with more padding, where the padding is the same on both sides."""
    made: dict[str, Node] = {}
    for node in graph:
        source = made.get(node.inputs[0]) if node.op == "conv" else None
        if source is not None and source.op == "pad":
            channels, *image = source["amounts"]
            if channels == (0, 0) and all(before == after for before, after in image):
                padding = tuple(p + before for p, (before, _) in zip(node["padding"], image, strict=True))
                node = replace(node, inputs=(source.inputs[0], *node.inputs[1:])).with_attrs(padding=padding)
        made[node.name] = node
    return rewritten(graph, made.values())
