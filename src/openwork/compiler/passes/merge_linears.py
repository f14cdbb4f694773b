"""Merge matrices that read the same tokens into one: queries, keys and values are one walk over the input."""

from collections import defaultdict

import numpy as np

from ..graph import Graph, Node, rewritten
from ..ops._affine import many_tokens

ORDER = 50  # after what fuses into single matrices


def run(graph: Graph) -> Graph:
    """linear(x, a), linear(x, b) become features of linear(x, [a; b]); what is fused into them must be the same."""
    groups: dict[object, list[Node]] = defaultdict(list)
    for node in graph:
        if node.op == "linear" and many_tokens(node.shape) and len(node.inputs) == 1:
            groups[node.inputs[0], tuple(sorted(node.attrs.items()))].append(node)
    merged = {n.name: group for group in groups.values() if len(group) > 1 for n in group}
    constants = dict(graph.constants)
    nodes: list[Node] = []
    for node in graph:
        group = merged.get(node.name)
        if group is None:
            nodes.append(node)
            continue
        whole = f"{group[0].name}.merged"
        if node is group[0]:
            keys = {role: f"{whole}.{role}" for role in node.constants}
            for role, key in keys.items():
                constants[key] = np.concatenate([graph.constant(n, role) for n in group])
            shape = (*node.shape[:2], sum(n.shape[2] for n in group))
            nodes.append(Node(whole, "linear", node.inputs, shape, node.attrs, keys, node.source))
        first = sum(n.shape[2] for n in group[: group.index(node)])
        nodes.append(Node(node.name, "features", (whole,), node.shape, {"first": first}, {}, node.source))
    return rewritten(graph, nodes, constants)
