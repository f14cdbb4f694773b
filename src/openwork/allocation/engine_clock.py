"""What layers cost by the clock: each compiled alone, tuned, and timed beside its dense form."""

import copy
import statistics
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from .. import __version__
from ..compiler.compile import compile
from ..engine.engine import Engine, checked_threads
from ..engine.machine import processor
from ..engine.timing import measure
from ..errors import CompileError
from ..recipes.match import weights
from .costs import Call, parameter, recorded, unit

ROUNDS = 5
"""In how many turns a layer is timed beside its dense form."""
REPEATS = 20
"""Runs in each."""


class EngineClock:
    """The engine's own tuner: a layer has its real shape, its real input shape and the real places of its zeros.

    Timed alone, in turn with its dense form, so that what slows the machine down counts on both sides. In the network
    other layers take part of the caches, and activations are fused into the layers before them: sums of layers come
    near the network's time and do not reach it, which is why `network` measures that.

    Arguments:
        model: any device; a copy on the CPU is timed.
        inputs: one example.
        threads: of an inference; None: the cores that this process may use.
    """

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...], threads: int | None = None) -> None:
        self._model = copy.deepcopy(model).cpu().eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self._inputs = tuple(i.detach().cpu() for i in inputs)
        self._threads = checked_threads(threads)
        self._items = weights(self._model)
        self._calls = recorded(self._model, self._inputs)
        self._alone: dict[str, tuple[Engine, float]] = {}

    def key(self, name: str) -> str:
        return f"{self._unit_key(name)}, {self._inside(name)}"

    def layer(self, name: str, member: Tensor | None) -> float:
        engine, dense = self._dense(name)
        share, calls = self._share(name), len(self._called(name))
        if member is None:
            return dense * share * calls
        sparse = self._compiled(name, member)
        turns = [(_microseconds(sparse), _microseconds(engine)) for _ in range(ROUNDS)]
        saved = 1 - statistics.median(ours / theirs for ours, theirs in turns)
        return max(0.0, dense * (share - saved) * calls)

    def network(self, members: Mapping[str, Tensor]) -> float:
        engine, dense = self._whole
        if not members:
            return dense
        model = copy.deepcopy(self._model)
        for name, member in members.items():
            model.get_parameter(parameter(name, self._items[name])).data.copy_(member)
        sparse = compile(model, self._inputs, threads=self._threads)
        arrays = [i.numpy() for i in self._inputs]
        seconds = measure([lambda: sparse(*arrays), lambda: engine(*arrays)], 3 * ROUNDS, 3)
        ours, theirs = np.median(seconds, axis=1)
        return dense * float(ours / theirs)

    @cached_property
    def _whole(self) -> tuple[Engine, float]:
        engine = compile(self._model, self._inputs, threads=self._threads)
        return engine, 1e6 * statistics.median(engine.time(5 * REPEATS))

    def _dense(self, name: str) -> tuple[Engine, float]:
        """The unit of a layer as it is, and what it takes; equal units share them."""
        key = self._unit_key(name)
        if key not in self._alone:
            engine = self._compiled(name, None)
            self._alone[key] = engine, statistics.median(_microseconds(engine) for _ in range(ROUNDS))
        return self._alone[key]

    def _compiled(self, name: str, member: Tensor | None) -> Engine:
        """The unit of a layer by itself, on what it is given in the network."""
        alone = _Alone(copy.deepcopy(self._model.get_submodule(self._unit(name))), self._called(name)[0])
        if member is not None:
            alone.module.get_parameter(self._inside(name)).data.copy_(member)
        return compile(alone.eval(), alone.inputs, threads=self._threads)

    def _called(self, name: str) -> list[Call]:
        calls = self._calls[self._unit(name)]
        if not calls:
            raise CompileError(f"the network does not use layer {name!r} on these inputs")
        return calls

    def _unit_key(self, name: str) -> str:
        calls, module = self._called(name), self._model.get_submodule(self._unit(name))
        given = [tuple(t.shape) for t in tree_leaves((calls[0].args, calls[0].kwargs)) if isinstance(t, Tensor)]
        return f"{processor()}, {self._threads} threads, {__version__}: {len(calls)} x {module} on {given}"

    def _unit(self, name: str) -> str:
        return unit(self._model, self._items[name])

    def _inside(self, name: str) -> str:
        """The parameter's name in its unit."""
        return parameter(name, self._items[name]).removeprefix(f"{self._unit(name)}.")

    def _share(self, name: str) -> float:
        """What counts as the weight's own part of its unit's time: recurrent layers and attention have several."""
        mine = self._unit(name)
        sizes = {n: item.weight.numel() for n, item in self._items.items() if unit(self._model, item) == mine}
        return sizes[name] / sum(sizes.values())


class _Alone(nn.Module):
    """A module as a network of its own, whose inputs are the tensors of one call."""

    def __init__(self, module: nn.Module, call: Call) -> None:
        super().__init__()
        self.module = module
        leaves, self._form = tree_flatten((call.args, dict(call.kwargs)))
        self._leaves = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._places = [at for at, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.inputs = tuple(leaves[at].detach().contiguous() for at in self._places)

    def forward(self, *inputs: Tensor) -> Tensor:
        leaves = list(self._leaves)
        for at, given in zip(self._places, inputs, strict=True):
            leaves[at] = given
        args, kwargs = tree_unflatten(leaves, self._form)
        output: Tensor = tree_leaves(self.module(*args, **kwargs))[0]
        return output


def _microseconds(engine: Engine) -> float:
    """Of the steps that have weights; what moves data into and out of a layer alone has no part in a network."""
    rows = [row for row in engine.explain(REPEATS).rows if row["weights"]]
    if not rows:
        raise CompileError("the engine leaves the layer to PyTorch")
    return float(sum(row["microseconds"] for row in rows))
