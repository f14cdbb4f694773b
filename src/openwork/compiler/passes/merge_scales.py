"""Merge a scale of a scale into one: (x - mean) / deviation is one weight and one bias a channel."""

from dataclasses import replace

import numpy as np

from ..graph import Array, Graph, Node, rewritten

ORDER = 8


def run(graph: Graph) -> Graph:
    """scale(scale(x)) becomes one scale of x, where nothing else reads the inner one."""
    uses = graph.uses()
    made: dict[str, Node] = {}
    constants = dict(graph.constants)
    for node in graph:
        source = made.get(node.inputs[0]) if node.op == "scale" else None
        if source is not None and source.op == "scale" and source.plain and uses[source.name] == 1:
            (w, b), (weight, bias) = (_exact(n, constants) for n in (source, node))
            with np.errstate(over="ignore"):
                merged = [(weight * w).astype(np.float32), (weight * b + bias).astype(np.float32)]
            if np.isfinite(merged).all():
                keys = {role: f"{node.name}.merged.{role}" for role in ("weight", "bias")}
                constants |= dict(zip(keys.values(), merged, strict=True))
                node = replace(node, inputs=source.inputs, constants=keys)
        made[node.name] = node
    return rewritten(graph, made.values(), constants)


def _exact(node: Node, constants: dict[str, Array]) -> list[Array]:
    """Weight and bias in double precision."""
    return [constants[node.constants[role]].astype(np.float64) for role in ("weight", "bias")]
