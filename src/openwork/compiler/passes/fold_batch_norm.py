"""Fold a batch norm into the convolution or linear layer before it: W' = s W, b' = s b + t. Zeros stay zeros."""

import numpy as np

from ..graph import Graph, Node, rewritten

ORDER = 10
FOLDS = ("conv", "conv_transpose", "linear")


def run(graph: Graph) -> Graph:
    """Fold every `scale` whose input is a layer with a weight that nothing else reads."""
    uses = graph.uses()
    by_name = {n.name: n for n in graph}
    constants = dict(graph.constants)
    nodes: list[Node] = []
    for node in graph:
        source = by_name[node.inputs[0]] if node.op == "scale" else None
        if source is None or source.op not in FOLDS or uses[source.name] > 1 or not source.plain:
            nodes.append(node)
            continue
        scale, shift = (graph.constant(node, role).astype(np.float64) for role in ("weight", "bias"))
        weight, bias = (graph.constant(source, role).astype(np.float64) for role in ("weight", "bias"))
        roles = {role: f"{node.name}.folded.{role}" for role in ("weight", "bias")}
        constants[roles["weight"]] = (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
        constants[roles["bias"]] = (bias * scale + shift).astype(np.float32)
        # the folded layer takes the batch norm's place and name, so that its readers need not change
        nodes.append(Node(node.name, source.op, source.inputs, node.shape, source.attrs, roles, source.source))
    return rewritten(graph, nodes, constants)
