"""Sum of 1x1 convolutions of several values: one walk over the channels of all of them.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| conv_sum | x, ... [N, C, H, W] | strides: a pair for each input; groups: 1 | weight [O, sum of C, 1, 1], bias [O] |

Made by `merge_added_convs`, of the last convolution of a residual block and that of its shortcut.
"""

from ..drafts import Weights
from ..graph import Graph, Node, Shape
from ..layout import joined
from ..lowering import Lowering
from ..operators import implies, lowers


@implies("conv_sum")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    weight = graph.constant(node, "weight").shape
    images = {(n, *(-(-size // s) for size, s in zip(image, stride, strict=True)))
              for (n, _, *image), stride in zip(shapes, node["strides"], strict=True)}  # fmt: skip
    if len(images) != 1 or weight[1] != sum(s[1] for s in shapes):
        return ()
    n, h, w = images.pop()
    return n, weight[0], h, w


@lowers("conv_sum", epilogue=True)
def lower(low: Lowering, node: Node) -> None:
    weight, bias = low.graph.constant(node, "weight"), low.graph.constant(node, "bias")
    source = joined(
        [
            low.planes(name) if stride == (1, 1) else low.phases(name, stride, {(0, 0)})[0, 0]
            for name, stride in zip(node.inputs, node["strides"], strict=True)
        ]
    )
    n, out, h, w = node.shape
    target = low.new_planes(source.grid, out, h, w)
    low.taps([source], [(0, (0, 0))], target, Weights(weight.reshape(out, -1), bias, 1, n * h * w), None)
    low.values[node.name] = target
