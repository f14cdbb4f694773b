"""Run all passes in order; the folder `passes/` is the list, each file's ORDER its place."""

from .. import plugins
from .graph import Graph, verify


def passes() -> list[str]:
    """Names of the passes in the order in which they run."""
    return sorted(plugins.names("compiler.passes"), key=lambda name: plugins.module("compiler.passes", name).ORDER)


def optimize(graph: Graph) -> Graph:
    """The graph after every pass, verified after each."""
    for name in passes():
        graph = verify(plugins.module("compiler.passes", name).run(graph), name)
    return graph
