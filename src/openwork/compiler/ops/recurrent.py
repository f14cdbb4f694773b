"""Layers of GRU, LSTM or RNN cells, one node a layer, and the state in which they end.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| recurrent | x, initial states | cell, hidden, directions, layer, batch_first, h, c | weight, recurrent, bias, rest |
| final_state | every layer | which, swapped, states, batch, hidden | |

x is [N, T, F], [T, N, F], or [N, F] for one step. `h` and `c` say where the initial states lie: [number of the input,
swapped], or None where they are zero or the constants `h_start` and `c_start`. A state is [layers * directions, N,
hidden], or [N, layers * directions, hidden] if `swapped`. `bias` is added to the projected input, `rest` to the
recurrent product: what PyTorch's GRU multiplies by its reset gate.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from torch import fx

from ..drafts import Weights
from ..graph import Array, Graph, Node, Shape
from ..layout import External, Rows, RowsView
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of
from ..recurrent import Cells
from . import _walk
from ._affine import rows_fields
from .rows import copy_swapped, place

LAYERS = {
    "aten.gru.input": "gru",
    "aten.lstm.input": "lstm",
    "aten.rnn_tanh.input": "tanh",
    "aten.rnn_relu.input": "relu",
}
CELLS = {
    "aten.gru_cell.default": "gru",
    "aten.lstm_cell.default": "lstm",
    "aten.rnn_tanh_cell.default": "tanh",
    "aten.rnn_relu_cell.default": "relu",
}


# ---- capture ----


@captures(*LAYERS)
def capture(c: Converter, node: fx.Node) -> str:
    x, states, parameters, has_biases, layers, _, train, both, batch_first = arguments(node, *[None] * 9)
    require(not train and rank(x) == 3)
    directions, each = 1 + bool(both), 4 if has_biases else 2
    require(len(parameters) == layers * directions * each)  # else LSTM projects its state
    step = directions * each
    by_layer = [parameters[i : i + step] for i in range(0, len(parameters), step)]
    return _nodes(c, node, LAYERS[str(node.target)], _listed(states), by_layer, directions, bool(batch_first))


@captures(*CELLS)
def capture_cell(c: Converter, node: fx.Node) -> str:
    x, states, *parameters = arguments(node, *[None] * 6)
    given = [p for p in parameters if p is not None]
    require(rank(x) == 2 and len(given) in (2, 4))
    return _nodes(c, node, CELLS[str(node.target)], _listed(states), [given], 1, False)


def _listed(states: Any) -> list[Any]:
    return list(states) if isinstance(states, list | tuple) else [states]


def _nodes(
    c: Converter, node: fx.Node, kind: str, states: list[Any], by_layer: list[Any], directions: int, batch_first: bool
) -> str:
    """Adds one node a layer; returns what the last is called."""
    x: Any = node.args[0]
    computed(c, x)
    require(all(c.is_constant(p) for parameters in by_layer for p in parameters))
    cells = Cells(kind, shape_of(by_layer[0][1])[1], directions)
    weights = [_weights(c, parameters, cells) for parameters in by_layer]
    attrs: dict[str, Any] = {"cell": kind, "hidden": cells.hidden, "directions": directions, "batch_first": batch_first}
    initial: list[str] = []
    for name, state in zip("hc", states, strict=False):
        attrs[name] = None
        if not c.is_constant(state):
            turned = _walk.permuted(state, (1, 0, 2))
            computed(c, state if turned is None else turned)
            initial.append(c.name(state if turned is None else turned))
            attrs[name] = (len(initial), turned is not None)
        elif c.tensor(state).any():
            value = c.tensor(state).reshape(len(by_layer), directions, -1, cells.hidden)
            for i, own in enumerate(weights):
                own[f"{name}_start"] = value[i]
    below = c.name(x)
    for i, own in enumerate(weights):
        out = (*shape_of(x)[:-1], directions * cells.hidden)
        below = c.part(node, f"layer{i}", "recurrent", [below, *initial], out, {**attrs, "layer": i}, **own)
    return below


def _weights(c: Converter, parameters: list[Any], cells: Cells) -> dict[str, Array]:
    """Weights of a layer, all directions under each other; biases that can be added beforehand are."""
    count = len(parameters) // cells.directions
    tensors = [c.tensor(p) for p in parameters]
    weight, recurrent, *biases = (np.concatenate(tensors[i::count]) for i in range(count))
    require(recurrent.shape == (cells.directions * cells.gates * cells.hidden, cells.hidden))
    outside, inside = biases or (np.zeros(len(weight), np.float32),) * 2
    rest = np.zeros((cells.directions, cells.gates, cells.hidden), np.float32)
    if cells.kind == "gru":
        rest[:, 2] = inside.reshape(rest.shape)[:, 2]
    return {
        "weight": weight,
        "recurrent": recurrent,
        "bias": outside + inside - rest.reshape(-1),
        "rest": rest.reshape(-1),
    }


@captures("<built-in function getitem>")
def capture_item(c: Converter, node: fx.Node) -> Node | str:
    """Of a layer's results the first is its node's value, the others are states."""
    source, which = node.args
    target = _walk.target(source)
    require(target in LAYERS or target in CELLS)
    known = {made.name: made for made in c.nodes if made.op == "recurrent"}
    require(c.name(source) in known)  # type: ignore[arg-type]
    layers = [known[c.name(source)]]  # type: ignore[arg-type]
    if which == 0:
        return layers[0].name
    while layers[0]["layer"]:
        layers.insert(0, known[layers[0].inputs[0]])
    attrs = {
        "which": "c" if which == 2 or target in CELLS else "h",
        "swapped": False,
        "states": len(layers) * layers[0]["directions"],
        "batch": shape_of(node)[-2],
        "hidden": layers[0]["hidden"],
    }
    return c.make(node, "final_state", [made.name for made in layers], attrs)


@captures("aten.transpose.int", "aten.permute.default", pattern=True)
def capture_swapped(c: Converter, node: fx.Node) -> Node:
    """A final state whose first axes are swapped: it may as well be written that way."""
    state = _walk.permuted(node, (1, 0, 2))
    require(state is not None)
    plain = next((made for made in c.nodes if made.name == c.name(state) and made.op == "final_state"), None)  # type: ignore[arg-type]
    require(plain is not None and not plain["swapped"])
    return c.make(node, "final_state", plain.inputs, {**plain.attrs, "swapped": True})  # type: ignore[union-attr]


# ---- shapes ----


@implies("recurrent")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return (*shapes[0][:-1], node["directions"] * node["hidden"])


@implies("final_state")
def final_shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    states, batch, hidden = node["states"], node["batch"], node["hidden"]
    if len(shapes[0]) == 2:
        return batch, hidden
    return (batch, states, hidden) if node["swapped"] else (states, batch, hidden)


# ---- lowering ----


Place = RowsView | External


@lowers("recurrent")
def lower(low: Lowering, node: Node) -> None:
    cells = Cells(node["cell"], node["hidden"], node["directions"])
    time, batch = _sizes(low.shapes[node.inputs[0]], node["batch_first"])
    projected = _projected(low, node, cells)
    work = RowsView(Rows(1, batch * (cells.gated + 3 * cells.units), permanent=True), (1, 1))
    y = _output(low, node, time * batch)
    states = {
        f"{which}{end}": find(low, node, which) for which in "hc" for end, find in (("0", _initial), ("n", _last))
    }
    known = {name: found for name, found in states.items() if found}
    views = [view for view, _ in known.values()] + ([y] if y else [])

    def at(view: Place, features: int, first: int, step: int, sample: int) -> dict[str, int]:
        buffer, base, row = place(view, features)
        return {"buffer": buffer, "base": base + first * row, "step": step * row, "sample": sample * row}

    def fields() -> dict[str, Any]:
        step, sample = (1, time) if node["batch_first"] else (batch, 1)
        places = {"x": at(projected, cells.gated, 0, step, sample)}
        if y:
            places["y"] = at(y, node.shape[-1], 0, step, sample)
        for name, (view, all_states) in known.items():  # `all_states`: of a sample, which follow each other, or 0
            step, sample = (1, all_states) if all_states else (batch, 1)
            places[name] = at(view, cells.hidden, node["layer"] * cells.directions * step, step, sample)
        return {
            "cell": cells.kind, "steps": time, "batch": batch, "hidden": cells.hidden,
            "directions": cells.directions, "work": work.storage.base, **places,
        }  # fmt: skip

    constants = {
        name: low.graph.constant(node, name).reshape(-1) for name in ("h_start", "c_start") if name in node.constants
    }
    draft = low.draft("recurrent", [projected, *views], [work, *views], fields, **constants)
    matrix, rest = low.graph.constant(node, "recurrent"), low.graph.constant(node, "rest")
    draft.weights = Weights(matrix, rest, cells.directions, time * batch)
    if y:
        low.values[node.name] = y


def _sizes(x: Shape, batch_first: bool) -> tuple[int, int]:
    """Time steps and samples of an input."""
    if len(x) == 2:
        return 1, x[0]
    return (x[1], x[0]) if batch_first else (x[0], x[1])


def _projected(low: Lowering, node: Node, cells: Cells) -> RowsView:
    """The products of the input and its weights, for all time steps at once."""
    source = low.rows(node.inputs[0])
    rows = source.storage.batch
    target = RowsView(Rows(rows, cells.gated), (rows, cells.gated))

    def fields() -> dict[str, Any]:
        return rows_fields(source.storage, target.storage)

    low.node = replace(node, op="projection")
    weight, bias = (cells.spread(low.graph.constant(node, name)) for name in ("weight", "bias"))
    low.draft("rows", [source], [target], fields).weights = Weights(weight, bias, 1, rows)
    low.node = node
    return target


def _output(low: Lowering, node: Node, rows: int) -> Place | None:
    """Where the outputs of all time steps go: to the caller where nobody else reads them, nowhere if nobody does."""
    read = any(user.op != "final_state" for user in low.users[node.name])
    if node.name in low.graph.outputs and not read:
        return low.external(node.name, node.shape)
    features = node.shape[-1]
    return RowsView(Rows(rows, features), (rows, features)) if read or node.name in low.graph.outputs else None


def _initial(low: Lowering, node: Node, which: str) -> tuple[Place, int] | None:
    """Where the initial state lies, and how many states of a sample follow each other there."""
    if not node.attrs.get(which):
        return None
    number, swapped = node[which]
    name = node.inputs[number]
    view = low.view(name)
    return view if isinstance(view, External) else low.rows(name), low.shapes[name][1] if swapped else 0


def _last(low: Lowering, node: Node, which: str) -> tuple[Place, int] | None:
    """Where the final state goes."""
    user = next((user for user in low.users[node.name] if user.op == "final_state" and user["which"] == which), None)
    if user is None:
        return None
    if user.name not in low.values:
        rows = user["states"] * user["batch"]
        outside = user.name in low.graph.outputs and not low.users[user.name]
        view = (
            low.external(user.name, user.shape)
            if outside
            else RowsView(Rows(rows, user["hidden"]), (rows, user["hidden"]))
        )
        low.values[user.name] = view
    return low.values[user.name], user["states"] if user["swapped"] else 0  # type: ignore[return-value]


@lowers("final_state")
def lower_final(low: Lowering, node: Node) -> None:
    """The layers wrote it, unless they wrote it for another reader who wants it in the other order."""
    if node.name in low.values:
        return
    other = next(n for n in low.users[node.inputs[-1]] if n.op == "final_state" and n["which"] == node["which"])
    source = low.values[other.name]
    if other["swapped"] == node["swapped"]:
        low.values[node.name] = source
        return
    a, b, hidden = other.shape
    target = RowsView(Rows(a * b, hidden), (a * b, hidden))
    copy_swapped(low, source, target, node.shape)  # type: ignore[arg-type]
    low.values[node.name] = target
