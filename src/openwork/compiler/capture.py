"""From a PyTorch module to the compiler's graph: `torch.export`, then one rule an ATen operator.

What no rule knows stays a `torch` node, runs in PyTorch between native segments and is named in `explain()`.
"""

import contextlib
import math
import operator
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from ..errors import CaptureError, ModelError
from ..formats.program import DTYPES
from .graph import Array, Graph, Node, Shape, verify
from .operators import CaptureRule, Inputs, Unsupported, capture_rules, takes_any_type

TAKES_INTEGERS = frozenset({"embedding", "attention", "word_mean"})
"""Operators whose native form reads whole numbers; before all others such an input stays with PyTorch."""


def capture(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Graph:
    """The graph of `model.eval()` at the shapes of `example_inputs`.

    Raises `ModelError` for weights that are NaN, infinite or empty, and `CaptureError` where `torch.export` gives up.
    """
    return verify(_Converter(export(model, example_inputs, decompose=True)).graph(), "capture")


def export(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    dynamic_shapes: tuple[Any, ...] | None = None,
    decompose: bool = False,
) -> ExportedProgram:
    """What `torch.export` makes of `model.eval()`; raises as `capture` does."""
    check_weights(model)
    try:
        # torch warns about itself while it exports; where warnings are errors that would pass for a model's fault.
        with evaluating(model), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.export.export(model, example_inputs, dynamic_shapes=dynamic_shapes)
            return functional(found) if decompose else found
    except Exception as error:  # torch.export raises many unrelated types
        reason = str(error).strip().splitlines()
        raise CaptureError(
            f"{type(model).__name__} cannot be captured by torch.export: "
            f"{reason[0] if reason else type(error).__name__}; "
            "data-dependent Python control flow must move out of forward()"
        ) from error


def functional(program: ExportedProgram) -> ExportedProgram:
    """The same program without operators that write into what they read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: ExportedProgram = program.run_decompositions({})
    return found


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every submodule is in the mode that it was in.

    PyTorch's fast path for transformer encoders is off meanwhile: it is not what `torch.export` captures, and returns
    zeros for tokens that a padding mask hides.
    """
    before = [(module, module.training) for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, training in before:
            module.training = training


def check_weights(model: nn.Module) -> None:
    """Raise `ModelError` naming the first parameter or buffer that is empty or not finite."""
    buffers = dict(model.named_buffers())
    for name, tensor in [*model.named_parameters(), *buffers.items()]:
        if tensor.numel() == 0:
            raise ModelError(
                f"{name} has shape {tuple(tensor.shape)}: a layer with no weights cannot be compiled; remove it"
            )
        if not tensor.is_floating_point():
            continue
        # minus infinity in a buffer is a mask; training that diverges leaves NaN and plus infinity
        bad = int((~torch.isfinite(tensor) & ~(torch.isneginf(tensor) if name in buffers else False)).sum())
        if bad:
            raise ModelError(
                f"{name} holds {bad} values that are NaN or infinite; load a checkpoint from before training diverged"
            )


class _Converter:
    """Walks the exported program once; `values` maps its nodes to names of ours."""

    def __init__(self, exported: ExportedProgram) -> None:
        self.exported = exported
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}
        self.tensors: dict[str, Tensor] = {}
        self.aliases: dict[str, str] = {}
        self.integers: set[str] = set()

    def graph(self) -> Graph:
        signature = self.exported.graph_signature
        kinds = {spec.arg.name: spec for spec in signature.input_specs}
        for node in self.exported.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node, kinds[node.name])
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                outputs = self._outputs(node)
            else:
                raise CaptureError(f"the exported graph holds a {node.op} node ({node.name}), which cannot be compiled")
        return Graph(tuple(self.nodes), outputs, self.constants)

    def _placeholder(self, node: fx.Node, spec: Any) -> None:
        if spec.kind is InputKind.USER_INPUT:
            value = node.meta["val"]
            dtype = type_of(value)
            if dtype not in DTYPES:
                raise CaptureError(
                    f"input {node.name} has type {dtype}, the engine takes {', '.join(DTYPES)}; convert it before the "
                    "model"
                )
            self.nodes.append(Node(node.name, "input", (), tuple(value.shape), self._typed(node)))
            return
        store: dict[str, Any] = {**dict(self.exported.state_dict), **self.exported.constants}
        self.tensors[node.name] = store[spec.target].detach()

    def _call(self, node: fx.Node) -> None:
        if self._fold(node):
            return
        for rule in self._rules(node):
            try:
                made = rule(self, node)
            except Unsupported:
                continue
            if isinstance(made, str):
                self.aliases[node.name] = made
                return
            if made.op in TAKES_INTEGERS or self.integers.isdisjoint(made.inputs):
                self.nodes.append(made)
                return
        self.nodes.append(self._fallback(node))

    def _fold(self, node: fx.Node) -> bool:
        """Compute what depends on parameters, buffers and numbers only: position ids, causal masks, normed weights."""
        target: Any = node.target
        if any(source.name not in self.tensors for source in node.all_input_nodes):
            return False
        if target is not operator.getitem:
            if not isinstance(target, OpOverload) or not isinstance(node.meta.get("val"), Tensor | tuple | list):
                return False
            if target._schema.is_mutable or torch.Tag.nondeterministic_seeded in target.tags:
                return False
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: self.tensors[source.name])
        with torch.no_grad():
            self.tensors[node.name] = target(*args, **kwargs)
        return True

    def _outputs(self, node: fx.Node) -> tuple[str, ...]:
        found = []
        returned: Any = node.args[0]
        for spec, value in zip(self.exported.graph_signature.output_specs, returned, strict=True):
            if spec.kind is OutputKind.USER_INPUT_MUTATION:
                raise CaptureError(f"the model writes into its input {spec.target}; let it work on a copy")
            if spec.kind is not OutputKind.USER_OUTPUT:
                raise CaptureError(
                    f"the model changes its own buffer {spec.target} while running; it cannot be compiled"
                )
            if not isinstance(value, fx.Node):
                raise CaptureError("the model returns something that is not a tensor; return tensors only")
            if value.name in self.tensors:
                self._return_constant(value)
            found.append(self.name(value))
        if not found:
            raise CaptureError("the model returns nothing; return at least one tensor")
        return tuple(found)

    def _return_constant(self, node: fx.Node) -> None:
        """A result that does not depend on the inputs: each run returns a copy of its own."""
        if node.op == "placeholder":
            raise CaptureError(f"the model returns its own constant {node.name}; return computed tensors only")
        constants: dict[str, str] = {}
        args = [self._encode(node, [], constants)]
        attrs = {"target": "aten.clone.default", "args": args, "kwargs": {"dict": {}}, **self._typed(node)}
        shape = tuple(int(d) for d in node.meta["val"].shape)
        self.nodes.append(Node(node.name, "torch", (), shape, attrs, constants, source_of(node)))

    # ---- what the rules use ----

    def name(self, node: fx.Node) -> str:
        """Our name of an exported value."""
        return self.aliases.get(node.name, node.name)

    def is_constant(self, node: Any) -> bool:
        """Whether an argument is a parameter or buffer."""
        return isinstance(node, fx.Node) and node.name in self.tensors

    def value(self, node: fx.Node) -> Tensor:
        """A parameter's or buffer's value, or what was computed from them."""
        return self.tensors[node.name]

    def tensor(self, node: fx.Node) -> Array:
        """A parameter's or buffer's value as float32."""
        return self.tensors[node.name].to(torch.float32).cpu().numpy().astype(np.float32, copy=True)

    def keep(self, key: str, value: Array) -> str:
        """Store a constant of the graph."""
        self.constants[key] = np.ascontiguousarray(value)
        return key

    def make(
        self, node: fx.Node, op: str, inputs: Inputs, attrs: dict[str, Any] | None = None, **constants: Array
    ) -> Node:
        """A node of ours that stands for an exported one."""
        shape = tuple(int(d) for d in node.meta["val"].shape)
        return self._node(node, node.name, op, inputs, shape, attrs, constants)

    def part(
        self,
        node: fx.Node,
        name: str,
        op: str,
        inputs: Inputs,
        shape: Shape,
        attrs: dict[str, Any] | None = None,
        **constants: Array,
    ) -> str:
        """Add a node before the one that stands for `node`; returns what it is called."""
        made = self._node(node, f"{node.name}.{name}", op, inputs, shape, attrs, constants)
        self.nodes.append(made)
        return made.name

    def _node(
        self,
        node: fx.Node,
        name: str,
        op: str,
        inputs: Inputs,
        shape: Shape,
        attrs: dict[str, Any] | None,
        constants: dict[str, Array],
    ) -> Node:
        keys = {role: self.keep(f"{name}.{role}", value) for role, value in constants.items()}
        names = tuple(self.name(x) if isinstance(x, fx.Node) else x for x in inputs)
        return Node(name, op, names, shape, attrs or {}, keys, source_of(node))

    def _rules(self, node: fx.Node) -> Sequence[CaptureRule]:
        """Native operators work on float32 tensors; what changes nothing may be left out whatever the type."""
        value, rules = node.meta.get("val"), capture_rules(str(node.target))
        if isinstance(value, tuple | list) or (isinstance(value, Tensor) and value.dtype is torch.float32):
            return rules
        return [rule for rule in rules if takes_any_type(rule)] if isinstance(value, Tensor) else ()

    def _typed(self, node: fx.Node) -> dict[str, Any]:
        """The attribute `dtype` of a value that is no float: whole numbers or truth values."""
        dtype = type_of(node.meta.get("val"))
        if dtype == "float32" or dtype not in DTYPES:
            return {}  # other floats become float32 where they leave PyTorch
        self.integers.add(node.name)
        return {"dtype": dtype}

    def _fallback(self, node: fx.Node) -> Node:
        value = node.meta.get("val")
        shape = tuple(int(d) for d in value.shape) if isinstance(value, Tensor) else ()
        inputs: list[str] = []
        constants: dict[str, str] = {}
        attrs = {
            "target": "getitem" if node.target is operator.getitem else str(node.target),
            "args": self._encode(node.args, inputs, constants),
            "kwargs": self._encode(dict(node.kwargs), inputs, constants),
            **self._typed(node),
        }
        return Node(node.name, "torch", tuple(inputs), shape, attrs, constants, source_of(node))

    def _encode(self, value: Any, inputs: list[str], constants: dict[str, str]) -> Any:
        """Arguments of a PyTorch operator as JSON: plain numbers, and one-key objects for what is not."""
        if isinstance(value, fx.Node):
            if value.name in self.tensors:
                key = f"torch.{value.name}"
                self.constants[key] = self.tensors[value.name].cpu().numpy()
                constants[key] = key
                return {"constant": key}
            inputs.append(self.name(value))
            return {"value": self.name(value)}
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(value)}  # JSON has no word for it
        if isinstance(value, bool | int | float | str) or value is None:
            return value
        if isinstance(value, list | tuple):
            return [self._encode(v, inputs, constants) for v in value]
        if isinstance(value, dict):
            return {"dict": {k: self._encode(v, inputs, constants) for k, v in value.items()}}
        if isinstance(value, torch.dtype | torch.memory_format | torch.layout | torch.device):
            return {"torch": str(value)}
        raise CaptureError(f"an operator has an argument of type {type(value).__name__}, which an artifact cannot hold")


def type_of(value: Any) -> str:
    """'float32', 'int64', ...; the class of what is no tensor."""
    return str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else type(value).__name__


def source_of(node: fx.Node) -> str:
    """The module of the user's model that a node comes from, as `named_modules` calls it."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return _clean(paths[-1]) if paths else ""


def _clean(path: str) -> str:
    return ".".join(_words(path))


def _words(path: str) -> Iterator[str]:
    for word in path.replace("L['self']", "").replace("['", ".").replace("']", "").split("."):
        if word and word not in ("_modules",):
            yield word
