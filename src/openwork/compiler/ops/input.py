"""An input of the model.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| input | | | |
"""

from ..graph import Graph, Node, Shape
from ..lowering import Lowering
from ..operators import implies, lowers


@implies("input")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> None:
    """The caller's."""


@lowers("input")
def lower(low: Lowering, node: Node) -> None:
    view = low.external(node.name, node.shape)
    low.inputs.append(view.buffer)
    low.values[node.name] = view
