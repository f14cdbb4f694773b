"""Layers compute with whole numbers where the model rounds what they read and their weights lie on a grid."""

from dataclasses import replace

import numpy as np

from ..graph import Graph, Node, rewritten
from ..integers import Bytes, bytes_of, is_integer, whole_weights

ORDER = 32  # after additions and activations are part of layers, before convolutions are merged

LAYERS = ("conv", "linear")

SUM = 2**31
"""Sums of products must stay below."""


def run(graph: Graph) -> Graph:
    """conv(quantize(x)) gets its weights as bytes, with a step for each output, and the grid of what it reads."""
    made: dict[str, Node] = {}
    constants = dict(graph.constants)
    for node in graph:
        grid = _read(made, node) if node.op in LAYERS and not is_integer(node) else None
        found = whole_weights(constants[node.constants["weight"]]) if grid is not None else None
        if grid is not None and found is not None:
            # Bytes have every magnitude up to 127.
            sums = np.abs(found.whole).reshape(len(found.step), -1).sum(axis=1, dtype=np.int64)
            if max(-grid.lo, grid.hi) * int(sums.max()) < SUM:
                keys = {"weight": f"{node.name}.weight.whole", "step": f"{node.name}.step"}
                constants |= {keys["weight"]: found.whole, keys["step"]: found.step}
                node = replace(node.with_attrs(reads=grid), constants={**node.constants, **keys})
        made[node.name] = node
    return rewritten(graph, made.values(), constants)


def _read(made: dict[str, Node], layer: Node) -> Bytes | None:
    """The grid of what a layer reads; of tokens that have scales of their own a grid of step 1, which they multiply."""
    source = made[layer.inputs[0]]
    if source.op == "quantize_tokens" and layer.op == "linear":
        return Bytes(1.0, -source["most"], source["most"])
    return bytes_of(made, source.name)
