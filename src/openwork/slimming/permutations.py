"""Push an order of input channels into the layers before, so that weights lie in that order and outputs stay.

A pattern along input channels loses less if channels that compete for places are put into different groups. An engine
that lists its weights one by one reads any order; hardware that wants n of m consecutive weights (2:4) needs the
channels to come in that order. So the layer before computes them so: its filters, and everything per channel between
the two, are permuted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ModelError, UsageError
from ._operators import ELEMENTWISE, ELEMENTWISE_NAMES, POOLING, POOLING_NAMES, name_of


@dataclass(frozen=True)
class Pushed:
    """What became of one layer's order."""

    layer: str
    producer: str | None
    """The layer whose filters were permuted; None: nothing was changed."""
    why: str = ""
    """Why not."""


def push(model: nn.Module, orders: Mapping[str, Sequence[int]]) -> tuple[Pushed, ...]:
    """Permute the input channels of each layer in `orders` to its order, and what computes them, in place.

    Arguments:
        model: any module that `torch.fx` traces; outputs stay the same but for the order in which sums run.
        orders: for names of convolutions (without groups) and linear layers, which channel comes at each place: a
            permutation of `range(in)`.

    Returns:
        For each layer the producer whose filters moved, or why the layer was left as it was: where a channel's value
        goes to other layers, too (residual connections), through an operator that mixes channels, or comes from the
        input.

    Raises UsageError for a name that is no such layer or an order that is no permutation, ModelError for a model that
    cannot be traced.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 1))
    >>> push(model, {"3": (2, 0, 3, 1)})[0].producer
    '0'

    Source: Pool and Yu 2021, 'Channel Permutations for N:M Sparsity', NeurIPS.
    """
    for name, order in orders.items():
        _check(model, name, order)
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # whatever tracing user code may raise
        raise ModelError(f"{type(model).__name__} cannot be traced ({error}); permute its layers by hand") from error
    return tuple(_Push(model, graph).one(name, torch.as_tensor(tuple(order))) for name, order in orders.items())


class _Push:
    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.modules = dict(model.named_modules())
        self.calls: dict[str, list[fx.Node]] = {}
        for node in graph.nodes:
            if node.op == "call_module":
                self.calls.setdefault(node.target, []).append(node)

    @torch.no_grad()
    def one(self, name: str, order: Tensor) -> Pushed:
        """Find all that must move before anything does."""
        rows: list[Tensor] = []
        try:
            producer = self._walk(self._only_call(name), rows)
        except _CannotError as reason:
            return Pushed(name, None, str(reason))
        if wrong := [len(parameter) for parameter in rows if len(parameter) != len(order)]:
            return Pushed(name, None, f"a layer on the way has {wrong[0]} channels instead of {len(order)}")
        for parameter in rows:
            parameter.copy_(parameter[order.to(parameter.device)])
        weight = self.modules[name].weight
        assert isinstance(weight, Tensor)
        weight.copy_(weight[:, order.to(weight.device)])
        return Pushed(name, producer)

    def _walk(self, node: fx.Node, rows: list[Tensor]) -> str:
        """From a layer back to what computes its input; collects every parameter and buffer along the way."""
        pooling = None
        while True:
            before = node.all_input_nodes
            if len(before) != 1:
                raise _CannotError(f"{node} reads {len(before)} values, which would all have to move together")
            (source,) = before
            if len(source.users) > 1:
                raise _CannotError(f"what {source} computes is read by {', '.join(map(str, source.users))}")
            node = source
            if self._pools(node):
                pooling = node
            if node.op == "call_module":
                name = str(node.target)
                if self._moves(name, rows):
                    if pooling is not None and isinstance(self.modules[name], nn.Linear):
                        raise _CannotError(f"{pooling.target} pools what the linear layer {name} computes")
                    return name
            elif name_of(node) not in ELEMENTWISE_NAMES | POOLING_NAMES:
                raise _CannotError(f"{node} ({node.op}) is not known to keep channels apart")

    def _pools(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.modules[str(node.target)], POOLING)
        return name_of(node) in POOLING_NAMES

    def _moves(self, name: str, rows: list[Tensor]) -> bool:
        """Collect what moves of a module; True for the producer, at which the walk ends."""
        module = self.modules[name]
        self._only_call(name)
        depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels
        ends = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
        whole_axis = isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1
        if ends or depthwise or whole_axis or isinstance(module, _BatchNorm | nn.PReLU):
            rows += [t for t in (*module.parameters(), *module.buffers()) if t.dim() and len(t) > 1]
        elif not isinstance(module, (*ELEMENTWISE, *POOLING)):
            raise _CannotError(f"{name} ({type(module).__name__}) is not known to keep channels apart")
        return ends

    def _only_call(self, name: str) -> fx.Node:
        calls = self.calls.get(name, [])
        if len(calls) != 1:
            raise _CannotError(f"{name} is called {len(calls)} times")
        return calls[0]


class _CannotError(Exception):
    """Why an order cannot be pushed."""


def _check(model: nn.Module, name: str, order: Sequence[int]) -> None:
    module = dict(model.named_modules()).get(name)
    if not isinstance(module, nn.Linear) and not (isinstance(module, nn.Conv2d) and module.groups == 1):
        raise UsageError(f"{name!r} is not a linear layer or a convolution without groups; orders are for those")
    channels = module.weight.shape[1]
    if sorted(order) != list(range(channels)):
        raise UsageError(f"the order of {name!r} is not a permutation of its {channels} input channels")
