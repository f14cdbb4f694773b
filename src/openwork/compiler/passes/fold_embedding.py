"""Add position and type embeddings, which never change, while the words' rows are gathered."""

from dataclasses import replace

from ..graph import Graph, Node, rewritten

ORDER = 25


def run(graph: Graph) -> Graph:
    """add(embedding(ids), constant) becomes embedding(ids) with a row to add for each position."""
    uses = graph.uses()
    made: dict[str, Node] = {}
    constants = dict(graph.constants)
    for node in graph:
        if node.op == "add" and not node.clamps:
            first, second = (made[name] for name in node.inputs)
            words, rows = (second, first) if first.op == "constant" else (first, second)
            if words.op == "embedding" and rows.op == "constant" and uses[words.name] == 1:
                added = constants[rows.constants["value"]][0]
                if "added" in words.constants:
                    added = added + constants[words.constants["added"]]
                constants[key := f"{node.name}.added"] = added
                node = replace(words, name=node.name, constants={**words.constants, "added": key})
        made[node.name] = node
    return rewritten(graph, made.values(), constants)
