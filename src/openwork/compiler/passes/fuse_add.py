"""Fuse a residual addition into the convolution, or the matrix on tokens, that makes one of its operands."""

from dataclasses import replace

from ..graph import Graph, Node, rewritten
from ..ops._affine import many_tokens

ORDER = 30


def run(graph: Graph) -> Graph:
    """add(conv(x), r) becomes conv(x, r) with the addition's clamp or activation, placed where the addition stood."""
    uses = graph.uses()
    made: dict[str, Node] = {}
    for node in graph:
        if node.op == "add" and node.inputs[0] != node.inputs[1]:
            node = _fused(node, made, uses)
        made[node.name] = node
    return rewritten(graph, made.values())


def _fused(add: Node, made: dict[str, Node], uses: dict[str, int]) -> Node:
    order = list(made)
    # the operand that is made last: its partner surely exists by then
    for name in sorted(add.inputs, key=order.index, reverse=True):
        conv = made[name]
        if (
            (conv.op == "conv" or (conv.op == "linear" and many_tokens(conv.shape)))
            and len(conv.inputs) == 1
            and conv.plain
            and uses[name] == 1
        ):
            other = add.inputs[1] if name == add.inputs[0] else add.inputs[0]
            fused = replace(conv, name=add.name, inputs=(*conv.inputs, other))
            if add.act:
                slope = {role: key for role, key in add.constants.items() if role == "slope"}
                return replace(fused.with_attrs(act=add.act), constants={**conv.constants, **slope})
            return fused.with_attrs(lo=add.lo, hi=add.hi) if add.clamps else fused
    return add
