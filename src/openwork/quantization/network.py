"""A trained model as a graph: layers are modules under their own names, with batch norm folded into them.

The graph is the one that `torch.export` captures, as the compiler sees it, for any size of the batch where the model
allows that. Nothing in it is shared with the model.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from ..compiler.capture import export, functional
from ..errors import CaptureError

LAYERS: dict[str, type[nn.Module]] = {
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
    "linear": nn.Linear,
}
"""Operators that become integer layers, and the modules that stand for them."""
OTHERS = ("conv_transpose", "addmm", "baddbmm", "bilinear", "gru", "lstm", "rnn_tanh", "rnn_relu")
"""Beginnings of the names of operators with weights that stay in float32."""

_CHECKS = {"_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range", "sym_constrain_range_for_size"}
_FUNCTIONAL_NORM = "_native_batch_norm_legit_no_training"
_DROPOUT = {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"}


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer of a graph."""

    name: str
    """Where its module is: the user's own name of the layer."""
    node: fx.Node
    """Where it is called; each module once."""
    module: Any
    """`nn.Conv2d`, `nn.Linear`, ... with weight and bias."""


def captured(model: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """The graph of `model.eval()`; its nodes' `meta["val"]` are tensors without data.

    Raises `ModelError` for weights that are NaN, infinite or empty, and `CaptureError` where `torch.export` gives up,
    or where there is neither a convolution nor a linear layer.
    """
    program = _exported(model, inputs)
    if any(map(_writes_into_a_view, program.graph.nodes)):
        program = functional(program)
    graph = _copied(program)
    network = fx.GraphModule(program.module(), graph, type(model).__name__)
    for module in network.modules():  # what the copies of attributes share with the model
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.detach().clone()
    for node in list(network.graph.nodes):
        if (kind := LAYERS.get(op_of(node))) is not None:
            _make_module(network, node, kind)
    network.graph.eliminate_dead_code()
    # A second one has only those attributes that the graph still reads.
    found = fx.GraphModule(network, network.graph, type(model).__name__)
    if not layers(found):
        raise CaptureError(f"{type(model).__name__} has no convolution and no linear layer to quantize")
    return found.eval()


def layers(network: fx.GraphModule) -> list[Layer]:
    """The layers of a graph that `captured` made, in the order in which they run."""
    kinds = tuple(LAYERS.values())
    called = [(n, network.get_submodule(str(n.target))) for n in network.graph.nodes if n.op == "call_module"]
    return [Layer(str(node.target), node, module) for node, module in called if isinstance(module, kinds)]


def left_in_float(network: fx.GraphModule) -> list[tuple[str, str]]:
    """Operators with weights that no layer stands for: name and why."""
    found = []
    for node in network.graph.nodes:
        op = op_of(node)
        if op in LAYERS:
            found.append((node.name, "its weight is computed"))
        elif op.startswith(OTHERS):
            found.append((node.name, f"{op} is not quantized"))
    return found


def op_of(node: fx.Node) -> str:
    """The name of an ATen operator without namespace and overload; empty for anything else."""
    target: Any = node.target
    return str(target._schema.name).removeprefix("aten::") if isinstance(target, OpOverload) else ""


def arguments(node: fx.Node) -> dict[str, Any]:
    """Arguments of an ATen operator by name, those left at their defaults included."""
    target: Any = node.target
    found = {a.name: a.default_value for a in target._schema.arguments}
    found.update(zip(found, node.args, strict=False))
    return {**found, **node.kwargs}


def shape_of(node: fx.Node) -> tuple[Any, ...] | None:
    """The shape of a float tensor; None for whole numbers, truth values, sizes and tuples."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) and value.is_floating_point() else None


def to_device_of(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """`inputs` where the model's weights are."""
    found = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), None)
    return inputs if found is None else tuple(x.to(found) for x in inputs)


def batch_is_free(network: fx.GraphModule) -> bool:
    """Whether the graph takes batches of any size."""
    first = next(n for n in network.graph.nodes if n.op == "placeholder").meta["val"]
    return bool(first.dim()) and _is_free(first.shape[0])


