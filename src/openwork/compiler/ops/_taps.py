"""A convolution as a weighted sum of shifted planes, of floats or of bytes."""

from ..drafts import Integers, Pair, Weights
from ..graph import Node
from ..layout import PlaneView, Quads
from ..lowering import Lowering, rows_beyond


def over_windows(
    low: Lowering,
    node: Node,
    weights: Weights,
    residual: PlaneView | None,
    planes: int,
    source: Quads | None = None,
    integers: Integers | None = None,
) -> PlaneView:
    """The step of a convolution whose result takes so many `planes`; it reads the bytes `source` if they are given."""
    kernel, stride = low.graph.constant(node, "weight").shape[2:], node["stride"]
    # tap (dy, dx) of output (0, 0) reads input row dy*dilation - padding: phase row % stride, row // stride rows down
    steps = [
        [divmod(k * d - p, s) for k in range(size)]
        for size, d, p, s in zip(kernel, node["dilation"], node["padding"], stride, strict=True)
    ]
    taps = [((a, b), (i, j)) for i, a in steps[0] for j, b in steps[1]]
    wanted = {phase for phase, _ in taps}
    views: dict[Pair, PlaneView]
    if stride == (1, 1):
        views = {(0, 0): source.view if source else low.planes(node.inputs[0])}
    else:
        views = low.phases(node.inputs[0], stride, wanted, halo=any(dy for _, (dy, _) in taps), quads=source)
    order = sorted(wanted)
    first = views[order[0]]
    grid, (h, w) = first.grid, node.shape[2:]
    before = tuple(max(0, -min(i for i, _ in axis)) for axis in steps)
    reach = [max(i for i, _ in axis) for axis in steps]
    after = (max(0, reach[0] + rows_beyond(first, h)), max(0, reach[1] + w - first.w))
    grid.need(first.h, first.w, (before[0], before[1]), after)
    if residual:
        grid.merge(residual.grid)
    target = low.new_planes(grid, planes, h, w)
    shifts = [(order.index(p), shift) for p, shift in taps]
    low.taps([views[p] for p in order], shifts, target, weights, residual, integers)
    return target
