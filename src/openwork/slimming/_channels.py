"""Which channels of a network go together, and what each of them is worth.

A channel is a place along the axis that convolutions and linear layers mix. Every place of every value in the graph
gets the number of an atom; operators that keep channels apart hand numbers on (`flatten` repeats them, `cat` puts them
side by side), a sum of two values makes the numbers of both the same, and so do depthwise and grouped convolutions
with what they read and write. What is not understood pins the channels that it touches, with a reason. A set of equal
atoms is a class: it is removed from all its places, or from none.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ._atoms import Atoms, Ids
from ._constants import Make, evaluated, kept_if, normed, padded, pooled, same_as
from ._layer import Layer, Scale, Values
from ._nodes import (
    arguments,
    attribute,
    cuts_space,
    flattens,
    held,
    inputs_of,
    leaves,
    over_space,
    pads_space,
    pools_space,
)
from ._operators import BINARY_NAMES, ELEMENTWISE, ELEMENTWISE_NAMES, POOLING, POOLING_NAMES, name_of, overwrites

CALLED = {
    name: ("weight", "bias", "stride", "padding") if name != "linear" else ("weight", "bias", "", "")
    for name in ("conv1d", "conv2d", "conv3d", "linear")
}
"""Functions that do what layers do, and their arguments after the first."""

INPUT = "it is an input of the model"
OUTPUT = "it is an output of the model"


@dataclass
class _Value:
    axis: int
    ids: Ids


class Flow:
    """The channels of a traced network. Layers are those that are called once and share their weights with none."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.atoms = Atoms()
        self.layers: list[Layer] = []
        self.scales: list[Scale] = []
        self.skipped: dict[str, str] = {}
        """Modules with parameters that are left as they are, and why."""
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self._calls = Counter(str(n.target) for n in graph.nodes if n.op == "call_module")
        self._owners = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
        self._owners.update(id(n.meta["value"]) for n in graph.nodes if n.op == "get_attr")
        self._values: dict[fx.Node, _Value] = {}
        self._axes: dict[fx.Node, int] = {}
        self._makers: list[tuple[fx.Node, Make]] = []
        for node in graph.nodes:
            self._visit(node)
        self.classes: Ids = self.atoms.classes()
        self.pins: dict[int, list[str]] = self.atoms.pins()

    def constants(self) -> dict[fx.Node, Values]:
        """For every value of the graph, what its channels hold where they hold one value everywhere."""
        known: dict[fx.Node, Values] = {}
        for node, make in self._makers:
            known[node] = make(known)
        return known

    def read_by(self, layer: Layer, known: dict[fx.Node, Values]) -> Values:
        """What the channels hold that a layer reads."""
        return np.full(len(layer.reads), np.nan) if layer.source is None else known[layer.source]

    # ---- one node after the other ----

    def _visit(self, node: fx.Node) -> None:
        if node.op == "output":
            self._pin(node.all_input_nodes, OUTPUT)
        elif not isinstance(node.meta["value"], Tensor):
            self._size(node) if node.op != "call_module" else self._stop(node, self._unknown(node))
        elif node.op == "placeholder":
            self._fresh(node, INPUT)
        elif node.op == "get_attr":
            self._fresh(node, f"it goes together with {node.target}, a tensor of forward()")
        elif overwrites(node, self._module(node)) and any(len(s.users) > 1 for s in inputs_of(node)):
            self._stop(node, f"{node} overwrites what others read")
        elif node.op == "call_module":
            self._call(node, self._modules[str(node.target)])
        else:
            self._function(node, name_of(node))

    def _call(self, node: fx.Node, module: nn.Module) -> None:
        name, sources = str(node.target), inputs_of(node)
        source = self._values.get(sources[0]) if len(sources) == 1 else None
        if source is None:
            self._stop(node, self._unknown(node))
        elif isinstance(module, ELEMENTWISE):
            self._same(node, self._evaluated(node))
        elif isinstance(module, POOLING) and pools_space(node, type(module).__name__, source.axis):
            self._same(node, pooled(node, module))
        elif isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            self._flatten(node)
        elif isinstance(module, nn.ZeroPad2d | nn.ConstantPad2d):
            self._same(node, kept_if(sources[0], float(module.value)))
        elif self._calls[name] > 1 or any(self._owners[id(p)] > 1 for p in module.parameters()):
            self._stop(node, f"{name} is used in several places")
        elif isinstance(module, _ConvNd | nn.Linear):
            padding = getattr(module, "padding", 0) if getattr(module, "padding_mode", "zeros") == "zeros" else 0
            self._layer(node, name, module, source, padding)
        elif isinstance(module, _BatchNorm | nn.PReLU):
            self._scale(node, name, module, source)
        else:
            self._stop(node, self._unknown(node))

    def _function(self, node: fx.Node, name: str) -> None:
        sources = inputs_of(node)
        source = self._values.get(sources[0]) if sources else None
        if name in BINARY_NAMES and len(sources) == 2 and len(node.all_input_nodes) == 2:
            self._binary(node, name)
        elif name == "cat":
            self._cat(node)
        elif name in CALLED and source is not None and (owner := self._owner(node)):
            padding = fx.map_arg(arguments(node, *CALLED[name], default=(None, None, 1, 0))[3], held)
            bias = arguments(node, "weight", "bias", default=(None, None))[1] is not None
            self._layer(node, owner, self._modules[owner], source, padding, bias)
        elif source is None or len(sources) != 1:
            self._stop(node, self._unknown(node))
        elif name in ELEMENTWISE_NAMES | BINARY_NAMES:
            self._same(node, self._evaluated(node))
        elif name in POOLING_NAMES and pools_space(node, name, source.axis):
            self._same(node, pooled(node, None))
        elif (name == "flatten" and arguments(node, "start_dim", "end_dim", default=(0, -1)) == (1, -1)) or (
            name == "reshape" and flattens(node)
        ):
            self._flatten(node)
        elif name in ("mean", "amax", "amin") and over_space(node, source.axis):
            self._same(node, same_as(sources[0]))
        elif name == "pad" and pads_space(node, source.axis):
            self._same(node, padded(node))
        elif name == "getitem" and cuts_space(node, source.axis):
            self._same(node, same_as(sources[0]))
        else:
            self._stop(node, self._unknown(node))

    # ---- kinds of operators ----

    def _owner(self, node: fx.Node) -> str:
        """The layer whose own weight (and bias) a function of `forward()` uses, if it is used nowhere else."""
        given = arguments(node, "weight", "bias", default=(None, None))
        targets = [str(g.target) for g in given if isinstance(g, fx.Node) and g.op == "get_attr" and len(g.users) == 1]
        name = targets[0].removesuffix(".weight") if targets else ""
        module = self._modules.get(name)
        fits = isinstance(module, _ConvNd | nn.Linear) and not isinstance(module, _ConvTransposeNd)
        own = targets == [f"{name}.{part}" for part, g in zip(("weight", "bias"), given, strict=True) if g is not None]
        alone = fits and not self._calls[name] and all(self._owners[id(g.meta["value"])] == 2 for g in given if g)
        return name if own and alone else ""

    def _layer(self, node: fx.Node, name: str, module: Any, source: _Value, padding: Any, bias: bool = True) -> None:
        value, linear, grouped = node.meta["value"], isinstance(module, nn.Linear), getattr(module, "groups", 1) > 1
        axis = value.ndim - 1 if linear else 1
        if not linear and value.ndim != module.weight.ndim:
            self._stop(node, f"{name} reads a sample without a batch")
            return
        if grouped and isinstance(module, _ConvTransposeNd):
            self._stop(node, f"{name} is a transposed convolution in groups")
            return
        read, reads = inputs_of(node)[0], source.ids
        if along := source.axis != axis:
            why = f"{name} reads it along another axis"
            self.atoms.pin(source.ids, why)
            reads = self.atoms.new(read.meta["value"].shape[axis], why)
        if not grouped:
            writes = self.atoms.new(value.shape[axis])
        else:  # a group goes with all that it reads and writes, or stays
            groups = reads.reshape(module.groups, -1)
            for column in groups.T[1:]:
                self.atoms.tie(groups[:, 0], column)
            writes = np.repeat(groups[:, 0], module.out_channels // module.groups)
        users = list(node.users)
        after = self._module(users[0]) if len(users) == 1 else None
        norm = after if isinstance(after, _BatchNorm) and self._calls[str(users[0].target)] == 1 else None
        if axis != 1:
            norm = None  # which is over tokens, not over their features
        bordered = any(padding) if isinstance(padding, tuple | list) else padding not in (0, "valid")
        uneven = isinstance(module, _ConvTransposeNd) or (
            not linear and bordered and any(size > 1 for size in module.kernel_size)
        )
        layer = Layer(name, module, None if along else read, reads, writes, uneven, norm, bias)
        self.layers.append(layer)
        self._put(node, _Value(axis, writes), lambda known: layer.makes(self.read_by(layer, known)))

    def _scale(self, node: fx.Node, name: str, module: _BatchNorm | nn.PReLU, source: _Value) -> None:
        if source.axis != 1:
            self._stop(node, f"{name} reads channels along another axis")
            return
        self.scales.append(Scale(name, module, source.ids))
        if isinstance(module, _BatchNorm) and module.running_mean is None:  # averages of the batch: zeros become beta
            self._same(node, lambda known: np.full(len(source.ids), np.nan))
            return
        found = self._evaluated(node)
        self._same(node, found if isinstance(module, nn.PReLU) else normed(module, found))

    def _binary(self, node: fx.Node, name: str) -> None:
        sources = inputs_of(node)
        first, second = (self._values.get(s) for s in sources)
        one_axis = first and second and first.axis == second.axis
        if not one_axis or sources[0].meta["value"].ndim != sources[1].meta["value"].ndim:
            self._stop(node, f"{node} joins values of different shapes")
            return
        assert first is not None and second is not None
        alone = self._evaluated(node)

        def make(known: dict[fx.Node, Values]) -> Values:
            found = alone(known)
            if name == "mul":  # nothing times anything is nothing
                found = np.where((known[sources[0]] == 0) | (known[sources[1]] == 0), 0.0, found)
            return found

        if len(first.ids) == len(second.ids):
            self.atoms.tie(first.ids, second.ids)
            self._put(node, first, make)
            return
        for value in (first, second):
            if len(value.ids) == 1:
                self.atoms.pin(value.ids, f"{node} spreads it over all channels")
        self._put(node, max(first, second, key=lambda value: len(value.ids)), make)

    def _cat(self, node: fx.Node) -> None:
        (axis,), given = arguments(node, "dim", default=(0,)), node.args[0] if node.args else ()
        parts: list[Any] = list(given) if isinstance(given, tuple | list) else []
        values = [self._values.get(part) if isinstance(part, fx.Node) else None for part in parts]
        axis %= node.meta["value"].ndim
        if not values or any(value is None or value.axis != axis for value in values):
            self._stop(node, f"{node} does not put channels side by side")
            return
        ids = np.concatenate([value.ids for value in values if value])
        self._put(node, _Value(axis, ids), lambda known: np.concatenate([known[part] for part in parts]))

    def _flatten(self, node: fx.Node) -> None:
        source = inputs_of(node)[0]
        value, times = self._values[source], math.prod(source.meta["value"].shape[2:])
        if value.axis != 1:
            self._stop(node, self._unknown(node))
            return
        self._put(node, _Value(1, np.repeat(value.ids, times)), lambda known: np.repeat(known[source], times))

    # ---- what is not understood ----

    def _stop(self, node: fx.Node, why: str) -> None:
        """Channels that go in stay, and so do those that come out."""
        module = self._module(node)
        if module is not None and next(module.parameters(), None) is not None:
            self.skipped.setdefault(str(node.target), why)
        self._pin(node.all_input_nodes, why)
        if isinstance(node.meta["value"], Tensor):
            self._fresh(node, why)

    def _unknown(self, node: fx.Node) -> str:
        module = self._module(node)
        name = str(node) if module is None else f"{node.target} ({type(module).__name__})"
        return f"{name} is not known to keep channels apart"

    def _size(self, node: fx.Node) -> None:
        """A number, a size or several tensors: harmless if it does not tell how many channels there are."""
        sources = inputs_of(node)
        if not sources:
            return
        (source, *others), name = sources, name_of(node)
        value = self._values.get(source)
        what = node.args[1] if len(node.args) > 1 else None
        of_shape = (name == "size" and what is None) or (attribute(node) == "shape")
        if value is not None and not others:
            if attribute(node) in ("dtype", "device", "ndim", "layout") or name in ("dim", "is_floating_point"):
                return
            ndim = source.meta["value"].ndim
            if name == "size" and isinstance(what, int) and what % ndim != value.axis:
                return
            if of_shape and all(leaves(user, ndim, value.axis) for user in node.users):
                return
        counts = of_shape or name == "size"
        self._pin(sources, f"forward() counts its channels ({node})" if counts else f"{node} reads it")

    def _fresh(self, node: fx.Node, why: str) -> None:
        """New channels that stay, along the customary axis."""
        shape = node.meta["value"].shape
        if len(shape):
            axis = min(1, len(shape) - 1)
            if node.op not in ("placeholder", "get_attr") and len(shape) == 3:
                axis = 2  # [batch, tokens, features]
            ids = self.atoms.new(shape[axis], why)
            self._put(node, _Value(axis, ids), lambda known: np.full(len(ids), np.nan))

    def _pin(self, nodes: Iterable[fx.Node], why: str) -> None:
        for node in nodes:
            if node in self._values:
                self.atoms.pin(self._values[node].ids, why)

    # ---- small helpers ----

    def _same(self, node: fx.Node, make: Make) -> None:
        source = self._values[inputs_of(node)[0]]
        axis = source.axis if source.axis < node.meta["value"].ndim else node.meta["value"].ndim - 1
        self._put(node, _Value(axis, source.ids), make)

    def _evaluated(self, node: fx.Node) -> Make:
        return evaluated(node, self._module(node), self._axes)

    def _put(self, node: fx.Node, value: _Value, make: Make) -> None:
        self._values[node], self._axes[node] = value, value.axis
        self._makers.append((node, make))

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._modules[str(node.target)] if node.op == "call_module" else None
