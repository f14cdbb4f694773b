"""What has no native form: PyTorch runs it.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| torch | any | target, args, kwargs: what runs in PyTorch | any |
"""

from ..graph import Graph, Node, Shape
from ..lowering import Lowering
from ..operators import implies, lowers


@implies("torch")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> None:
    """PyTorch knows it."""


lowers("torch")(Lowering.to_torch)
