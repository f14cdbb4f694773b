"""Merge zero padding of height and width into the convolution that follows it."""

from dataclasses import replace

from ..graph import Graph, Node, rewritten

ORDER = 17  # after roundings went before padding


def run(graph: Graph) -> Graph:
    """conv(pad(x)) becomes conv(x) with more padding, which need not be the same on both sides."""
    made: dict[str, Node] = {}
    for node in graph:
        while node.op == "conv" and (source := made[node.inputs[0]]).op == "pad" and source["amounts"][0] == (0, 0):
            node = _merged(node, source)
        made[node.name] = node
    return rewritten(graph, made.values())


def _merged(conv: Node, pad: Node) -> Node:
    """The convolution of what is padded."""
    padding, after = conv["padding"], conv.attrs.get("after", conv["padding"])
    _, *image = pad["amounts"]
    padding = tuple(p + before for p, (before, _) in zip(padding, image, strict=True))
    after = tuple(p + behind for p, (_, behind) in zip(after, image, strict=True))
    attrs = {**conv.attrs, "padding": padding, "after": after}
    if padding == after:
        del attrs["after"]
    return replace(conv, inputs=(pad.inputs[0], *conv.inputs[1:]), attrs=attrs)
