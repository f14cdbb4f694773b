"""Where activations are rounded.

A layer's input is, right after what made it, so that all who read it read the rounded values; and the other operand of
an addition that a layer takes along, unless something else reads it in float32. So is an image whose means a layer
reads, so that it, too, is an image of bytes. The residual stream of a transformer, which layer norm reads, is not.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from .network import Layer, arguments, layers, op_of, shape_of
from .rounding import Grid
from .rows import RowGrid

_VIEWS = {"view", "reshape", "_unsafe_view", "permute", "transpose", "t", "flatten", "unflatten", "squeeze"}
_VIEWS |= {"unsqueeze", "contiguous", "clone", "expand", "detach", "alias"}
_PARTS = {"slice", "select", "max_pool1d", "max_pool2d", "max_pool3d"}
"""Values that were all there before: on a grid if those were."""
_MEANS = {"mean", "avg_pool2d", "adaptive_avg_pool2d"}
"""Of images: values between those that were there before, in another unit."""


@dataclass(frozen=True)
class Place:
    """An activation that is rounded."""

    value: str
    """What the graph calls it."""
    grid: Grid | RowGrid
    """The numbers that it is rounded to."""


@dataclass(frozen=True)
class Places:
    """Where a graph is to be rounded, before it is known how."""

    values: tuple[fx.Node, ...]
    """Activations, in the order in which they are computed."""
    inputs: dict[str, fx.Node]
    """By name of a layer, which of them its input comes from."""
    by_row: frozenset[fx.Node] = frozenset()
    """Those of which every row is rounded by itself, where linear layers read them and nowhere else."""


def find_places(network: fx.GraphModule, leave: Collection[str] = (), per_row: bool = False) -> Places:
    """Places of a graph that `captured` made; layers in `leave` stay in float32. With `per_row` linear layers read rows
    that are rounded by themselves, unless what they read is rounded for another reason already."""
    every = [layer for layer in layers(network) if layer.name not in leave]
    chosen = [layer for layer in every if not (per_row and isinstance(layer.module, nn.Linear))]
    order = {node: number for number, node in enumerate(network.graph.nodes)}
    marked = {_source(_operand(layer.node)): None for layer in chosen}
    by_node = {layer.node: layer for layer in chosen}
    for node in network.graph.nodes:
        if (
            op_of(node) == "add"
            and not _is_normed(node)
            and (operand := _taken_along(node, by_node, order)) is not None
        ):
            known = any(one in marked for one in _way_back(operand))
            if not known and not _read_elsewhere(_source(operand), by_node):
                marked[_source(operand)] = None
    for maker in [_whole(node)[-1] for node in marked]:
        if op_of(maker) in _MEANS and len(shape_of(_operand(maker)) or ()) == 4:
            image = _source(_operand(maker))
            if not any(one in marked for one in _way_back(image)) and not _read_elsewhere(image, by_node):
                marked[image] = None
    # What is a part of something rounded is on a grid already.
    for node in list(marked):
        if any(one in marked for one in _way_back(node)[1:]):
            del marked[node]
    rows = {_operand(layer.node) for layer in every if layer not in chosen}
    rows = {node for node in rows if not any(one in marked for one in _way_back(node))}
    marked |= dict.fromkeys(rows)
    inputs = {}
    for layer in every:
        inputs[layer.name] = next(one for one in _way_back(_operand(layer.node)) if one in marked)
    return Places(tuple(sorted(marked, key=order.__getitem__)), inputs, frozenset(rows))


def insert(network: fx.GraphModule, places: Places, grids: Sequence[Grid | RowGrid]) -> None:
    """Round the activations at `places` to `grids`: whoever reads one reads the rounded one, but for residual streams
    that layer norm reads; rounded rows are read by the layers that are quantized and by nobody else."""
    quantized = {layer.node for layer in layers(network) if layer.name in places.inputs}
    last_input = [n for n in network.graph.nodes if n.op == "placeholder"][-1]
    for node, grid in zip(places.values, grids, strict=True):
        with network.graph.inserting_after(last_input if node.op == "placeholder" else node):
            made = network.graph.call_function(*grid.call(node))
        made.meta = dict(node.meta)
        for user in list(node.users):
            by_row = node in places.by_row
            reads = user in quantized if by_row else not (op_of(user) == "add" and _is_normed(user))
            if user is not made and reads:
                user.replace_input_with(node, made)
    network.recompile()


def _operand(node: fx.Node) -> fx.Node:
    found: Any = node.args[0]
    assert isinstance(found, fx.Node), f"{node} has no input"
    return found


def _way_back(node: fx.Node, through: Collection[str] = _VIEWS | _PARTS) -> list[fx.Node]:
    """`node`, and the values that it is a view, a part or a padded form of, nearest first."""
    found = [node]
    while op_of(found[-1]) in through or _pads_zeros(found[-1]):
        found.append(_operand(found[-1]))
    return found


def _whole(node: fx.Node) -> list[fx.Node]:
    """`node`, and the values that it is a view or a padded form of: all of them, in another shape."""
    return _way_back(node, _VIEWS)


def _source(node: fx.Node) -> fx.Node:
    """Where a value is rounded: before it is padded, which convolutions do themselves, and where others read it; but
    after views that it alone is seen through, such as those that put the heads of attention together."""
    found = _whole(node)
    shared = [i for i in range(1, len(found)) if _pads_zeros(found[i - 1]) or len(found[i].users) > 1]
    return found[max(shared, default=0)]


def _pads_zeros(node: fx.Node) -> bool:
    op = op_of(node)
    if op not in ("pad", "constant_pad_nd"):
        return False
    given = arguments(node)
    return given.get("mode", "constant") == "constant" and not given.get("value") and min(given["pad"]) >= 0


def _taken_along(node: fx.Node, layers_by_node: dict[fx.Node, Layer], order: dict[fx.Node, int]) -> fx.Node | None:
    """The operand of an addition that a layer adds to its result: the one that is no layer's result, or else the one
    whose layer could begin earlier, a shortcut's."""
    given = arguments(node)
    sides = [given["self"], given["other"]]
    if not all(isinstance(side, fx.Node) for side in sides) or given.get("alpha", 1) != 1:
        return None
    shapes = [shape_of(side) for side in sides]
    if shapes[0] is None or shapes[0] != shapes[1]:
        return None
    makers = [layers_by_node.get(_whole(side)[-1]) for side in sides]
    if None not in makers:
        began = [order[_whole(_operand(maker.node))[-1]] for maker in makers if maker is not None]
        found = sides[0] if began[0] < began[1] else sides[1]
    elif makers == [None, None]:
        return None
    else:
        found = sides[makers.index(None)]
    return found if _whole(found)[-1].op != "get_attr" else None


def _is_normed(node: fx.Node) -> bool:
    """Whether layer norm reads a value. It would divide by what rounding adds to a residual stream, so operands of such
    additions stay in float32; engines have them anyway, since they normalize in float32."""
    return any(op_of(user) == "layer_norm" or (op_of(user) in _VIEWS and _is_normed(user)) for user in node.users)


def _read_elsewhere(node: fx.Node, layers_by_node: dict[fx.Node, Layer]) -> bool:
    """Whether something beside layers and additions reads a value, or it is a result."""
    for user in node.users:
        if op_of(user) in _VIEWS | _PARTS or _pads_zeros(user):
            if _read_elsewhere(user, layers_by_node):
                return True
        elif user not in layers_by_node and op_of(user) not in {"add"} | _MEANS:
            return True
    return False
