"""Questions about a node of a graph: its arguments, what it reads, and whether it leaves channels alone."""

import operator
from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx


def arguments(node: fx.Node, *names: str, default: Sequence[Any]) -> tuple[Any, ...]:
    """Arguments after the first, by position or name."""
    given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
    return tuple(given.get(name, value) for name, value in zip(names, default, strict=True))


def held(node: fx.Node) -> Any:
    """The value of a node: a tensor without data, a size, ..."""
    return node.meta["value"]


def attribute(node: fx.Node) -> str:
    """Which attribute a node reads of another's value; empty: none."""
    return str(node.args[1]) if node.target is getattr and len(node.args) > 1 else ""


def inputs_of(node: fx.Node) -> list[fx.Node]:
    """The tensors that it reads."""
    return [s for s in node.all_input_nodes if isinstance(held(s), Tensor)]


def over_space(node: fx.Node, axis: int) -> bool:
    """Whether a reduction is over axes behind the channels, `axis`."""
    dims, _ = arguments(node, "dim", "keepdim", default=(None, False))
    ndim = held(node.all_input_nodes[0]).ndim
    axes = [dims] if isinstance(dims, int) else list(dims or [])
    return bool(axes) and all(one % ndim > axis for one in axes)


def pools_space(node: fx.Node, kind: str, axis: int) -> bool:
    """Whether a pooling is along axes behind the channels, `axis`; its name `kind` has their number, or it is along all
    behind the second."""
    ndim = held(node).ndim
    return bool(axis < ndim - next((int(c) for c in kind if c.isdigit()), ndim - 2))


def pads_space(node: fx.Node, axis: int) -> bool:
    """Whether `pad` is along axes behind the channels, `axis`."""
    (pads,) = arguments(node, "pad", default=((),))
    return bool(len(pads) <= 2 * (held(node).ndim - axis - 1))


def cuts_space(node: fx.Node, axis: int) -> bool:
    """Whether an index takes every channel: `x[:, :, ::2, ::2]`."""
    index: Any = node.args[1]
    plain = isinstance(index, tuple) and all(isinstance(part, slice) for part in index)
    return plain and (len(index) <= axis or index[axis] == slice(None))


def flattens(node: fx.Node) -> bool:
    """Whether `reshape` leaves the number of features open: `x.view(x.size(0), -1)`."""
    source, value = held(inputs_of(node)[0]), held(node)
    given: Any = node.args[1:]
    sizes = given[0] if given and isinstance(given[0], tuple | list) else given
    return bool(value.ndim == len(sizes) == 2 and sizes[1] == -1 and value.shape[0] == source.shape[0])


def leaves(user: fx.Node, ndim: int, axis: int) -> bool:
    """Whether what is read of a shape leaves the channels, `axis`, out."""
    if user.target is not operator.getitem or not isinstance(user.args[1], int | slice):
        return False
    chosen = list(range(ndim))[user.args[1]]
    return axis not in (chosen if isinstance(chosen, list) else [chosen])
