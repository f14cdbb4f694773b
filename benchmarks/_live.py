"""The most bytes of activations that a network needs at one time, counted on its graph: what no plan of memory can
undercut without computing something twice."""

import torch
from torch import Tensor, nn
from torch.fx import Node

IN_PLACE = {
    "relu",
    "clamp",
    "hardtanh",
    "batch_norm",
    "_native_batch_norm_legit_no_training",
    "silu",
    "gelu",
    "sigmoid",
}
IN_PLACE |= {"tanh", "dropout", "add", "mul", "div", "sub", "relu_", "hardtanh_", "add_", "silu_"}
"""Operators that can write their result over an input that nobody else needs."""

VIEWS = {"view", "reshape", "flatten", "permute", "transpose", "unsqueeze", "squeeze", "expand", "slice", "select"}
VIEWS |= {"split", "chunk", "unbind", "getitem", "contiguous", "alias", "detach_", "t"}
"""Operators that move nothing, or need not."""


def largest_live(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Bytes of all activations that are needed at one step of the exported graph, at the step where they are most.

    Inputs and outputs count; weights and constants do not.
    """
    with torch.no_grad():
        program = torch.export.export(model.eval(), inputs)
    nodes = list(program.graph_module.graph.nodes)
    given = set(program.graph_signature.user_inputs)
    order = {node: at for at, node in enumerate(nodes)}
    root: dict[Node, Node] = {}
    last: dict[Node, int] = {}
    for node in nodes:
        sources = [root[n] for n in node.all_input_nodes if n in root]
        if (node.op == "placeholder" and node.name in given) or (node.op == "call_function" and _bytes(node)):
            root[node] = sources[0] if sources and _name(node) in VIEWS else node
        for one in sources:
            last[one] = order[node]
    live: dict[Node, int] = {}  # what a buffer belongs to now: its bytes
    most = 0
    for node in nodes:
        if root.get(node) is node:
            dying = [r for n in node.all_input_nodes if (r := root.get(n)) in live and last[r] == order[node]]
            reuse = [r for r in dying if live[r] == _bytes(node)] if _name(node) in IN_PLACE else []
            if reuse:
                del live[reuse[0]]
            live[node] = _bytes(node)
            most = max(most, sum(live.values()))
        live = {one: size for one, size in live.items() if last.get(one, -1) > order[node]}
    return most


def _name(node: Node) -> str:
    """'relu' of aten.relu.default."""
    return str(node.target).removeprefix("aten.").split(".")[0] if node.op == "call_function" else ""


def _bytes(node: Node) -> int:
    """Of a tensor or of several; 0 for anything else."""
    value = node.meta.get("val")
    several = value if isinstance(value, tuple | list) else (value,)
    return sum(v.numel() * v.element_size() for v in several if isinstance(v, Tensor))