def _is_free(size: Any) -> bool:
    """Whether a size is a symbol that nothing has settled."""
    return isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None


def _exported(model: nn.Module, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """For any batch, if the inputs have one and the model does not fix it."""
    if all(x.dim() for x in inputs) and len({len(x) for x in inputs}) == 1:
        # A size of 1 would be taken for a constant.
        several = tuple(torch.cat([x, x]) for x in inputs) if len(inputs[0]) == 1 else inputs
        try:
            program = export(model, several, dynamic_shapes=tuple({0: Dim.AUTO} for _ in inputs))
        except CaptureError:
            return export(model, inputs)  # says what is wrong, unless the batch alone was
        first = next(n for n in program.graph.nodes if n.name in program.graph_signature.user_inputs)
        if _is_free(first.meta["val"].shape[0]):
            return program
    return export(model, inputs)


def _copied(program: ExportedProgram) -> fx.Graph:
    """The program's graph without checks, dropout and operators that write into their input."""
    graph, made = fx.Graph(), dict[fx.Node, Any]()
    for node in program.module().graph.nodes:
        op = op_of(node)
        if node.op == "output":
            graph.output(_returned(fx.map_arg(node.args[0], made.__getitem__), program))
        elif node.op == "call_module" or op in _CHECKS:
            continue  # what torch.export guards of its own
        elif op in _DROPOUT or (node.target is operator.getitem and op_of(node.args[0]) == _FUNCTIONAL_NORM):
            made[node] = made[node.args[0]]
        elif op == _FUNCTIONAL_NORM:
            made[node] = graph.node_copy(node, made.__getitem__)
            _plain_norm(made[node])
        else:
            made[node] = graph.node_copy(node, made.__getitem__)
            if node.op == "call_function":
                _without_writing(node, made)
    return graph


def _without_writing(node: fx.Node, made: dict[fx.Node, Any]) -> None:
    """`relu_` as `relu`, and whoever reads its input from here on reads the result."""
    target, op = node.target, op_of(node)
    if not isinstance(target, OpOverload) or not target._schema.is_mutable or not op.endswith("_"):
        return
    plain = getattr(torch.ops.aten, op.removesuffix("_"), None)
    if plain is not None and hasattr(plain, target._overloadname):
        made[node].target = getattr(plain, target._overloadname)
        made[node.args[0]] = made[node]  # type: ignore[index]


def _writes_into_a_view(node: fx.Node) -> bool:
    """Whether an operator writes into a part of a tensor, or another form of it, whose readers see what it wrote."""
    target: Any = node.target
    if not isinstance(target, OpOverload) or not target._schema.is_mutable:
        return False
    written = [a.name for a in target._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    sources = [value for name, value in arguments(node).items() if name in written and isinstance(value, fx.Node)]
    schemas = [source.target._schema for source in sources if isinstance(source.target, OpOverload)]
    return any(r.alias_info is not None and not r.alias_info.is_write for s in schemas for r in s.returns)


def _plain_norm(node: fx.Node) -> None:
    """Batch norm as it was before `torch.export` made everything free of writing: it returned one tensor."""
    target: Any = torch.ops.aten.batch_norm.default
    x, weight, bias, mean, variance, momentum, eps = node.args
    node.target, node.args = target, (x, weight, bias, mean, variance, False, momentum, eps, False)
    node.meta = {**node.meta, "val": node.meta["val"][0]}


def _returned(leaves: Any, program: ExportedProgram) -> Any:
    """What the model returns: a tensor, or plain containers; of other containers their tensors."""
    leaves = list(leaves)
    found = pytree.tree_unflatten(leaves, program.call_spec.out_spec)
    if isinstance(found, fx.Node):
        return found
    inner = found.values() if isinstance(found, dict) else found
    plain = type(found) in (tuple, list, dict) and all(isinstance(one, fx.Node) for one in inner)
    return found if plain else tuple(leaves)


def _make_module(network: fx.GraphModule, node: fx.Node, kind: type[nn.Module]) -> None:
    """Put a module in the place of a layer whose weight and bias are the model's own, with the batch norm after it."""
    given = arguments(node)
    weight, bias = _own(network, given["weight"]), _own(network, given["bias"])
    if weight is None or (bias is None and given["bias"] is not None):
        return
    after = next(iter(node.users)) if len(node.users) == 1 else None
    if kind is nn.Linear and len(shape_of(node) or ()) != 2:
        after = None  # batch norm of tokens is over another axis than a linear layer's outputs
    norm = None if after is None or op_of(after) != "batch_norm" else _norm(network, arguments(after))
    bias = torch.zeros(len(weight)).to(weight) if bias is None else bias
    if norm is not None and after is not None:
        scale, shift = norm
        bias = (bias.double() * scale + shift).to(bias.dtype)
        weight = (weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))).to(weight.dtype)
    module = _module(kind, weight, bias, given)
    last = node if norm is None or after is None else after
    attribute = str(given["weight"].target)
    with network.graph.inserting_before(last):
        call = network.graph.create_node("call_module", "", (given["input"],))
    call.meta = dict(last.meta)
    last.replace_all_uses_with(call)
    for gone in {last: None, node: None}:
        read = [source for source in gone.all_input_nodes if source.op == "get_attr"]
        network.graph.erase_node(gone)
        for source in read:
            if not source.users:
                network.graph.erase_node(source)
    call.target = _free_path(network, attribute)
    network.set_submodule(call.target, module)


