"""Walking back through an exported graph: what a tensor was before it was reshaped, for rules that know its meaning."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from ..operators import arguments, rank, require, shape_of

_GETITEM = "<built-in function getitem>"
_SAME = {
    "aten.clone.default",
    "aten.alias.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.dropout.default",
}
_RESHAPES = {
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
}


def target(node: Any) -> str:
    """Full name of the operator that makes a tensor; empty for what no operator makes."""
    return str(node.target) if isinstance(node, fx.Node) and node.op == "call_function" else ""


def skip(node: Any) -> Any:
    """The tensor before copies, dropout and reshapes that change nothing."""
    while target(node) in _SAME or (target(node) in _RESHAPES and shape_of(node) == shape_of(node.args[0])):
        node = node.args[0]
    return node


def reshaped(node: Any) -> fx.Node | None:
    """What `node` is a reshape of."""
    node = skip(node)
    return skip(node.args[0]) if target(node) in _RESHAPES else None


def permuted(node: Any, order: tuple[int, ...]) -> fx.Node | None:
    """What `node` is with its axes in `order`, as `permute` takes it."""
    node = skip(node)
    if rank(node) != len(order):
        return None
    if target(node) == "aten.transpose.int":
        a, b = (d % len(order) for d in node.args[1:3])
        found = list(range(len(order)))
        found[a], found[b] = b, a
    elif target(node) == "aten.permute.default":
        found = [d % len(order) for d in node.args[1]]
    else:
        return None
    return skip(node.args[0]) if tuple(found) == order else None


@dataclass(frozen=True)
class Features:
    """Features [first, first + count) of tokens [N, S, C]."""

    tokens: fx.Node
    first: int
    count: int


def heads(node: fx.Node) -> tuple[Features, int]:
    """Where [N, H, S, D] comes from: H x D features of tokens, and H. `Unsupported` if from elsewhere."""
    n, h, s, d = shape_of(node)
    last: Any = skip(node)
    if target(last) == "aten.select.int":  # [3, N, H, S, D] of one matrix for queries, keys and values
        stacked, axis, which = last.args
        require(axis == 0)
        return _stacked(skip(stacked), which), h
    if target(last) == _GETITEM and target(last.args[0]) == "aten.unbind.int":
        pieces, which = last.args
        require(not arguments(pieces, None, 0)[1])
        return _stacked(skip(pieces.args[0]), which), h
    found = permuted(last, (0, 2, 1, 3))
    require(found is not None)
    flat = reshaped(found)
    require(flat is not None and shape_of(flat) == (n, s, h * d))
    return part(flat), h


def _stacked(node: fx.Node, which: int) -> Features:
    three, n, h, s, d = shape_of(node)
    found = permuted(node, (2, 0, 3, 1, 4))
    require(found is not None)
    flat = reshaped(found)
    require(flat is not None and shape_of(flat) == (n, s, three * h * d))
    whole = part(flat)
    return Features(whole.tokens, whole.first + which * h * d, h * d)


def part(node: Any) -> Features:
    """Tokens as they are, or as a piece that was split off along the features."""
    node = skip(node)
    require(rank(node) == 3)
    whole = Features(node, 0, shape_of(node)[2])
    if target(node) == _GETITEM:
        pieces, which = node.args
        if target(pieces) in ("aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default"):
            x, _, axis = arguments(pieces, None, None, 0)
            if axis in (2, -1):
                sizes = [shape_of(piece)[2] for piece in _values(pieces)]
                inner = part(x)
                return Features(inner.tokens, inner.first + sum(sizes[:which]), sizes[which])
    if target(node) == "aten.slice.Tensor":
        x, axis, start, stop, step = arguments(node, None, 0, None, None, 1)
        if axis in (2, -1) and step == 1:
            begin, end, _ = slice(start, stop).indices(shape_of(x)[2])
            inner = part(x)
            return Features(inner.tokens, inner.first + begin, end - begin)
    return whole


def _values(node: fx.Node) -> list[Any]:
    class Shaped:
        def __init__(self, value: Tensor) -> None:
            self.meta = {"val": value}

    return [Shaped(value) for value in node.meta["val"]]


def evaluate(node: fx.Node, known: Callable[[fx.Node], Tensor | None]) -> Tensor:
    """The value of `node`, where `known` gives those of the tensors that it is computed from."""
    values: dict[fx.Node, Any] = {}

    def value(n: fx.Node) -> Any:
        if n not in values:
            given = known(n)
            if given is None:
                require(n.op == "call_function")
                args, kwargs = fx.map_arg((n.args, n.kwargs), value)
                given = n.target(*args, **kwargs)  # type: ignore[operator]
            values[n] = given
        return values[n]

    return value(node)  # type: ignore[no-any-return]


def sources(node: fx.Node, is_known: Callable[[fx.Node], bool]) -> set[fx.Node]:
    """The tensors among those that `is_known` which `node` is computed from."""
    found: set[fx.Node] = set()
    todo, seen = [node], set()
    while todo:
        n = todo.pop()
        if n in seen:
            continue
        seen.add(n)
        if is_known(n):
            found.add(n)
        else:
            todo += n.all_input_nodes
    return found
