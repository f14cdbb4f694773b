"""Merge a slice of a slice into one: option-A shortcuts take every second row, then every second column."""

from dataclasses import replace

from ..graph import Graph, Node, rewritten

ORDER = 6


def run(graph: Graph) -> Graph:
    """slice(slice(x)) becomes one slice of x."""
    made: dict[str, Node] = {}
    for node in graph:
        source = made.get(node.inputs[0]) if node.op == "slice" else None
        if source is not None and source.op == "slice":
            axes = zip(
                *(source[k] for k in ("start", "stop", "step")),
                *(node[k] for k in ("start", "stop", "step")),
                strict=True,
            )
            merged = [range(*outer)[slice(*inner)] for *outer, a, b, c in axes for inner in [(a, b, c)]]
            node = replace(node, inputs=source.inputs).with_attrs(
                start=tuple(r.start for r in merged),
                stop=tuple(r.stop for r in merged),
                step=tuple(r.step for r in merged),
            )
        made[node.name] = node
    return rewritten(graph, made.values())