def _own(network: fx.GraphModule, node: Any) -> Tensor | None:
    """The value of a parameter or buffer."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    found = operator.attrgetter(str(node.target))(network)
    return found.detach() if isinstance(found, Tensor) else None


def _norm(network: fx.GraphModule, given: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    """Factor and summand of each channel in a batch norm in evaluation mode, float64."""
    mean, variance = _own(network, given["running_mean"]), _own(network, given["running_var"])
    if given["training"] or mean is None or variance is None:
        return None
    weight, bias = _own(network, given["weight"]), _own(network, given["bias"])
    scale = (variance.double() + given["eps"]).rsqrt()
    if weight is not None:
        scale = scale * weight.double()
    shift = -mean.double() * scale
    return scale, shift if bias is None else shift + bias.double()


def _module(kind: type[nn.Module], weight: Tensor, bias: Tensor, given: dict[str, Any]) -> nn.Module:
    with torch.device("meta"):
        if kind is nn.Linear:
            made: Any = nn.Linear(weight.shape[1], weight.shape[0])
        else:
            groups, rank = given["groups"], weight.dim() - 2
            made = kind(
                weight.shape[1] * groups,
                weight.shape[0],
                tuple(weight.shape[2:]),
                stride=_each(given["stride"], rank),
                padding=given["padding"] if isinstance(given["padding"], str) else _each(given["padding"], rank),
                dilation=_each(given["dilation"], rank),
                groups=groups,
            )
    made.weight, made.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return made.eval()  # type: ignore[no-any-return]


def _each(value: Any, rank: int) -> tuple[int, ...]:
    """One number for each axis."""
    numbers: Sequence[int] = value if isinstance(value, list | tuple) else [value]
    return tuple(numbers) * rank if len(numbers) == 1 else tuple(numbers)


def _free_path(network: fx.GraphModule, attribute: str) -> str:
    """Where a layer's module goes whose weight was at `attribute`: `conv` for `conv.weight`, if nothing else is read
    there any more."""
    owner, _, last = attribute.rpartition(".")
    path = owner if last == "weight" and owner else attribute.removesuffix("weight").rstrip("._") or "layer"
    used = [str(n.target) for n in network.graph.nodes if n.op in ("get_attr", "call_module")]
    free, number = path, 1
    while any(one == free or one.startswith(f"{free}.") for one in used):
        number += 1
        free = f"{path}_{number}"
    return free
