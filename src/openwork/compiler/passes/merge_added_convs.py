"""Merge two 1x1 convolutions whose results are added: the shortcut of a residual block needs no planes of its own."""

from dataclasses import replace

import numpy as np

from ..graph import Graph, Node, rewritten
from ..integers import is_integer

ORDER = 35  # after additions are part of a convolution


def run(graph: Graph) -> Graph:
    """conv(x, conv(y)) becomes conv_sum(x, y) with the weights beside each other and the outer clamp or activation."""
    uses, constants = graph.uses(), dict(graph.constants)
    made: dict[str, Node] = {}
    for node in graph:
        if _mergeable(graph, node, 2):
            inner = made[node.inputs[1]]
            if _mergeable(graph, inner, 1) and inner.plain and uses[inner.name] == 1:
                keys = {role: f"{node.name}.{role}.sum" for role in ("weight", "bias")}
                weights, biases = ([graph.constant(n, role) for n in (node, inner)] for role in keys)
                constants[keys["weight"]] = np.concatenate(weights, axis=1)
                constants[keys["bias"]] = biases[0] + biases[1]
                epilogue = {k: v for k, v in node.attrs.items() if k in ("lo", "hi", "act")}
                attrs = {"strides": (node["stride"], inner["stride"]), "groups": 1, **epilogue}
                slope = {role: key for role, key in node.constants.items() if role == "slope"}
                inputs = (node.inputs[0], inner.inputs[0])
                node = replace(node, op="conv_sum", inputs=inputs, attrs=attrs, constants={**keys, **slope})
        made[node.name] = node
    return rewritten(graph, made.values(), constants)


def _mergeable(graph: Graph, node: Node, inputs: int) -> bool:
    """A convolution of 1x1 kernels over all channels, of images larger than a pixel."""
    return (
        node.op == "conv"
        and len(node.inputs) == inputs
        and graph.constant(node, "weight").shape[2:] == (1, 1)
        and node["padding"] == node.attrs.get("after", (0, 0)) == (0, 0)
        and node["groups"] == 1
        and not is_integer(node)  # of what each reads
        and node.shape[2:] != (1, 1)
    )
