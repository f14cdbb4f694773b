"""Walking back through an exported graph: what a tensor was before it was reshaped, for rules that know its meaning."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..operators import Unsupported, arguments, rank, require, shape_of

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
_PIECES = {"aten.unbind.int", "aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default"}
_VIEWS = {
    *(_SAME | _RESHAPES | {_GETITEM}),
    *("aten.permute.default", "aten.transpose.int", "aten.select.int", "aten.slice.Tensor", "aten.expand.default"),
    *("aten.unsqueeze.default", "aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims"),
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


def views(node: fx.Node) -> list[fx.Node]:
    """`node`, what it is a view of, what that is a view of, ..., to the first value that is no view."""
    found = [node]
    while target(found[-1]) in _VIEWS:
        source = found[-1].args[0]
        if target(found[-1]) == _GETITEM:
            if target(source) not in _PIECES:
                break
            source = source.args[0]  # type: ignore[union-attr]
        if not isinstance(source, fx.Node):
            break
        found.append(source)
    return found


@dataclass(frozen=True)
class Heads:
    """`count` heads of queries, keys or values: features from `first` of tokens [N, S, *], [S, N, *] if `swapped`."""

    tokens: fx.Node
    first: int
    count: int
    swapped: bool


def heads(node: fx.Node) -> Heads:
    """Where [N, H, S, D], or [N H, S, D], comes from. `Unsupported` if not from tokens.

    What a chain of views does is not derived from its operators: the numbers of the elements are sent through it.
    """
    for tokens in reversed(views(node)):
        if rank(tokens) == 3 and tokens is not node:
            numbers = torch.arange(math.prod(shape_of(tokens)), dtype=torch.int32).reshape(shape_of(tokens))
            found = evaluate(node, lambda x, tokens=tokens, numbers=numbers: numbers if x is tokens else None)  # type: ignore[misc]
            for swapped in (False, True):
                first = int(found[(0,) * found.ndim]) % numbers.shape[2]
                whole = numbers.transpose(0, 1) if swapped else numbers
                if (count := _heads_of(whole, found, first)) is not None:
                    return Heads(tokens, first, count, swapped)
    raise Unsupported


def _heads_of(tokens: Tensor, found: Tensor, first: int) -> int | None:
    """How many heads of tokens [N, S, *] are found in [N, H, S, D] or [N H, S, D]; None if they are not."""
    n, s, features = tokens.shape
    *_, length, size = found.shape
    count = found.numel() // (n * length * size)
    fits = length == s and (found.ndim == 3 or found.shape[:2] == (n, count)) and first + count * size <= features
    if not fits or count * n * length * size != found.numel():
        return None
    wanted = tokens[..., first : first + count * size].reshape(n, s, count, size).transpose(1, 2)
    return count if torch.equal(found, wanted.reshape(found.shape)) else None


@dataclass(frozen=True)
class Features:
    """Features [first, first + count) of tokens [N, S, C]."""

    tokens: fx.Node
    first: int
    count: int


def part(node: Any) -> Features:
    """Tokens as they are, or as a piece that was split off along the features."""
    node = skip(node)
    require(rank(node) == 3)
    whole = Features(node, 0, shape_of(node)[2])
    if target(node) == _GETITEM:
        pieces, which = node.args
        if target(pieces) in _PIECES - {"aten.unbind.int"}:
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
                # strides here need not be those that let PyTorch's view be one
                run = torch.ops.aten.reshape.default if target(n) == "aten.view.default" else n.target
                given = run(*args, **kwargs)  # type: ignore[operator]
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
