"""From graph to program: every node by its operator's rule, in order."""

from .drafts import Lowered
from .graph import Graph
from .lowering import Lowering
from .operators import lowering_rule


def lower(graph: Graph, slabs: int = 1, nested: bool = False) -> Lowered:
    """Lower every node; what has no native form becomes a segment that PyTorch runs. Images may be cut into `slabs`.
    `nested` takes only steps that may hold several levels, whatever the weights are."""
    low = Lowering(graph, slabs, nested)
    for node in graph.nodes:
        low.node = node
        lowering_rule(node.op)(low, node)
    return low.finish()
